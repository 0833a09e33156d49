"""One training step of a supernet against what it cannot do without, and against others.

A step is forward, loss, and one backward that reaches weights and architecture, with every
branch alive: what a search costs at its start, and what published codes pay to its end. It
is compared with

- the floor: its bare operations alone (`benchmarks.floors`), in the faster of two layouts;
  convolutions for super-resolution, where nothing else has weights; for the cells all
  layers as the space is written down (every edge has its own), as trinas runs them, and with
  the layers of torch where trinas has faster ones;
- the plain loop: the same supernet as published codes write it (`benchmarks.plain`);
- the same space in other libraries, where they are installed (`benchmarks.peers`).

One network of the space, run in the supernet, is compared with that network by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import attrs
import torch
from torch import Tensor, nn

import trinas as tn
from benchmarks.cases import (
    BENCH,
    DARTS,
    SEED,
    TREES,
    Case,
    bench_case,
    cell_size,
    darts_case,
    sr_case,
)
from benchmarks.floors import Floor, convolutions, defined_layers, run_layers
from benchmarks.measure import Options, Row, Samples, Work, interleaved
from benchmarks.peers import bench_peers, darts_peers
from trinas.supernet import Widths

Predict: TypeAlias = Callable[[Tensor], Tensor]

OURS = "trinas"
LOOP = "plain loop"
ONE = "one network"
DERIVED = "the network by itself"

TREE_GOALS = {
    "SR, 64 channels": {"floor": 1.3, LOOP: 1.0, ONE: 1.1},
    "SR, 16 channels": {LOOP: 1.0, ONE: 1.1},
}
CELL_GOALS = {"floor": 1.25, "peer": 1.0, LOOP: 1.0, ONE: 1.1}


@attrs.frozen(eq=False)
class Comparison:
    """Works that do the same as one of trinas.

    Attributes:
        case: what is done.
        ours: the work of trinas.
        others: by name.
        floors: of the same work.
        goals: by the name of the other, the largest ratio that is aimed at.
    """

    case: str
    ours: Work
    others: Mapping[str, Work]
    floors: Sequence[tuple[Floor, float | None]]
    goals: Mapping[str, float]

    def works(self, device: torch.device) -> dict[str, Work]:
        """All works, to be timed in turn."""
        named = {self._named(OURS): self.ours}
        named |= {self._named(name): work for name, work in self.others.items()}
        for floor, _ in self.floors:
            named |= floor.works(device)
        return named

    def rows(self, samples: Samples) -> list[Row]:
        """Ours against each other."""
        bases = [(name, self._named(name), self.goals.get(name)) for name in self.others]
        for floor, goal in self.floors:
            name, samples = floor.added(samples)
            bases.append((name, name, goal))
        return [self._row(samples, name, base, goal) for name, base, goal in bases]

    def _row(self, samples: Samples, name: str, base: str, goal: float | None) -> Row:
        ours = self._named(OURS)
        row: Row = {
            "case": self.case,
            "against": name,
            "milliseconds": 1e3 * samples.median(ours),
            "base_milliseconds": 1e3 * samples.median(base),
            "ratio": samples.ratio(ours, base),
        }
        return row if goal is None else {**row, "at_most": goal}

    def _named(self, work: str) -> str:
        return f"{self.case}: {work}"


def measure(options: Options) -> list[Row]:
    """One row for each case and thing that it is compared with."""
    rows = []
    for name in TREES:
        rows += _timed(_tree(name, options), options)
    rows += _timed(_darts(options), options)
    rows += _timed(_bench(options), options)
    return rows


def _timed(comparisons: Sequence[Comparison], options: Options) -> list[Row]:
    works: dict[str, Work] = {}
    for comparison in comparisons:
        works |= comparison.works(options.device)
    samples = interleaved(works, options, warmup=1)
    return [row for comparison in comparisons for row in comparison.rows(samples)]


def _tree(name: str, options: Options) -> list[Comparison]:
    case, goals = sr_case(name, options), TREE_GOALS[name]
    found = []
    for widths in ("widest", "sampled"):
        predict = _dense(case, widths)
        drawn = None if widths == "widest" else _drawn(case.net)
        plain = case.step(lambda x, d=drawn: case.plain(x, d), case.plain)
        counts = convolutions(functools.partial(predict, case.x))
        floor = Floor(f"convolutions alone, {widths}", counts), goals.get("floor")
        title = f"{case.name}, {widths} widths"
        ours = case.step(predict, case.net)
        found.append(Comparison(title, ours, {LOOP: plain}, [floor], goals))
    return [*found, _one(case, goals)]


def _dense(case: Case, widths: Widths) -> Predict:
    """The supernet with everything alive; with sampled widths, of the same draw each time."""
    generator = torch.Generator(case.x.device)

    def predict(x: Tensor) -> Tensor:
        return case.net(x, widths=widths, generator=generator.manual_seed(SEED))

    return predict


def _drawn(net: tn.Supernet) -> list[int]:
    """The widths of that draw."""
    generator = torch.Generator(net.architecture.device).manual_seed(SEED)
    with torch.no_grad():
        widths = net.mixture(generator=generator).widths
    return list((widths or {}).values())


def _darts(options: Options) -> list[Comparison]:
    case = darts_case(options)
    c, layers, *_ = cell_size(DARTS, options)
    peers = darts_peers(options, c=c, layers=layers)
    return _cells(case, peers, CELL_GOALS, options)


def _bench(options: Options) -> list[Comparison]:
    case = bench_case(options)
    c, n, *_ = cell_size(BENCH, options)
    peers = bench_peers(options, c=c, n=n)
    return _cells(case, peers, {ONE: CELL_GOALS[ONE]}, options)


def _cells(
    case: Case, peers: Mapping[str, nn.Module], goals: Mapping[str, float], options: Options
) -> list[Comparison]:
    predict, graph, batch = _dense(case, "sampled"), case.net.graph, len(case.x)
    run = run_layers(case.net, batch, functools.partial(predict, case.x))
    others = {LOOP: case.step(case.plain, case.plain)}
    others |= {name: case.step(p, p.to(options.device)) for name, p in peers.items()}
    defined, torchs = (defined_layers(graph, batch, by_torch=b) for b in (False, True))
    floors = [
        (Floor("layers alone", defined), goals.get("floor")),
        (Floor("layers that run, alone", run), None),
    ]
    if torchs != defined:
        floors.append((Floor("torch's layers alone", torchs), None))
    ours = case.step(predict, case.net)
    bounds = {name: goals["peer"] for name in peers if "peer" in goals} | dict(goals)
    return [Comparison(case.name, ours, others, floors, bounds), _one(case, goals)]


def _one(case: Case, goals: Mapping[str, float]) -> Comparison:
    """One network of the space: in the supernet, and by itself."""
    genotype = case.genotype()
    derived = tn.build(case.net.graph, genotype, inherit=case.net).to(case.x.device)
    ours = case.step(lambda x: case.net(x, at=genotype), case.net)
    alone = {DERIVED: case.step(derived, derived)}
    return Comparison(f"{case.name}, {ONE}", ours, alone, [], {DERIVED: goals[ONE]})
