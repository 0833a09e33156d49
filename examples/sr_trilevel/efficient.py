"""A search space of today's blocks, searched by the same three levels as the paper's.

The paper's operations are those of 2019. Here they are blueprint separable convolutions, steps of
distillation and attention to channels and to the surroundings, as in BSRN (Li et al. 2022, arXiv
2205.05996) and RLFN (Kong et al. 2022, arXiv 2205.07514).

Network level: which path of distillation cells (``a``) and plain cells (``b``). Cell level: which
operation in every slot, and which attention. Kernel level: how many channels each step of a
distillation puts aside. BSRN itself is a network of this space, see `bsrn_like`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import trinas as tn
from examples.sr_trilevel.blocks import (
    Shift,
    Take,
    bsconv,
    channel_attention,
    distillation,
    refinement,
    spatial_attention,
)
from examples.sr_trilevel.space import RATIOS

# Of the options of each kind of decision the one that takes the most multiply-adds.
_COSTLIEST = {"slot": "conv3x3", "last": "conv3x3", "attention": "both"}

# What BSRN decides.
_OF_BSRN = {"slot": "bsconv", "last": "bsconv", "attention": "both"}

REFERENCES = {"bsrn_s": (48, 5), "bsrn_m": (64, 6)}
"""Channels and cells of the networks that are known by name."""


# --- the space ------------------------------------------------------------------------------------


def efficient(
    features: int = 48,
    scale: int = 4,
    *,
    cells: int = 6,
    plain: int = 1,
    steps: int = 3,
    inner: int = 16,
    ratios: Sequence[float] = RATIOS,
    picture: Literal["nearest", "bilinear", "bicubic"] | None = "bilinear",
) -> tn.Node:
    """The space: paths of distillation cells and plain cells, all of their outputs fused.

    Input ``(3, h, w)`` in [0, 1], both sides at least 15; output ``(3, h * scale, w * scale)``,
    about in [0, 1] and not clamped. Decisions are called as in the paper's spaces: ``trunk`` for
    the path, below it a ``slot`` for every operation.

    Args:
        features: width of the trunk, a multiple of 8 and at least 16.
        scale: enlargement.
        cells: most distillation cells (``a``) on a path; every path starts with one.
        plain: most plain cells (``b``) on a path.
        steps: refinements in a distillation cell.
        inner: channels inside spatial attention.
        ratios: searched shares of `features` that a step puts aside.
        picture: the enlarged input that is added to the result, or None for nothing.

    Raises:
        SpaceError: `features` suits neither the widths nor the attention.

    >>> graph = tn.lower(efficient(), (3, 32, 32))
    >>> graph.decisions["trunk"].options[:4], len(graph.decisions["trunk"].options)
    (('a', 'a-a', 'a-a-a', 'a-a-a-a'), 27)
    """
    if features % 8 or features < 16:
        raise tn.errors.SpaceError(
            "the width of an efficient network is a multiple of 8, at least 16",
            got=features,
            fix="Published ones have 48 or 64.",
        )
    blocks = {"a": _distillation_cell(features, steps, inner, ratios)}
    if plain:
        blocks["b"] = _plain_cell(features, inner)
    trunk = tn.tree(
        {label: _carried(block, features) for label, block in blocks.items()},
        at_most={"a": cells, "b": plain} if plain else {"a": cells},
        first="a",
    )
    deep = tn.seq(
        tn.concat(tn.seq(), tn.zero(), name="start"),
        tn.share("trunk", trunk),
        Take(features, features),
        Shift(),
        tn.activation("gelu"),
        bsconv(3, features).named("fusion"),
    )
    network = tn.seq(
        # Four copies give the first pointwise convolution twelve channels to choose from (BSRN).
        tn.concat(*[tn.seq()] * 4, name="copies"),
        bsconv(3, features).named("stem"),
        tn.residual(deep, name="deep"),
        tn.conv(3, 3 * scale**2, name="tail"),
        tn.pixel_shuffle(scale),
    )
    if picture is None:
        return network
    return tn.residual(network, skip=tn.upsample(scale, mode=picture), name="network")


def _slot(features: int) -> tn.Node:
    """One searched refinement; each but the identity has a skip of its own."""
    return tn.choice(
        bsconv=refinement(bsconv(3, features)),
        bsconv5=refinement(bsconv(5, features)),
        conv3x3=refinement(tn.conv(3, features)),
        dwsblock=tn.dwsblock(features, expand=2, bias=True),
        identity=tn.seq(),
        name="slot",
    )


def _last(channels: tn.Value) -> tn.Node:
    return tn.choice(
        bsconv=bsconv(3, channels),
        conv3x3=tn.conv(3, channels),
        conv1x1=tn.conv(1, channels),
        name="last",
    )


def _attention(features: int, inner: int) -> tn.Node:
    return tn.choice(
        none=tn.seq(),
        channel=channel_attention(features),
        spatial=spatial_attention(features, inner=inner),
        both=tn.seq(
            spatial_attention(features, inner=inner).named("spatial"),
            channel_attention(features).named("channel"),
        ),
        name="attention",
    )


def _distillation_cell(features: int, steps: int, inner: int, ratios: Sequence[float]) -> tn.Node:
    aside = [tn.width(features, ratios=ratios, divisor=8) for _ in range(steps + 1)]
    body = distillation(features, aside=aside, refine=_slot(features), last=_last)
    return tn.residual(tn.seq(body, _attention(features, inner)), name="cell")


def _plain_cell(features: int, inner: int) -> tn.Node:
    body = tn.seq(
        _slot(features),
        _slot(features),
        tn.conv(1, features, name="fuse"),
        _attention(features, inner),
    )
    return tn.residual(body, name="cell")


def _carried(cell: tn.Node, features: int) -> tn.Node:
    """A cell on (x, s): x goes through the cell, and s gathers what comes out.

    BSRN concatenates the outputs of all cells and fuses them by a pointwise convolution, which is
    the sum of one such convolution for every cell (and a bias, added behind). As a sum it can be
    carried along, so that a path may end anywhere.
    """
    x, gathered = Take(0, features), Take(features, features)
    gather = tn.seq(x, tn.conv(1, features, bias=False, name="gather"), name="new")
    return tn.seq(
        tn.concat(tn.seq(x, cell, name="x"), gathered, name="first"),
        tn.concat(x, tn.parallel(gathered, gather, name="s"), name="then"),
    )


# --- networks of the space ------------------------------------------------------------------------


def largest_macs(graph: tn.Graph) -> int:
    """Multiply-adds of the costliest network of such a space: what a budget is a share of.

    That is a longest path with dense convolutions, both kinds of attention and full widths.
    """
    trunk = graph.decisions["trunk"]
    parents = set(trunk.order or ())
    ends = [option for k, option in enumerate(trunk.options) if k not in parents]
    widest = _decide(graph, _COSTLIEST, lambda widths: widths[-1])
    return max(tn.cost.macs(graph, {**widest, "trunk": end}) for end in ends)


def bsrn_like(graph: tn.Graph, cells: int, aside: int) -> tn.Genotype:
    """BSRN with so many cells: blueprint convolutions everywhere, both kinds of attention.

    With three steps and 16 inner channels it computes what BSRN computes, and where the space adds
    the enlarged picture, that plus the picture.

    Args:
        graph: of `efficient`.
        cells: how many distillation cells.
        aside: channels that every step puts aside; half of all in BSRN.

    Raises:
        GenotypeError: the space has no such network.
    """
    decisions = _decide(graph, _OF_BSRN, lambda widths: aside)
    return tn.Genotype.of(graph, {**decisions, "trunk": "-".join("a" * cells)})


def efficient_reference(name: str = "bsrn_m", *, scale: int = 4, side: int = 256) -> tn.Genotype:
    """A BSRN of at most 0.3 M parameters as a network of the space (which is its ``graph``).

    ``bsrn_s`` has 5 cells of 48 channels, ``bsrn_m`` 6 of 64. The published BSRN-S has as many
    cells and channels, and with 156 k parameters 7 % more than what is counted here.

    Args:
        name: one of the two.
        scale: enlargement.
        side: of the input that costs are counted at.

    Raises:
        UnknownNameError: another name.

    >>> for name in ("bsrn_s", "bsrn_m"):
    ...     genotype = efficient_reference(name)
    ...     print(genotype["trunk"], tn.cost.count(genotype.graph, genotype))
    a-a-a-a-a Cost(params=145207, macs=8964077647, bias_adds=131717439)
    a-a-a-a-a-a Cost(params=272776, macs=17118814936, bias_adds=202310936)
    """
    if name not in REFERENCES:
        raise tn.errors.UnknownNameError(
            "a reference network is known by its name",
            got=name,
            fix=f"There are {', '.join(REFERENCES)}.",
        )
    features, cells = REFERENCES[name]
    graph = tn.lower(efficient(features, scale), (3, side, side))
    return bsrn_like(graph, cells, features // 2)


def _decide(
    graph: tn.Graph,
    operations: Mapping[str, str],
    width: Callable[[Sequence[object]], object],
) -> dict[str, object]:
    """An outcome for every decision but the path, by the last word of its name."""
    outcomes: dict[str, object] = {}
    for path, decision in graph.decisions.items():
        if decision.kind == "width":
            outcomes[path] = width(decision.options)
        elif decision.kind == "operation":
            outcomes[path] = operations[path.rpartition("/")[2].partition("[")[0]]
    return outcomes
