"""Small tasks whose answer is planted: a network of the space made the targets.

Inputs are noise, targets are what a teacher makes of them, scaled to mean 0 and variance 1.
The teacher is the planted network with fixed random weights, so that one network of the
space (or that and larger ones) can learn the targets and the others cannot. That this is so
is not argued but measured: every network of every task was trained alone with three seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from trinas._core.errors import UnknownNameError
from trinas._core.hints import did_you_mean
from trinas.bench.benchmark import Benchmark, Charge, Truth, charged
from trinas.bench.planted_spaces import SPACES
from trinas.bench.problem import Measured, Problem, Recipe
from trinas.bench.table import Table
from trinas.graph import Genotype, Graph, lower
from trinas.search import Batches
from trinas.space import Node
from trinas.supernet import build

SEED = 5
"""Of every teacher, as of the first width that was found wrong."""

HELD_OUT = 256
"""Inputs that a trained network is measured on, for validation and again for the test."""


@attrs.frozen(kw_only=True, eq=False)
class Planted:
    """How a planted task is made.

    Attributes:
        about: one sentence.
        space: its name in `SPACES`.
        teacher: the decisions of the network that makes the targets.
        right: what a right answer has: one of these, all of it; that of the teacher by default.
        gain: factor of the teacher's random weights; the larger, the less linear it is.
        charge: a small cost, so that what is larger than the teacher is no longer as right.
    """

    about: str
    space: str
    teacher: Mapping[str, Any]
    right: tuple[Mapping[str, Any], ...] = ()
    gain: float = 1.0
    charge: Charge | None = None


def _depth(count: int, kind: str) -> Any:
    return count if kind == "depth" else "-".join(["block"] * count)


def _depths(kind: str) -> dict[str, Planted]:
    """A repeat or a tree whose targets took 1 to 4 blocks, without a cost and with one."""
    tasks = {}
    for count in (1, 2, 3, 4):
        common: dict[str, Any] = {
            "space": kind,
            "teacher": {kind: _depth(count, kind)},
            "gain": 2.0,
        }
        longer = tuple({kind: _depth(more, kind)} for more in range(count, 5))
        if count > 1:  # at least one block is what every network has
            tasks[f"{kind}-{count}"] = Planted(
                about=f"Targets of {count} of up to 4 blocks; more blocks are as right.",
                right=longer,
                **common,
            )
        tasks[f"{kind}-{count}-cost"] = Planted(
            about=f"Targets of {count} of up to 4 blocks; a small cost makes more blocks wrong.",
            # The fourth block gains least, 0.014 of the variance by the table; it costs 0.005.
            charge=Charge(weight=0.02 if count == 4 else 0.04, structure=1.0),
            **common,
        )
    return tasks


PLANTED: dict[str, Planted] = {
    "operation": Planted(
        about="One of four kernels made the targets: 3x3.",
        space="operation",
        teacher={"operation": "conv_3x3"},
    ),
    "operation-dilated": Planted(
        about="One of four kernels made the targets: 3x3, dilated.",
        space="operation",
        teacher={"operation": "dilated"},
    ),
    "width": Planted(
        about="Width 1, 2, 4 or 8 between two convolutions; 8 kernels made the targets.",
        space="width",
        teacher={"conv[0]/width": 8},
    ),
    "width-norm": Planted(
        about="The same with batch normalisation behind the width.",
        space="width-norm",
        teacher={"conv[0]/width": 8},
    ),
    "width-4-cost": Planted(
        about="4 kernels made the targets; a small cost makes 8 wrong.",
        space="width",
        teacher={"conv[0]/width": 4},
        charge=Charge(weight=0.05, structure=0.0),
    ),
    "widths": Planted(
        about="Two widths in a chain, both 8.",
        space="widths",
        teacher={"conv[0]/first": 8, "conv[1]/second": 8},
    ),
    "widths-norm": Planted(
        about="Two widths in a chain, both 8, with batch normalisation.",
        space="widths-norm",
        teacher={"conv[0]/first": 8, "conv[1]/second": 8},
    ),
    **_depths("depth"),
    **_depths("path"),
    "edges-1of3": Planted(
        about="A step keeps one of three inputs, each behind 1x1 or 3x3; only the last is of use.",
        space="edges-1of3",
        teacher={"cell/node[3]": (2,), "cell/edge[2,3]": "conv_3x3"},
    ),
    "edges-2of4": Planted(
        about="A step keeps two of four inputs; the second and the last carry information.",
        space="edges-2of4",
        teacher={"cell/node[4]": (1, 3)},
    ),
    "operation-width": Planted(
        about="A kernel and its width: 3x3 and 8.",
        space="operation-width",
        teacher={"operation": "conv_3x3", "operation/width": 8},
    ),
    "pair": Planted(
        about="A product of two choices: without both right ones nothing can be learned.",
        space="pair",
        teacher={"parallel/left": "second", "parallel/right": "second"},
    ),
}
"""All planted tasks by name."""


@cache
def _graph(space: str) -> Graph:
    node, shape = SPACES[space]
    make: Callable[[], Node] = node
    return lower(make(), shape)


@attrs.frozen(eq=False)
class _Teacher:
    """The planted network, and the mean and deviation of what it puts out."""

    network: nn.Module
    mean: Tensor
    deviation: Tensor
    shape: tuple[int, ...]

    def batch(self, size: int, stream: int) -> tuple[Tensor, Tensor]:
        """Inputs `[size, *shape]` and targets of a stream of random numbers."""
        x = torch.randn(size, *self.shape, generator=torch.Generator().manual_seed(stream))
        return x, self.targets(x)

    @torch.no_grad()
    def targets(self, x: Tensor) -> Tensor:
        return (self.network(x) - self.mean) / self.deviation


@torch.no_grad()
def _teacher(task: Planted, graph: Graph) -> _Teacher:
    genotype = Genotype.of(graph, task.teacher)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = build(graph, genotype)
    for parameter in network.parameters():
        if parameter.ndim > 1:  # kernels; fresh batch normalisation stays the identity
            parameter.mul_(task.gain)
    network.eval()
    shape = SPACES[task.space][1]
    x = torch.randn(512, *shape, generator=torch.Generator().manual_seed(SEED))
    y = network(x)
    mean = y.mean((0, 2, 3), keepdim=True)
    return _Teacher(network, mean, (y - mean).std(), shape)


def _problem(task: Planted) -> Problem:
    graph = _graph(task.space)
    teacher = _teacher(task, graph)
    valid, test = (teacher.batch(HELD_OUT, stream) for stream in (1, 2))

    def stream(part: int) -> Callable[[int, int], Batches]:
        # Distinct streams for every seed and part, as long as a run has under 10^6 steps.
        return lambda seed, size: (
            lambda step: teacher.batch(size, (1 + 2 * seed + part) * 1_000_000 + step)
        )

    def measure(model: nn.Module) -> Measured:
        return Measured(*(-float(mse_loss(model(x), y)) for x, y in (valid, test)))

    return Problem(
        graph=graph,
        loss=mse_loss,
        train=stream(0),
        valid=stream(1),
        measure=measure,
        recipe=Recipe(steps=300, batch=16, lr=2e-2),
    )


def _known(name: str) -> Planted:
    if name not in PLANTED:
        raise UnknownNameError(
            "unknown planted task",
            got=repr(name),
            fix=did_you_mean(name, PLANTED, then=f"Known: {', '.join(sorted(PLANTED))}.", most=3),
        )
    return PLANTED[name]


def planted_problem(name: str) -> Problem:
    """The space, data and recipe of a planted task.

    Raises:
        UnknownNameError: no such task.
    """
    return _problem(_known(name))


@cache
def planted(name: str) -> Benchmark:
    """A planted task as a benchmark.

    Scores are minus the mean squared error on test data, as a share of the variance of the
    targets (minus the cost where the task has one): 0 is perfect, -1 has learned nothing.

    Args:
        name: one of `PLANTED`.

    Raises:
        UnknownNameError: no such task.

    >>> planted("pair").right
    ({'parallel/left': 'second', 'parallel/right': 'second'},)
    """
    task = _known(name)
    problem = _problem(task)
    with as_file(files("trinas.bench") / "data" / f"{table_name(name)}.json") as path:
        truth = Truth.of(Table.load(path))
    charge = task.charge
    if charge is not None:
        charge = charge.of(problem.graph, Genotype.of(problem.graph, task.teacher))
        truth = charged(truth, problem.graph, charge)
    return Benchmark(
        name=f"planted/{name}",
        about=task.about,
        unit="share of variance",
        graph=problem.graph,
        truth=truth,
        problem=problem,
        right=task.right or (task.teacher,),
        charge=charge,
    )


def table_name(name: str) -> str:
    """The table of a planted task: with and without a cost it is the same."""
    return f"planted-{name.removesuffix('-cost')}"
