"""The two cell spaces that most of the literature searches, and their networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import trinas as tn


def nas_bench_201(c: int = 16, n: int = 5, classes: int = 10) -> tn.Node:
    """NAS-Bench-201: one cell of six edges, used 3 n times; 15,625 architectures.

    Args:
        c: channels of the first stage; they double at the second and at the third.
        n: cells in a stage.
        classes: outputs.
    """

    def cells(c: int) -> tn.Node:
        names = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
        ops = (tn.zero(), tn.seq(), tn.relu_conv_bn(1, c), tn.relu_conv_bn(3, c), tn.avg_pool(3))
        cell = tn.cell(3, tn.choice(dict(zip(names, ops))), merge="last")
        return tn.repeat(tn.share("cell", cell), n)

    stem = (tn.conv(3, c, bias=False), tn.batch_norm())
    down = (tn.basic_block(2 * c, stride=2), tn.basic_block(4 * c, stride=2))
    head = (tn.batch_norm(), tn.relu(), tn.global_avg_pool(), tn.flatten(), tn.linear(classes))
    return tn.seq(*stem, cells(c), down[0], cells(2 * c), down[1], cells(4 * c), *head)


def nas_bench_201_decisions(text: str) -> dict[str, str]:
    """An architecture as NAS-Bench-201 writes it, as decisions of `nas_bench_201`.

    >>> nas_bench_201_decisions("|none~0|+|skip_connect~0|none~1|")
    {'cell/edge[0,1]': 'none', 'cell/edge[0,2]': 'skip_connect', 'cell/edge[1,2]': 'none'}
    """
    return {
        f"cell/edge[{source},{node}]": name
        for node, edges in enumerate(text.split("+"), start=1)
        for name, source in (edge.split("~") for edge in edges.strip("|").split("|"))
    }


def darts(c: int = 36, layers: int = 20, steps: int = 4, classes: int = 10) -> tn.Node:
    """DARTS on CIFAR: a normal and a reduction cell; each step keeps two inputs.

    Args:
        c: channels of the first cells; they double at a third and two thirds of the depth.
        layers: number of cells.
        steps: inner nodes of a cell.
        classes: outputs.
    """
    reductions = (layers // 3, 2 * layers // 3)

    def ops(c: int, stride: int) -> dict[str, tn.Node]:
        return {
            "none": tn.zero(stride=stride),
            "max_pool_3x3": tn.max_pool(3, stride=stride),
            "avg_pool_3x3": tn.avg_pool(3, stride=stride),
            "skip_connect": tn.seq() if stride == 1 else tn.factorized_reduce(c),
            "sep_conv_3x3": tn.sep_conv(3, c, stride=stride),
            "sep_conv_5x5": tn.sep_conv(5, c, stride=stride),
            "dil_conv_3x3": tn.dil_conv(3, c, stride=stride),
            "dil_conv_5x5": tn.dil_conv(5, c, stride=stride),
        }

    def cell(layer: int) -> tn.Node:
        width = c * 2 ** sum(layer >= r for r in reductions)
        reduces, after = layer in reductions, layer - 1 in reductions
        older = tn.factorized_reduce(width) if after else tn.relu_conv_bn(1, width)
        body = tn.cell(
            steps,
            lambda i, j: tn.choice(ops(width, 2 if reduces and i < 2 else 1), search_only="none"),
            inputs=(older, tn.relu_conv_bn(1, width)),
            keep=2,
        )
        return tn.share("reduce" if reduces else "normal", body)

    return tn.seq(
        tn.conv(3, 3 * c, bias=False),
        tn.batch_norm(),
        tn.stack(*map(cell, range(layers)), name="cells"),
        tn.global_avg_pool(),
        tn.flatten(),
        tn.linear(classes),
    )


Edges = Sequence[tuple[str, int]]

DARTS_V2: Mapping[str, Edges] = {
    "normal": (
        ("sep_conv_3x3", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1),
        ("skip_connect", 0),
        ("skip_connect", 0),
        ("dil_conv_3x3", 2),
    ),
    "reduce": (
        ("max_pool_3x3", 0),
        ("max_pool_3x3", 1),
        ("skip_connect", 2),
        ("max_pool_3x3", 1),
        ("max_pool_3x3", 0),
        ("skip_connect", 2),
        ("skip_connect", 2),
        ("max_pool_3x3", 1),
    ),
}
"""The published second-order genotype: two edges a step, as (operation, predecessor)."""


def darts_decisions(genotype: Mapping[str, Edges]) -> dict[str, Any]:
    """A genotype as the literature writes it, as decisions of `darts`."""
    decisions: dict[str, Any] = {}
    for key, edges in genotype.items():
        for k in range(0, len(edges), 2):
            step, pair = k // 2 + 2, sorted(edges[k : k + 2], key=lambda edge: edge[1])
            if step > 2:  # the first step has two predecessors and keeps both
                decisions[f"{key}/node[{step}]"] = tuple(i for _, i in pair)
            decisions.update({f"{key}/edge[{i},{step}]": name for name, i in pair})
    return decisions
