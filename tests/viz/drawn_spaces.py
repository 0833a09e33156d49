"""What the tests of drawings draw."""

from __future__ import annotations

import random

import attrs

import trinas as tn
from examples.sr_trilevel.space import backbone_b, paper_decisions

TABLE_9 = """
conv1x1 32, conv1x1 24, dwsblock 64, dwsblock 24, conv1x1 64
dwsblock 32, resblock 40, dwsblock 56, conv3x3 40, conv3x3 64
conv3x3 64, conv1x1 64, conv3x3 24, conv1x1 32, dwsblock 64
dwsblock 64, dwsblock 56, conv3x3 24, conv3x3 24, dwsblock 64
dwsblock 32, conv3x3 64, conv3x3 64, conv3x3 24, conv3x3 64
"""


def paper_graph() -> tn.Graph:
    """The paper's space, backbone B."""
    return tn.lower(backbone_b(), (3, 32, 32))


def table_9(graph: tn.Graph) -> tn.Genotype:
    """TrilevelNAS-B as Table 9 of the paper has it: path a-a-a-a-a-b."""
    cells = [
        [{"op": op, "width": int(width)} for op, width in map(str.split, line.split(","))]
        for line in TABLE_9.strip().splitlines()
    ]
    return tn.Genotype.of(graph, paper_decisions([0, 0, 0, 0, 0, 1], cells))


def small_space() -> tn.Node:
    """A residual part around a choice that may do nothing, and a tail."""
    slot = tn.choice(conv3=tn.conv_relu(3, 8), skip=tn.seq(), name="slot")
    return tn.seq(
        tn.conv(3, 8, name="stem"),
        tn.residual(slot, scale=0.2),
        tn.conv(3, 12, name="tail"),
        tn.pixel_shuffle(2),
        tn.tanh(),
    )


def bench_space() -> tn.Node:
    """One shared cell of six edges, five times."""
    edge = tn.choice(
        none=tn.zero(),
        skip=tn.seq(),
        conv1=tn.relu_conv_bn(1, 16),
        conv3=tn.relu_conv_bn(3, 16),
        pool=tn.avg_pool(3),
    )
    cell = tn.share("cell", tn.cell(3, edge, merge="last"))
    return tn.seq(tn.conv(3, 16), tn.repeat(cell, 5))


def darts_space() -> tn.Node:
    """Three instances of one cell with two inputs and four nodes."""
    edge = tn.choice(
        none=tn.zero(),
        skip=tn.seq(),
        sep=tn.sep_conv(3, 8),
        pool=tn.max_pool(3),
        search_only="none",
    )
    before = tn.relu_conv_bn(1, 8)
    cell = tn.share("normal", tn.cell(4, edge, inputs=(before, before), keep=2))
    return tn.seq(tn.conv(3, 8, name="stem"), tn.stack(cell, cell, cell))


@attrs.frozen
class Weighed:
    """Stands in for a supernet: a graph, and weights in force."""

    graph: tn.Graph
    known: dict[str, list[float]]

    def weights(self) -> dict[str, list[float]]:
        """The weights by decision path."""
        return self.known


def weighed(graph: tn.Graph, *, alive: int, seed: int = 0) -> Weighed:
    """Random weights of which at most `alive` options of each decision are not 0."""
    rng = random.Random(seed)
    known = {}
    for path, decision in graph.decisions.items():
        count = len(decision.options)
        values = [0.0] * count
        for i in rng.sample(range(count), min(alive, count)):
            values[i] = rng.random() + 0.1
        known[path] = [value / sum(values) for value in values]
    return Weighed(graph, known)
