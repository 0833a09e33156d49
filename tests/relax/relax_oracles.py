"""Second ways to the numbers of trinas.relax: enumeration in plain Python floats.

Nothing here shares code or method with the package: every optimum is the best of all candidates
that some combination of active constraints allows.
"""

from __future__ import annotations

import itertools
import math
import random


def square(values):
    return math.fsum(v * v for v in values)


def distance(q, z):
    return square(a - b for a, b in zip(q, z))


def supports(k):
    for size in range(1, k + 1):
        yield from itertools.combinations(range(k), size)


def spread_out(k, support, values):
    q = [0.0] * k
    for i, v in zip(support, values):
        q[i] = v
    return q


def face_point(z, support):
    """The projection of z to the plane of a face, or None where it leaves the face."""
    mean = math.fsum(z[i] for i in support) / len(support)
    values = [z[i] - mean + 1 / len(support) for i in support]
    return spread_out(len(z), support, values) if min(values) >= 0 else None


def sphere_point(z, support, radius):
    """The nearest point of the sphere within the plane of a face, or None where there is none."""
    k = len(support)
    mean = math.fsum(z[i] for i in support) / k
    norm = math.sqrt(square(z[i] - mean for i in support))
    c2 = radius**2 - 1 / k + 1 / len(z)
    if c2 < 0 or norm < 1e-12:  # equal entries may differ from their rounded mean
        return None
    values = [1 / k + math.sqrt(c2) * (z[i] - mean) / norm for i in support]
    return spread_out(len(z), support, values) if min(values) >= -1e-15 else None


def from_centre(q):
    return math.sqrt(square(v - 1 / len(q) for v in q))


def sparsestmax_by_enumeration(z, radius):
    """The best of all points that are optimal for one support, in or on the ball's outside."""
    candidates = []
    for support in supports(len(z)):
        inner = face_point(z, support)
        if inner is not None and from_centre(inner) >= radius - 1e-13:
            candidates.append(inner)
        outer = sphere_point(z, support, radius)
        if outer is not None:
            candidates.append(outer)
    for i in range(len(z)):
        candidates.append(spread_out(len(z), [i], [1.0]))
    return min(candidates, key=lambda q: distance(q, z))


def subset_by_enumeration(z, k, radius):
    """The best choice of k: every entry at 0, at 1 or free, in or on the outside of the ball."""
    best, least = None, math.inf
    for states in itertools.product((0, 1, None), repeat=len(z)):
        for q in subset_points(z, k, radius, states):
            if from_middle(q, k) >= radius - 1e-12 and distance(q, z) < least:
                best, least = q, distance(q, z)
    return best


def subset_points(z, k, radius, states):
    """The points that are optimal for some entries at 0, some at 1, and the others free."""
    free = [i for i, s in enumerate(states) if s is None]
    rest = k - sum(s == 1 for s in states)
    if not free:
        return [[float(s) for s in states]] if rest == 0 else []
    mean = math.fsum(z[i] for i in free) / len(free)
    way = [z[i] - mean for i in free]
    norm = math.sqrt(square(way))
    fixed = [rest / len(free) if s is None else float(s) for s in states]
    scales = [1.0]
    c2 = radius**2 - from_middle(fixed, k) ** 2
    if norm > 1e-12 and c2 >= 0:
        scales.append(math.sqrt(c2) / norm)
    found = []
    for scale in scales:
        values = [rest / len(free) + scale * w for w in way]
        if min(values) >= -1e-13 and max(values) <= 1 + 1e-13:
            q = list(fixed)
            for i, v in zip(free, values):
                q[i] = v
            found.append(q)
    return found


def from_middle(q, k):
    return math.sqrt(square(v - k / len(q) for v in q))


def inclusion(z, k):
    """How likely each entry is in a set of k that is as likely as exp of its sum."""
    sets = list(itertools.combinations(range(len(z)), k))
    odds = [math.exp(math.fsum(z[i] for i in chosen)) for chosen in sets]
    total = math.fsum(odds)
    return [
        math.fsum(o for o, chosen in zip(odds, sets) if i in chosen) / total for i in range(len(z))
    ]


def feasible_points(k, radius, count, seed):
    """Random points of the simplex at least `radius` from its centre."""
    rng = random.Random(seed)
    for _ in range(count):
        draws = [rng.expovariate(1) ** rng.choice((0.3, 1, 3)) for _ in range(k)]
        if rng.random() < 0.5:
            for i in rng.sample(range(k), rng.randrange(k)):
                draws[i] = 0.0
        total = math.fsum(draws) or 1.0
        q = [d / total for d in draws] if any(draws) else [1.0] + [0.0] * (k - 1)
        corner = rng.randrange(k)
        lo, hi = 0.0, 1.0
        for _ in range(60):  # the least mixture with a corner that is far enough out
            mid = (lo + hi) / 2
            mixed = [(1 - mid) * v + mid * (i == corner) for i, v in enumerate(q)]
            lo, hi = (lo, mid) if from_centre(mixed) >= radius else (mid, hi)
        share = hi if from_centre(q) < radius else 0.0
        yield [(1 - share) * v + share * (i == corner) for i, v in enumerate(q)]


def edges(parents):
    return [(p, v) for v, p in enumerate(parents) if p >= 0]


def hinge(x, parents):
    return math.fsum(max(0.0, x[v] - x[p]) for p, v in edges(parents))


def blocks_of(k, fused):
    label = list(range(k))
    for p, v in fused:
        old, new = label[v], label[p]
        label = [new if name == old else name for name in label]
    return label


def nearly_isotonic_by_enumeration(z, parents, strength):
    """The best over all ways in which each pair may be apart, fused or paying."""
    k, pairs = len(z), edges(parents)
    best, least = None, math.inf
    for states in itertools.product((0, 1, 2), repeat=len(pairs)):
        label = blocks_of(k, [pair for pair, s in zip(pairs, states) if s == 1])
        moved = list(z)
        for (p, v), s in zip(pairs, states):
            if s == 2:
                moved[v] -= strength / 2
                moved[p] += strength / 2
        x = block_means(moved, label)
        value = distance(x, z) + strength * hinge(x, parents)
        if value < least:
            best, least = x, value
    return best


def block_means(values, label):
    groups = {name: [v for v, n in zip(values, label) if n == name] for name in set(label)}
    means = {name: math.fsum(group) / len(group) for name, group in groups.items()}
    return [means[name] for name in label]


def isotonic_by_enumeration(z, parents):
    """The best descending x over all ways to fuse pairs."""
    pairs = edges(parents)
    best, least = None, math.inf
    for states in itertools.product((False, True), repeat=len(pairs)):
        x = block_means(z, blocks_of(len(z), [pair for pair, s in zip(pairs, states) if s]))
        if all(x[v] <= x[p] + 1e-12 for p, v in pairs) and distance(x, z) < least:
            best, least = x, distance(x, z)
    return best


def without(parents, dropped):
    """The parent array of the entries that are left when children move to the one before."""
    left = [i for i in range(len(parents)) if i not in dropped]
    place = {entry: at for at, entry in enumerate(left)}
    result = []
    for entry in left:
        parent = parents[entry]
        while parent in dropped:
            parent = parents[parent]
        result.append(place[parent] if parent >= 0 else -1)
    return left, tuple(result)


def random_tree(rng, k, roots=1):
    """A parent array with shuffled names, so that parents need not come first."""
    names = rng.sample(range(k), k)
    parents = [-1] * k
    for at in range(roots, k):
        parents[names[at]] = names[rng.randrange(at)]
    return tuple(parents)
