"""What a step costs as branches reach zero: time and memory against the share that is left.

The share is of option slots: of all options of all operations, and of all nodes that may be
the end of the tree. A slot counts as left where its weight is not zero and its place still
leads to the output, so the slots of a cell that no living end is behind are gone with it.
Slots are dropped at random from among those that are left, and every choice that still
matters keeps one of its options, until the share is met. The weights of a choice are equal.

The tree shrinks to a tenth and below, since dropping its ends takes cells away. The edges
of DARTS all stay, so that one operation of eight on each is as sparse as they get; that is
what GDAS runs. A network of the space has fewer edges, two into every node.

The plain loop (`benchmarks.plain`) runs everything at any share. The bare layers of the
cells (`benchmarks.floors`) say how much less there is to compute: a stem, the first layers of
every cell and the classifier stay whatever is dropped.
"""

from __future__ import annotations

import functools
import random
import statistics
from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

import torch

import trinas as tn
from benchmarks.cases import TREES, Case, darts_case, sr_case
from benchmarks.floors import Floor, run_layers
from benchmarks.measure import Options, Row, Work, interleaved, peak_megabytes

Goals: TypeAlias = Mapping[tuple[str, str], Mapping[str, float]]
"""By what is alive and by figure, a bound of that figure."""

LOOP = "plain loop"
TIME, DENSE, FASTER, MEMORY, BARE = (
    "time / all",
    "all / time",
    "loop / time",
    "memory / all",
    "all / time, layers alone",
)
BRANCHING = ("operation", "path")
"""Kinds of decisions that pick among branches."""

ALL, TENTH, ONE, NETWORK = "all", "1/10", "one option a choice", "one network"
TREE_SHARES = {ALL: 1.0, "1/2": 0.5, "1/4": 0.25, TENTH: 0.1, ONE: 0.0, NETWORK: None}
CELL_SHARES = {ALL: 1.0, "1/2": 0.5, "1/4": 0.25, ONE: 0.0, NETWORK: None}
DRAWS = {ONE: 5, NETWORK: 5, ALL: 1}
"""Of the slots that are left, else 3. The middle one of them counts."""

TREE_GOALS: Goals = {(TENTH, TIME): {"at_most": 0.2}, (TENTH, FASTER): {"at_least": 4.0}}
SPARSEST = {DENSE: {"at_least": 6.0}, MEMORY: {"at_most": 0.35}}
CELL_GOALS: Goals = {(w, figure): goal for w in (ONE, NETWORK) for figure, goal in SPARSEST.items()}


def measure(options: Options) -> list[Row]:
    """Rows of time and of memory for each supernet."""
    rows = []
    for name in TREES:
        make = functools.partial(sr_case, name, options)
        rows += _rows(make, TREE_SHARES, TREE_GOALS, options)
    make = functools.partial(darts_case, options)
    return [*rows, *_rows(make, CELL_SHARES, CELL_GOALS, options, bare=True)]


# -- which branches are left --------------------------------------------------------------


class Branches:
    """The slots of a space that are left while others are dropped one by one.

    Args:
        graph: the space.
        seed: of the order in which slots are dropped.
    """

    def __init__(self, graph: tn.Graph, seed: int) -> None:
        self._graph = graph
        self._rng = random.Random(seed)
        self._kept = {
            path: list(decision.options)
            for path, decision in graph.decisions.items()
            if decision.kind in BRANCHING
        }
        self._total = sum(map(len, self._kept.values()))
        self._left: Collection[str] = self._kept

    @property
    def share(self) -> float:
        """What is left, of all slots."""
        return sum(len(self._kept[path]) for path in self._left) / self._total

    def drop_to(self, share: float) -> Branches:
        """Drop slots until at most `share` is left, or no choice has two."""
        while self.share > share:
            loose = [(p, o) for p in self._left if len(self._kept[p]) > 1 for o in self._kept[p]]
            if not loose:
                break
            path, option = self._rng.choice(loose)
            self._kept[path].remove(option)
            if self._graph.decisions[path].kind == "path":
                self._left = self._reached()
        return self

    def _reached(self) -> list[str]:
        """The choices that lead to the output."""
        needed, found = {self._graph.output}, set()
        for node in reversed(list(self._graph)):
            if node in needed:
                path = self._graph.vertex(node)["decision"]
                kept = self._kept.get(path or "")
                found.update([path] if path is not None else [])
                sources = self._graph.sources(node)
                needed.update(s.node for s in sources if kept is None or s.option in kept)
        return [path for path in self._kept if path in found]

    def weights(self, device: torch.device) -> torch.Tensor:
        """A flat vector of equal weights in every choice, and zeros."""
        flat = [0.0] * self._graph.slots
        for path, decision in self._graph.decisions.items():
            kept = self._kept.get(path)
            for option in decision.options if kept is None else kept:
                # What is no choice among branches (inputs, widths) stands as it is.
                slot = self._graph.offsets[path] + decision.index(option)
                flat[slot] = 1.0 if kept is None else 1.0 / len(kept)
        return torch.tensor(flat, device=device)


def weights_at(case: Case, share: float | None, seed: int) -> tuple[float, torch.Tensor]:
    """The share that is left, and a flat vector; of one network where `share` is None."""
    graph, device = case.net.graph, case.x.device
    if share is not None:
        branches = Branches(graph, seed).drop_to(share)
        return branches.share, branches.weights(device)
    genotype = case.genotype(seed)
    chosen = sum(graph.decisions[path].kind in BRANCHING for path in genotype)
    slots = sum(len(d.options) for d in graph.decisions.values() if d.kind in BRANCHING)
    return chosen / slots, torch.tensor(graph.one_hot(genotype), device=device)


def step_at(case: Case, weights: torch.Tensor) -> Work:
    """A step at these weights, at the widest widths, with a gradient for each that is left."""
    leaf = weights.requires_grad_()
    return case.step(functools.partial(_predict, case, leaf), case.net, leaf)


def _predict(case: Case, weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    learned = case.net.architecture.learns_inputs
    mixture = tn.Mixture.from_weights(
        case.net.graph, weights, weights, widths="widest", learned_inputs=learned
    )
    return case.net(x, at=mixture)


def _rows(
    make: Callable[[], Case],
    shares: Mapping[str, float | None],
    goals: Goals,
    options: Options,
    *,
    bare: bool = False,
) -> list[Row]:
    """One row for each share and figure; with the same for the `bare` layers of a cell space."""
    case = make()
    works, left, floors = {LOOP: case.step(case.plain, case.plain)}, {}, {}
    for label, share in shares.items():
        for seed in range(1 if options.quick else DRAWS.get(label, 3)):
            draw = f"{label} {seed}"
            actual, weights = weights_at(case, share, seed)
            works[draw] = step_at(case, weights)
            left.setdefault(label, {})[draw] = actual
            if bare:
                run = functools.partial(_predict, case, weights, case.x)
                floors[draw] = Floor(f"layers of {draw}", run_layers(case.net, len(case.x), run))
                works |= floors[draw].works(options.device)
    samples = interleaved(works, options, warmup=1)
    sums = {}
    for draw, floor in floors.items():
        sums[draw], samples = floor.added(samples)
    loop_peak = peak_megabytes(functools.partial(loop_step, make), options.device)
    peaks = {
        label: peak_megabytes(functools.partial(sparse_step, make, share), options.device)
        for label, share in shares.items()
    }
    rows = []
    for label, draws in left.items():
        figures = {
            TIME: statistics.median(samples.ratio(draw, f"{ALL} 0") for draw in draws),
            DENSE: statistics.median(samples.ratio(f"{ALL} 0", draw) for draw in draws),
            FASTER: statistics.median(samples.ratio(LOOP, draw) for draw in draws),
            MEMORY: peaks[label] / peaks[ALL],
        }
        if bare:
            ratios = (samples.ratio(sums[f"{ALL} 0"], sums[draw]) for draw in draws)
            figures[BARE] = statistics.median(ratios)
        title = {"case": f"{case.name}, {label} alive"}
        row: Row = {
            **title,
            "share": statistics.median(draws.values()),
            "milliseconds": 1e3 * statistics.median(samples.median(draw) for draw in draws),
            "megabytes": peaks[label],
            "loop_megabytes": loop_peak,
            **figures,
        }
        # What has a goal is said again in a row of its own, to be judged.
        judged = [
            {**title, "figure": figure, "ratio": ratio, **goals[label, figure]}
            for figure, ratio in figures.items()
            if (label, figure) in goals
        ]
        rows += [row, *judged]
    return rows


def loop_step(make: Callable[[], Case]) -> Work:
    """A step of the plain loop."""
    case = make()
    return case.step(case.plain, case.plain)


def sparse_step(make: Callable[[], Case], share: float | None) -> Work:
    """A step at a share of the branches."""
    case = make()
    _, weights = weights_at(case, share, seed=0)
    return step_at(case, weights)
