"""How many different networks a space holds, exactly.

Two assignments of decisions that differ only in parts which are not built are the same
network, so only active decisions count. A subspace is summed up by a polynomial: for each
set of variables, the number of ways to settle everything inside that need just these from
outside: widths that are decided further up, outcomes of shared subspaces, and the inputs
that are read (a cell that drops its edges from one input may leave a part unused).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from math import prod
from typing import NamedTuple, TypeAlias

from trinas.space.binding import bind_widths, objects_children_first
from trinas.space.nodes import (
    Cell,
    Choice,
    Node,
    Op,
    Parallel,
    Repeat,
    Residual,
    Seq,
    Share,
    Stack,
    Tree,
    Trellis,
    as_node,
)
from trinas.space.values import Width


class _Outcome(NamedTuple):
    """All the ways to settle a shared subspace that need the same of its surroundings.

    `needs` holds outcomes of subspaces shared further in, and places in `_widths_inside`
    for the widths that are decided outside: each place of the subspace has its own.
    """

    key: str
    needs: frozenset[object]


class _Input(NamedTuple):
    """The result that came `back` steps ago, as a subspace sees it; 1 is the last one."""

    back: int


Variable: TypeAlias = Width | _Outcome | _Input
Poly: TypeAlias = dict[frozenset[Variable], int]

_ONE: Poly = {frozenset(): 1}
_LAST = _Input(1)
_READ: Poly = {frozenset([_LAST]): 1}


def cardinality(space: Node) -> int:
    """The number of different networks in `space`.

    Options that are searched only (`search_only`) do not count, nor do decisions about
    parts that a given network does not contain.

    >>> from trinas.space.words import choice, repeat, seq, share
    >>> cardinality(repeat(choice(a=seq(), b=seq()), (1, 2)))
    6
    >>> cardinality(repeat(share("both", choice(a=seq(), b=seq())), 2))
    2
    """
    return _Counter(as_node(space)).total()


def _times(left: Poly, right: Poly) -> Poly:
    result: Poly = {}
    for a, n in left.items():
        for b, m in right.items():
            both = a | b
            if _possible(both):
                result[both] = result.get(both, 0) + n * m
    return result


def _possible(variables: frozenset[Variable]) -> bool:
    """Whether no shared subspace has two outcomes at once."""
    keys = [v.key for v in variables if isinstance(v, _Outcome)]
    return len(keys) < 2 or len(keys) == len(set(keys))


def _plus(polys: Iterable[Poly]) -> Poly:
    result: Poly = {}
    for poly in polys:
        for variables, n in poly.items():
            result[variables] = result.get(variables, 0) + n
    return result


def _product(polys: Iterable[Poly]) -> Poly:
    return reduce(_times, polys, _ONE)


def _fed(poly: Poly) -> Poly:
    """The same subspace behind something else: what it reads is settled there."""
    result: Poly = {}
    for variables, n in poly.items():
        outside = frozenset([v for v in variables if not isinstance(v, _Input)])
        result[outside] = result.get(outside, 0) + n
    return result


def _chain(polys: Sequence[Poly]) -> Poly:
    """Subspaces in a row; only the first one reads from outside."""
    if not polys:
        return _READ
    numbers, rest = [], polys[0]
    for poly in map(_fed, polys[1:]):
        if poly.keys() == _ONE.keys():
            numbers.append(poly[frozenset()])
        else:
            rest = _times(rest, poly)
    number = _multiplied(numbers)
    return {variables: n * number for variables, n in rest.items()}


def _multiplied(numbers: Sequence[int]) -> int:
    """The product, by pairs: one long number times many short ones would be quadratic."""
    while len(numbers) > 1:
        numbers = [prod(numbers[i : i + 2]) for i in range(0, len(numbers), 2)]
    return prod(numbers)


def _by_reads(poly: Poly) -> dict[frozenset[_Input], Poly]:
    """The parts of a polynomial by which inputs they read, with those taken out."""
    parts: dict[frozenset[_Input], Poly] = {}
    for variables, n in poly.items():
        reads = frozenset(v for v in variables if isinstance(v, _Input))
        part = parts.setdefault(reads, {})
        part[variables - reads] = part.get(variables - reads, 0) + n
    return parts


class _Counter:
    """One count: remembers results per node object and per outcome of a shared subspace."""

    def __init__(self, space: Node) -> None:
        self._space = space
        self._bound = bind_widths(space)
        self._memo: dict[int, Poly] = {}
        self._ways: dict[_Outcome, int] = {}
        self._rules: dict[type[Node], Callable[..., Poly]] = {
            Op: self._op,
            Seq: self._seq,
            Choice: self._choice,
            Repeat: self._repeat,
            Residual: self._together,
            Parallel: self._together,
            Cell: self._cell,
            Stack: self._stack,
            Tree: self._paths,
            Trellis: self._paths,
            Share: self._share,
        }

    def total(self) -> int:
        # Parts first, so that counting never goes deeper than one node.
        for node in objects_children_first(self._space):
            poly = self._rules[type(node)](node)
            self._memo[id(node)] = self._settle_widths(node, poly)
        poly = self._memo[id(self._space)]
        return sum(
            n * prod(self._ways[v] for v in variables if isinstance(v, _Outcome))
            for variables, n in poly.items()
        )

    def _count(self, node: Node) -> Poly:
        return self._memo[id(node)]

    def _settle_widths(self, node: Node, poly: Poly) -> Poly:
        """Multiply by the candidates of the widths that are decided at `node`."""
        if id(node) not in self._bound:
            return poly
        bound = frozenset(self._bound[id(node)])
        return _plus(
            {
                variables - bound: n
                * prod(len(v.values) for v in variables & bound if isinstance(v, Width))
            }
            for variables, n in poly.items()
        )

    def _op(self, node: Op) -> Poly:
        widths = [symbol for symbol in node.symbols if isinstance(symbol, Width)]
        return {frozenset([*widths, _LAST]): 1} if widths else _READ

    def _seq(self, node: Seq) -> Poly:
        return _chain([self._count(item) for item in node.items])

    def _together(self, node: Parallel | Residual) -> Poly:
        parts = _product(map(self._count, node.children))
        plain = isinstance(node, Residual) and node.skip is None
        return _times(parts, _READ) if plain else parts

    def _choice(self, node: Choice) -> Poly:
        return _plus(
            self._count(option) for label, option in node.options if label not in node.search_only
        )

    def _repeat(self, node: Repeat) -> Poly:
        body = self._count(node.body)
        return _plus(_chain([body] * count) for count in node.counts)

    def _stack(self, node: Stack) -> Poly:
        # From the last item back: for each set of results still wanted, the ways so far.
        wanted: dict[frozenset[int], Poly] = {frozenset([len(node.items) - 1]): _ONE}
        for index in range(len(node.items) - 1, -1, -1):
            body = self._count(node.items[index])
            further: dict[frozenset[int], Poly] = {}
            for results, ways in wanted.items():
                for reads, poly in _by_reads(body).items() if index in results else ():
                    earlier = {index - min(read.back, node.memory) for read in reads}
                    key = results - {index} | {max(result, -1) for result in earlier}
                    further[key] = _plus([further.get(key, {}), _times(poly, ways)])
                if index not in results:
                    further[results] = _plus([further.get(results, {}), ways])
            wanted = further
        return _times(_plus(wanted.values()), _READ)

    def _share(self, node: Share) -> Poly:
        outer = {width: place for place, width in enumerate(self._widths_inside(node.body))}
        result: Poly = {}
        for variables, n in self._count(node.body).items():
            needs = (outer[v] if isinstance(v, Width) else v for v in variables)
            outcome = _Outcome(node.key, frozenset(needs))
            self._ways.setdefault(outcome, n)
            result[variables | {outcome}] = 1
        return result

    def _widths_inside(self, body: Node) -> list[Width]:
        found: dict[Width, None] = {}
        for node in objects_children_first(body):
            found.update((symbol, None) for symbol in node.symbols if isinstance(symbol, Width))
        return list(found)

    def _paths(self, node: Tree | Trellis) -> Poly:
        """Sequences by how many of each block they hold: tree and trellis agree here."""
        labels = [label for label, _ in node.options]
        limits, exits = dict(node.at_most), dict(node.exit_at)
        ways: dict[tuple[int, ...], Poly] = {}
        for spot in itertools.product(*(range(limits[label] + 1) for label in labels)):
            arrivals = []
            for position, (label, block) in enumerate(node.options):
                before = tuple(n - (i == position) for i, n in enumerate(spot))
                if sum(spot) == 1 and spot[position] and node.first in (None, label):
                    arrivals.append(self._count(block))
                elif before in ways:
                    arrivals.append(_times(ways[before], _fed(self._count(block))))
            if arrivals:
                ways[spot] = _plus(arrivals)
        wanted = [exits.get(label) for label in labels]
        return _plus(
            poly
            for spot, poly in ways.items()
            if all(w is None or w == n for w, n in zip(wanted, spot))
        )

    def _cell(self, node: Cell) -> Poly:
        first, edges = len(node.inputs), dict(node.edges)
        memo: dict[frozenset[int], Poly] = {}

        def settle(live: frozenset[int]) -> Poly:
            """Ways to settle all live steps and inputs, from the last one down."""
            if not live:
                return _ONE
            if live not in memo:
                j = max(live)
                rest = live - {j}
                if j < first:
                    prepare = node.inputs[j]
                    inside = _ONE if prepare is None else _fed(self._count(prepare))
                    read: Poly = {frozenset([_Input(first - j)]): 1}
                    memo[live] = _product([inside, read, settle(rest)])
                else:
                    keep = j if node.keep is None else min(node.keep, j)
                    memo[live] = _plus(
                        _times(
                            _product(_fed(self._count(edges[i, j])) for i in kept),
                            settle(rest | frozenset(kept)),
                        )
                        for kept in itertools.combinations(range(j), keep)
                    )
            return memo[live]

        last = first + node.steps - 1
        return settle(frozenset([last] if node.merge == "last" else range(first, last + 1)))
