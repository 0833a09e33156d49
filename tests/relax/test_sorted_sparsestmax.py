"""Sorted sparsestmax against enumerations of block structures, and what its order means."""

import math
import random

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from relax.relax_oracles import (
    distance,
    edges,
    feasible_points,
    from_centre,
    hinge,
    isotonic_by_enumeration,
    nearly_isotonic_by_enumeration,
    random_tree,
)

from trinas._core.errors import RelaxationError, UnknownNameError
from trinas.relax import circumradius, order_penalty, sorted_sparsestmax, sparsestmax
from trinas.relax._forest import in_original_order, in_preorder, plan
from trinas.relax._order import read_order
from trinas.relax._prox import nearly_isotonic

FEW = settings(max_examples=60, deadline=None)
VALUES = st.integers(-1000, 1000).map(lambda i: i / 1000)
ROWS = st.integers(2, 6).flatmap(lambda k: st.lists(VALUES, min_size=k, max_size=k))
SEEDS = st.integers(0, 10**6)
STRENGTHS = st.sampled_from([0.0, 0.05, 0.3, 1.0, 5.0])
FORMS = ("linear", "hinge", "strict")


def double(values, **kwargs):
    return torch.tensor(values, dtype=torch.float64, **kwargs)


def tree_for(seed, k):
    rng = random.Random(seed)
    return random_tree(rng, k, roots=rng.choice((1, 1, 2)) if k > 2 else 1)


def prox(z, parents, strength):
    forest = plan(read_order(parents, z.shape[-1]), z)
    x = nearly_isotonic(in_preorder(z, forest), forest, strength / 2, whole=True)
    return in_original_order(x, forest)


def settled(z, parents, strength, form, radius):
    """No kink within reach: the same zeros and equalities when every logit moves a little."""
    base = double(z)
    seen = set()
    for step in (0.0, 1e-4, -1e-4):
        for i in range(len(z)):
            moved = base.clone()
            moved[i] += step
            x = prox(moved, parents, math.inf if form == "strict" else strength)
            if form == "linear":
                x = moved
            q = sorted_sparsestmax(moved, radius, parents, strength, form)
            equal = tuple(x[a].item() == x[b].item() for a, b in edges(parents))
            paying = tuple(x[a].item() < x[b].item() for a, b in edges(parents))
            seen.add((equal, paying, tuple((q > 0).tolist()), from_centre(q.tolist()) > radius))
    return len(seen) == 1


@FEW
@given(ROWS, SEEDS, STRENGTHS)
def test_prox_equals_the_best_of_all_structures(z, seed, strength):
    tree = tree_for(seed, len(z))
    expected = nearly_isotonic_by_enumeration(z, tree, strength)

    assert prox(double(z), tree, strength).tolist() == pytest.approx(expected, abs=1e-9)


@FEW
@given(ROWS, SEEDS)
def test_strict_prox_equals_the_best_descending_structure(z, seed):
    tree = tree_for(seed, len(z))
    expected = isotonic_by_enumeration(z, tree)

    assert prox(double(z), tree, math.inf).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("k", [16, 40, 64])
@pytest.mark.parametrize("mu", [0.02, 0.3, math.inf])
def test_prox_of_large_trees_meets_its_optimality_conditions(k, mu):
    """With x = z - (sum of edge forces), a force is 0, mu or between, as its edge falls, rises
    or is level; the forces of a tree follow from x, leaves first."""
    rng = random.Random(k)
    trees = [random_tree(rng, k), tuple(range(-1, k - 1)), (-1,) + (0,) * (k - 1)]
    z = double([[rng.gauss(0, 1) for _ in range(k)] for _ in range(20)])
    for tree in trees:
        x = prox(z, tree, 2 * mu)
        gap = z - x
        forest = read_order(tree, k)
        names = forest.entries
        force = {}
        for at in reversed(range(k)):
            below = sum(force[c] for c in range(k) if forest.parents[c] == at)
            force[at] = gap[:, names[at]] + below
        for at, parent in enumerate(forest.parents):
            if parent < 0:
                assert force[at].abs().max() < 1e-9
                continue
            rise = x[:, names[at]] - x[:, names[parent]]
            assert force[at].min() > -1e-9
            assert force[at].max() < mu + 1e-9
            assert force[at][rise < -1e-9].abs().sum() < 1e-9
            assert rise.max() < 1e-9 or math.isfinite(mu)
            if math.isfinite(mu):
                assert (force[at][rise > 1e-9] - mu).abs().sum() < 1e-8


@settings(max_examples=12, deadline=None)
@given(ROWS, SEEDS, st.sampled_from([0.1, 0.5]), st.sampled_from(["linear", "hinge"]))
def test_no_feasible_point_is_better(z, seed, strength, form):
    """The penalised problem itself, wherever the prox leaves a unique maximum."""
    tree = tree_for(seed, len(z))
    radius = 0.7 * circumradius(len(z))
    q = sorted_sparsestmax(double(z), radius, tree, strength, form).tolist()
    assume(from_centre(q) >= radius - 1e-9)

    def objective(p):
        linear = math.fsum(p[v] - p[u] for u, v in edges(tree))
        return distance(p, z) + strength * (hinge(p, tree) if form == "hinge" else linear)

    near = []
    for scale in (1e-1, 1e-2, 1e-3):
        for point in feasible_points(len(z), radius, 60, seed):
            mixed = [(1 - scale) * a + scale * b for a, b in zip(q, point)]
            if from_centre(mixed) < radius:  # push out, away from the centre
                s = radius / from_centre(mixed)
                mixed = [1 / len(z) + s * (v - 1 / len(z)) for v in mixed]
            if min(mixed) >= 0:
                near.append(mixed)
    for point in [*feasible_points(len(z), radius, 200, seed), *near]:
        assert objective(q) <= objective(point) + 1e-8


@FEW
@given(ROWS, SEEDS, STRENGTHS, st.integers(0, 10))
def test_linear_is_sparsestmax_of_shifted_logits(z, seed, strength, share):
    tree = tree_for(seed, len(z))
    shift = [0.0] * len(z)
    for parent, child in edges(tree):
        shift[child] += 1
        shift[parent] -= 1
    radius = share / 10 * circumradius(len(z))
    expected = sparsestmax(double(z) - strength / 2 * double(shift), radius)

    got = sorted_sparsestmax(double(z), radius, tree, strength, "linear")

    assert torch.allclose(got, expected, rtol=0, atol=1e-8)


def test_linear_telescopes_on_a_chain():
    z = double([0.3, 0.2, 0.1, 0.25])
    shift = double([-1, 0, 0, 1])

    got = sorted_sparsestmax(z, 0.5, ((0, 1, 2, 3),), 0.1, "linear")

    assert torch.allclose(got, sparsestmax(z - 0.05 * shift, 0.5))


def test_linear_counts_a_shared_pair_once_per_chain():
    z = torch.zeros(4, dtype=torch.float64)
    once = sorted_sparsestmax(z, 0.0, (-1, 0, 1, 1), 0.1, "linear")
    twice = sorted_sparsestmax(z, 0.0, ((0, 1, 2), (0, 1, 3)), 0.1, "linear")

    assert once.tolist() == pytest.approx([0.3, 0.3, 0.2, 0.2])
    assert twice.tolist() == pytest.approx([0.35, 0.25, 0.2, 0.2])


@pytest.mark.parametrize("form", ["hinge", "strict"])
def test_chains_and_parents_describe_the_same_constraints(form):
    z = double([[0.1, 0.2, 0.05, 0.4, 0.3], [0.2, 0.1, 0.3, 0.15, 0.05]])
    chains = ((3, 1, 0), (3, 1, 2), (4,))
    parents = (1, 3, 1, -1, -1)

    assert torch.equal(
        sorted_sparsestmax(z, 0.3, chains, 0.2, form),
        sorted_sparsestmax(z, 0.3, parents, 0.2, form),
    )


@FEW
@given(ROWS, SEEDS, st.integers(0, 10))
def test_strict_never_ascends(z, seed, share):
    tree = tree_for(seed, len(z))
    q = sorted_sparsestmax(double(z), share / 10 * circumradius(len(z)), tree, form="strict")

    assert all(q[child] <= q[parent] for parent, child in edges(tree))


@FEW
@given(ROWS, SEEDS, STRENGTHS, st.integers(0, 10))
def test_hinge_ascends_no_more_than_sparsestmax_and_stops_at_strict(z, seed, strength, share):
    tree, radius = tree_for(seed, len(z)), share / 10 * circumradius(len(z))
    plain = sparsestmax(double(z), radius)

    none = sorted_sparsestmax(double(z), radius, tree, 0.0, "hinge")
    some = prox(double(z), tree, strength).tolist()
    endless = sorted_sparsestmax(double(z), radius, tree, 1e3, "hinge")

    assert torch.allclose(none, plain, atol=1e-12)
    assert hinge(some, tree) <= hinge(z, tree) + 1e-9
    assert torch.allclose(endless, sorted_sparsestmax(double(z), radius, tree, form="strict"))


def test_strength_zero_keeps_the_gradient_of_equal_logits():
    """Entries that only touch are separate; otherwise a uniform start could not move."""
    weights = double([1, 2, 3])
    for strength in (0.0, 0.1, 5.0):
        for form in FORMS[1:]:
            for value in (0.001, 0.1, -7.3):
                z = torch.full((3,), value, dtype=torch.float64, requires_grad=True)
                q = sorted_sparsestmax(z, 0.0, ((0, 1, 2),), strength, form)
                (grad,) = torch.autograd.grad((q * weights).sum(), z)
                assert grad.tolist() == pytest.approx([-1, 0, 1])


@pytest.mark.parametrize("form", ["hinge", "strict"])
def test_a_fused_maximum_stays_symmetric_and_does_not_move(form):
    z = double([0.5, 0.52, -1.0], requires_grad=True)
    chain = ((0, 1, 2),)
    for share in (0.8, 1.0):
        q = sorted_sparsestmax(z, share * circumradius(3), chain, 0.2, form)
        (grad,) = torch.autograd.grad(q[0], z)
        assert q.tolist() == [0.5, 0.5, 0]
        assert grad.tolist() == [0, 0, 0]
    alone = sorted_sparsestmax(z, circumradius(3), ((0, 2), (1,)), 0.2, form)
    assert alone.tolist() == [0, 1, 0]


def test_an_edge_that_only_just_pays_in_full():
    """Both pieces of the prox meet here: the value is theirs, the gradient is not averaged."""
    z = double([0.0, 0.25], requires_grad=True)
    x = prox(z, (-1, 0), 0.25)

    assert x.tolist() == [0.125, 0.125]
    assert torch.autograd.grad(x[1], z)[0].tolist() == [0, 1]


@pytest.mark.parametrize("form", FORMS)
def test_an_offset_costs_no_digits(form):
    z = torch.randint(-512, 512, (50, 4), generator=torch.Generator().manual_seed(0)) / 1024
    near, far = (
        sorted_sparsestmax(z + offset, 0.4, ((0, 1, 2, 3),), 0.1, form) for offset in (0.0, 4096.0)
    )

    assert torch.allclose(near, far, rtol=0, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 300), min_size=3, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_blocks_level_with_a_level_block_are_tied_too(rises, thirds):
    """A path of ascending groups, every one of the same mean: only rounding tells them apart."""
    z = [0]
    for rise, third in zip(rises, thirds):
        z += [-2 * rise, rise, rise] if third else [-rise, rise]
    # With the largest at 0, decimals are as close to these as rounding in the sums is.
    z = double([(v - max(z)) / 1000 for v in z])
    q = sorted_sparsestmax(z, 0.5, (tuple(range(len(z))),), form="strict")

    assert q.tolist() == pytest.approx([1 / len(z)] * len(z), abs=1e-12)


@pytest.mark.parametrize("z", [[0.126, -0.148, 0.4, 0.0], [0.3, 0.1, 0.5, 0.2999]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_blocks_that_are_level_up_to_rounding_are_tied(z, dtype):
    """The mean of entries 1 and 2 is entry 0, in decimals: no order but rounding's is left."""
    q = sorted_sparsestmax(torch.tensor(z, dtype=dtype), 0.6, ((0, 1, 2), (3,)), form="strict")

    assert q.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0], abs=1e-6)
    assert q[0] == q[1] == q[2]


def test_logits_that_differ_in_their_last_digits_are_not_tied():
    z = torch.tensor([0.001, 0.001 - 3e-10, 0.001 - 1e-9])  # 2 to 8 units in the last place
    for form in FORMS[1:]:
        q = sorted_sparsestmax(z, 0.7, ((0, 1, 2),), 0.1, form)
        assert torch.allclose(q, sparsestmax(z, 0.7))
        assert q[0] > 0.8


def test_at_full_radius_strict_chooses_a_root_and_hinge_a_strong_child():
    z = double([[0.0, 1.0, 0.2], [0.3, 0.2, 0.1]])
    full = circumradius(3)

    assert sorted_sparsestmax(z, full, ((0, 1, 2),), 0.1, "hinge").tolist() == [
        [0, 1, 0],
        [1, 0, 0],
    ]
    strict = sorted_sparsestmax(z, full, ((0, 1, 2),), form="strict")
    assert strict.tolist() == [[0.5, 0.5, 0], [1, 0, 0]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.0, 0.4, 0.7])
def test_gradcheck_and_gradgradcheck(form, share):
    rng = random.Random(5)
    checked = 0
    for _ in range(40):
        k = rng.randrange(3, 6)
        tree = random_tree(rng, k)
        z = [rng.gauss(0, 0.3) for _ in range(k)]
        radius = share * circumradius(k)
        if checked == 4 or not settled(z, tree, 0.2, form, radius):
            continue
        q = sorted_sparsestmax(double(z), radius, tree, 0.2, form)
        if (q > 0).sum() < 2 or min(v for v in q.tolist() if v > 0) < 1e-2:
            continue
        checked += 1

        def relax(x, tree=tree, radius=radius):
            return sorted_sparsestmax(x, radius, tree, 0.2, form)

        assert torch.autograd.gradcheck(relax, double(z, requires_grad=True))
        assert torch.autograd.gradgradcheck(relax, double(z, requires_grad=True))
    assert checked == 4


@settings(max_examples=30, deadline=None)
@given(ROWS, SEEDS, st.sampled_from([0.1, 0.6]), st.sampled_from(["hinge", "strict"]))
def test_prox_gradient_averages_over_blocks(z, seed, strength, form):
    tree = tree_for(seed, len(z))
    assume(settled(z, tree, strength, form, 0.0))
    strength = math.inf if form == "strict" else strength
    x = prox(double(z), tree, strength)
    jacobian = torch.autograd.functional.jacobian(lambda v: prox(v, tree, strength), double(z))

    for i in range(len(z)):
        moved = double(z)
        moved[i] += 1e-6
        step = (prox(moved, tree, strength) - x) / 1e-6
        assert torch.allclose(jacobian[:, i], step, atol=1e-5)


def test_tiny_differences_and_large_offsets_keep_their_order():
    base = [0.0, 3e-6, 1e-6, -2e-6]
    z = torch.tensor(base) + 0.001
    exact = nearly_isotonic_by_enumeration(z.double().tolist(), (-1, 0, 1, 2), 2e-6)
    expected = sparsestmax(double(exact), 0.3)

    assert torch.allclose(
        sorted_sparsestmax(z, 0.3, ((0, 1, 2, 3),), 2e-6).double(), expected, atol=1e-3
    )
    far = double([v + 1e4 for v in (0.0, 0.3, 0.1)])
    near = sorted_sparsestmax(double([0.0, 0.3, 0.1]), 0.5, ((0, 1, 2),), 0.1)
    assert torch.allclose(sorted_sparsestmax(far, 0.5, ((0, 1, 2),), 0.1), near, atol=1e-8)


def test_every_argument_changes_something():
    z = double([[0.1, 0.3, 0.2], [0.3, 0.1, 0.2]])
    order = ((0, 1, 2),)
    base = sorted_sparsestmax(z, 0.3, order, 0.1, "hinge")
    others = [
        sorted_sparsestmax(z, 0.6, order, 0.1, "hinge"),
        sorted_sparsestmax(z, double([[0.3], [0.7]]), order, 0.1, "hinge"),
        sorted_sparsestmax(z, 0.3, ((2, 1, 0),), 0.1, "hinge"),
        sorted_sparsestmax(z, 0.3, order, 0.2, "hinge"),
        sorted_sparsestmax(z, 0.3, order, 0.1, "linear"),
        sorted_sparsestmax(z, 0.3, order, 0.1, "strict"),
    ]
    for other in others:
        assert not torch.allclose(base, other)
    assert torch.equal(base.mT, sorted_sparsestmax(z.mT, 0.3, order, 0.1, "hinge", 0))
    assert torch.equal(base, sorted_sparsestmax(z, 0.3, order))
    close = (z * 1e-3).requires_grad_()
    grads = [
        torch.autograd.grad(
            sorted_sparsestmax(close, 0.6, order, 1e-4, min_spread=floor)[:, 0].sum(), close
        )[0]
        for floor in (0.0, 0.1)
    ]
    assert grads[1].abs().sum() < 0.1 * grads[0].abs().sum()


def test_order_penalty_sums_consecutive_differences():
    z = double([[0.5, 2.0, 1.0, 0.2], [1.0, 1.0, 0.0, 3.0]], requires_grad=True)
    chains = ((0, 1, 2), (0, 1, 3))
    expected = [(1.0 - 0.5) + (0.2 - 0.5), (0.0 - 1.0) + (3.0 - 1.0)]
    penalty = order_penalty(z, chains)

    assert penalty.tolist() == pytest.approx(expected)
    (grad,) = torch.autograd.grad(penalty.sum(), z)
    assert grad.tolist() == [[-2, 0, 1, 1]] * 2
    assert order_penalty(z, (-1, 0, 1, 1))[0].item() == pytest.approx(1.5 - 1.0 - 1.8)
    assert torch.equal(order_penalty(z.mT, chains, 0), penalty)
    assert order_penalty(z.bfloat16(), chains).dtype is torch.bfloat16


def test_order_penalty_leaves_masked_entries_out():
    z = double([[0.5, -math.inf, 1.0], [-math.inf, 2.0, 0.25]], requires_grad=True)
    penalty = order_penalty(z, ((0, 1, 2),))

    assert penalty.tolist() == [0.5, -1.75]
    assert torch.autograd.grad(penalty.sum(), z)[0].tolist() == [[-1, 0, 1], [0, -1, 1]]
    with pytest.raises(RelaxationError, match="got nan; at row"):
        order_penalty(double([[math.nan, 0.0]]), ((0, 1),))


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ((-1, 0), "a parent array has one number per entry; got 2 for 3 entries. A flat tuple is"),
        ((), "a parent array has one number per entry; got 0 for 3 entries"),
        ((0, 1, 2), "an order has no cycle; got one through some of [0, 1, 2]. Roots have"),
        ((-1, 2, 1), "got one through some of [1, 2]"),
        ((-1, 0, 3), "a parent is an entry 0 to 2, or -1 for a root; got 3; at [2]"),
        ((-1, 0, -2), "got -2; at [2]"),
        (((0, 1),), "chains cover every entry; got none with [2]. There are 3 entries"),
        (((0, 1, 2, 3),), "chains hold entries 0 to 2; got 3; at chain 0"),
        (((0, 1, 2), (0, 2)), "one entry comes directly before another; got 1 and 0 before 2"),
        (((0, 1, 2), (2, 0)), "an order has no cycle"),
        (((0, 0), (1,), (2,)), "an order has no cycle"),
        ((-1, (0, 1)), "a parent array or a set of chains, not a mixture; got (-1, (0, 1))"),
    ],
)
def test_orders_that_are_none_are_refused(order, text):
    with pytest.raises(RelaxationError) as error:
        sorted_sparsestmax(torch.zeros(2, 3), 0.1, order)

    assert text in str(error.value)


def test_other_bad_settings_are_refused():
    z, chain = torch.zeros(2, 3), ((0, 1, 2),)
    with pytest.raises(UnknownNameError, match=r"got 'hing'\. Did you mean 'hinge'\? Known: "):
        sorted_sparsestmax(z, 0.1, chain, 0.1, "hing")
    for value in (-0.1, math.nan, math.inf):
        with pytest.raises(RelaxationError, match=r'strength of an order is a finite .*"strict"'):
            sorted_sparsestmax(z, 0.1, chain, value)
    with pytest.raises(RelaxationError, match=r"got 0\.9\. With K = 3 the range is"):
        sorted_sparsestmax(z, 0.9, chain)


def test_lists_serve_as_orders_too():
    z = double([0.1, 0.4, 0.2])

    assert torch.equal(
        sorted_sparsestmax(z, 0.3, [[0, 1, 2]]), sorted_sparsestmax(z, 0.3, ((0, 1, 2),))
    )
    assert torch.equal(
        sorted_sparsestmax(z, 0.3, [-1, 0, 1]), sorted_sparsestmax(z, 0.3, (-1, 0, 1))
    )
