"""Exact cost of one network, read off its graph.

Numbers are those of torchinfo on the built network. ``MACs`` are multiply-adds for one
input (what much of the literature calls FLOPs); a convolution's bias counts as one per
output position, every other layer spends each of its weights once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import attrs

from trinas._core.errors import GenotypeError
from trinas.graph import Genotype, Graph, require_graph, specialise
from trinas.space.shape import Shape

Metric: TypeAlias = Literal["params", "macs"]


@attrs.frozen
class Cost:
    """What one network costs.

    Attributes:
        params: numbers that are trained.
        macs: multiply-adds for one input of the graph's input shape.
        bias_adds: how many of the `macs` only add a bias; papers that count
            multiplications alone report ``macs - bias_adds``.
    """

    params: int
    macs: int
    bias_adds: int


def node_cost(graph: Graph, node: str, x: Shape, y: Shape, metric: Metric) -> int:
    """The cost of one operation for given shapes in numbers."""
    operation = graph.operation(node)
    return operation.params(x, y) if metric == "params" else operation.macs(x, y)


def count(graph: Graph, genotype: Mapping[str, Any] | None = None) -> Cost:
    """Parameters and multiply-adds of a network.

    Args:
        graph: a space, or a graph without decisions.
        genotype: which network of the space.

    Raises:
        GenotypeError: decisions are open, or the genotype is of another space.

    >>> import trinas as tn
    >>> graph = tn.lower(tn.seq(tn.conv(3, 8), tn.relu(), tn.conv(1, 4, bias=False)), (3, 10, 10))
    >>> tn.cost.count(graph)
    Cost(params=256, macs=25600, bias_adds=800)
    """
    require_graph(graph)
    if genotype is not None:
        bound = isinstance(genotype, Genotype) and genotype.graph is graph
        checked = genotype if bound else Genotype.of(graph, genotype)
        graph = specialise(graph, checked)
    if graph.decisions:
        raise GenotypeError(
            "the cost of a space depends on its decisions",
            got=f"{len(graph.decisions)} open decisions",
            fix="Pass a genotype, or use trinas.cost.ExpectedCost.",
        )
    params, macs, bias_adds = 0, 0, 0
    counted: set[str] = set()
    for node in graph:
        vertex = graph.vertex(node)
        key = vertex["weights"]
        if key is None:
            continue
        x, y = graph.vertex(graph.sources(node)[0].node)["shape"], vertex["shape"]
        macs += node_cost(graph, node, x, y, "macs")
        bias_adds += graph.operation(node).bias_adds(x, y)
        if key not in counted:
            params += node_cost(graph, node, x, y, "params")
        counted.add(key)
    return Cost(params, macs, bias_adds)


def params(graph: Graph, genotype: Mapping[str, Any] | None = None) -> int:
    """Parameters of a network; see `count`."""
    return count(graph, genotype).params


def macs(graph: Graph, genotype: Mapping[str, Any] | None = None) -> int:
    """Multiply-adds of a network for one input of the graph's input shape; see `count`."""
    return count(graph, genotype).macs
