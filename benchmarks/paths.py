"""Where searches over depth end whose answer is known: planted trees and repeats of 1 to 4 blocks.

    python -m benchmarks paths --out benchmarks/results

Searches of 80 + 260 steps with the defaults of `trinas.SearchConfig`, but for what `SETTINGS` says,
on the planted tasks of `trinas.bench` and on harder ones, ``rotated``: a teacher of d residual
convolutions makes the targets; each adds a rotated copy one pixel away, so that fewer than d blocks
do not see what they need, and more gain nothing but what is left of training. There one block costs
`BLOCK` in units of the target's variance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import trinas as tn
from benchmarks.measure import Options, Row
from trinas.bench import Passes, planted
from trinas.bench.problem import Task
from trinas.search.config import PUBLISHED

CHANNELS, SIZE, BATCH, DEEPEST = 6, 8, 8, 4
GAIN = 1.5
BLOCK = 0.02
PATH = "trunk"
SURE = 0.9
"""Odds of the right options from which on a right answer is sure."""


@attrs.frozen(kw_only=True)
class Setting:
    """One way to search.

    Attributes:
        config: what is not as by default in `trinas.SearchConfig`.
        warmup: share of the search in which the radius of paths stays 0.
        seeds: how many, by the beginning of a task's name; none of the others.
    """

    config: Mapping[str, Any] = attrs.field(factory=dict)
    warmup: float = 0.5
    seeds: Mapping[str, int]


SOME = {"path": 3, "rotated": 3}
SETTINGS: Mapping[str, Setting] = {
    "mixture alone": Setting(config=PUBLISHED, warmup=0.0, seeds=SOME),
    "mixture": Setting(config={"paths": "mixture"}, warmup=0.0, seeds={"path": 10, "rotated": 5}),
    "exits": Setting(seeds={"path": 10, "depth": 10, "rotated": 5}),
    "exits, no share for the deepest": Setting(config={"deepest": 0.0}, seeds=SOME),
    "exits, no wait": Setting(config={"wait": 0.0}, seeds=SOME),
    "exits, radius from the start": Setting(warmup=0.0, seeds=SOME),
}
"""``mixture alone`` is the paper's; ``mixture`` trains random networks beside it."""

TASKS = (
    *(f"{kind}-{depth}" for kind in ("path", "depth") for depth in (2, 3, 4)),
    *(f"{kind}-{depth}-cost" for kind in ("path", "depth") for depth in (1, 2, 3, 4)),
    *(f"rotated-{depth}-cost" for depth in (1, 2, 3, 4)),
)


def measure(options: Options) -> list[Row]:
    """One row for each setting and task: where each seed ends."""
    if options.quick:
        few = {"path": 1, "rotated": 1}
        tasks = ("path-2-cost", "rotated-2-cost")
        return [
            _row(name, attrs.evolve(SETTINGS[name], seeds=few), t, (2, 4))
            for name in ("mixture", "exits")
            for t in tasks
        ]
    return [
        _row(name, setting, task, (80, 260))
        for name, setting in SETTINGS.items()
        for task in TASKS
        if task.partition("-")[0] in setting.seeds
    ]


@attrs.frozen
class End:
    """Where a search ends.

    Attributes:
        depth: in blocks.
        odds: of all right depths together.
        right: whether it is one of them.
        passes: what the search spent, in forward passes.
        seconds: of processor time.
    """

    depth: int
    odds: float
    right: bool
    passes: float
    seconds: float


def _row(name: str, setting: Setting, task: str, steps: tuple[int, int]) -> Row:
    seeds = setting.seeds[task.partition("-")[0]]
    found = [search(task, setting, seed, steps) for seed in range(seeds)]
    return {
        "setting": name,
        "task": task,
        "found": " ".join(str(end.depth) for end in found),
        "right": sum(end.right for end in found),
        "sure": sum(end.right and end.odds >= SURE for end in found),
        "least odds": min(end.odds for end in found),
        "seeds": seeds,
        "passes": sum(end.passes for end in found) / seeds,
        "seconds": sum(end.seconds for end in found) / seeds,
    }


def search(task: str, setting: Setting, seed: int, steps: tuple[int, int] = (80, 260)) -> End:
    """Search once.

    Args:
        task: one of `TASKS`.
        setting: how.
        seed: of everything.
        steps: of pretraining and search.
    """
    work, right, cost = _task(task, setting.warmup, seed)
    config = tn.SearchConfig(
        pretrain_steps=steps[0], search_steps=steps[1], cost=cost, seed=seed, **setting.config
    )
    with Passes(work.net) as passes:
        for _ in tn.Search(*work, config):
            pass
    path = task.partition("-")[0] if not task.startswith("rotated") else PATH
    exits = work.net.graph.decisions[path].options
    odds = work.net.odds()[path]
    depth = exits.index(tn.derive(work.net)[path]) + 1
    mass = sum(odds[depth - 1] for depth in right)
    return End(depth, mass, depth in right, passes.spent, passes.seconds)


def _task(task: str, warmup: float, seed: int) -> tuple[Task, Sequence[int], tn.CostControl | None]:
    """What is searched, the right depths, and the cost."""
    late = tn.relax.SortedSparsestmax(
        0.01, "linear", radius=tn.relax.Linear(0.0, 1.0, warmup=warmup)
    )
    kind, depth, *_ = task.split("-")
    relax = {"path": late, "depth": late}
    if kind == "rotated":
        rotated = Planted("tree", int(depth), seed)
        macs = [tn.cost.macs(rotated.graph, {PATH: end}) for end in rotated.exits[:2]]
        cost = tn.CostControl(target=macs[1] - macs[0], weight=BLOCK, share_structure=1.0)
        return rotated.task(relax), [int(depth)], cost
    benchmark = planted(task)
    longest = int(depth) if task.endswith("cost") else DEEPEST
    charge = benchmark.charge
    cost = (
        None
        if charge is None
        else tn.CostControl(
            target=charge.target, weight=charge.weight, share_structure=charge.structure
        )
    )
    return benchmark.task(seed, relax), range(int(depth), longest + 1), cost


def space(kind: str) -> tn.Graph:
    """A tree (or a repeat) of 1 to 4 blocks between two pointwise convolutions."""
    block = tn.residual(tn.conv(3, CHANNELS))
    trunk = (
        tn.tree(a=block, at_most={"a": DEEPEST}, name=PATH)
        if kind == "tree"
        else tn.repeat(block, tuple(range(1, DEEPEST + 1)), name=PATH)
    )
    return tn.lower(tn.seq(tn.conv(1, CHANNELS), trunk, tn.conv(1, 4)), (4, SIZE, SIZE))


@torch.no_grad()
def plant(teacher: nn.Module, generator: torch.Generator) -> None:
    """Give a network of `space` the weights of a teacher."""
    away = int(torch.randint(8, (), generator=generator))
    row, column = divmod(away + (away >= 4), 3)  # of a 3x3 kernel, not its centre
    for weight in teacher.parameters():
        if weight.dim() == 1:
            weight.zero_()
            continue
        rotation = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=generator))[0]
        outs, ins, size, _ = weight.shape
        tap = (row, column) if size == 3 else (0, 0)
        weight.zero_()[:, :, *tap] = (GAIN if size == 3 else 1.0) * rotation[:outs, :ins]


class Planted:
    """One space with a teacher in it.

    Args:
        kind: ``tree`` or ``repeat``.
        depth: blocks of the teacher.
        seed: of the teacher, the data, and the search.
    """

    def __init__(self, kind: str, depth: int, seed: int) -> None:
        self.graph = space(kind)
        self.exits = self.graph.decisions[PATH].options
        self.seed = seed
        generator = torch.Generator().manual_seed(seed)
        self._teacher = tn.build(self.graph, {PATH: self.exits[depth - 1]}).requires_grad_(False)
        plant(self._teacher, generator)
        x = torch.randn(256, 4, SIZE, SIZE, generator=generator)
        self._scale = self._teacher(x).std()

    def batch(self, step: int, *, valid: bool = False) -> tuple[Tensor, Tensor]:
        """Input and target of a step, never seen before."""
        generator = torch.Generator().manual_seed((2 * self.seed + valid) * 1_000_003 + step)
        x = torch.randn(BATCH, 4, SIZE, SIZE, generator=generator)
        return x, self._teacher(x) / self._scale

    def task(self, relax: Mapping[str, tn.relax.Relaxation]) -> Task:
        """What a search takes."""
        net = tn.compile_supernet(self.graph, relax, seed=self.seed)
        return Task(net, mse_loss, self.batch, lambda step: self.batch(step, valid=True))
