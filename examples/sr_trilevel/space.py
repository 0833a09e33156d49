"""The trilevel search space of the paper, backbones A and B.

Network level: which path of RiR cells (``a``) and convolutions or upsamplings (``b``).
Cell level: which of four operations in each slot. Kernel level: how many channels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import trinas as tn

Paths: TypeAlias = Literal["tree", "trellis", "fixed"]

RATIOS = (1 / 3, 1 / 2, 2 / 3, 5 / 6, 1)
"""Of the full width; the tables of the paper hold no 4/5 (its text does), but 2/3."""


def _slot(channels: tn.Value) -> tn.Node:
    """One searched operation. No convolution in a slot has a bias."""
    return tn.choice(
        conv1x1=tn.conv_relu(1, channels),
        resblock=tn.resblock(channels),
        conv3x3=tn.conv_relu(3, channels),
        dwsblock=tn.dwsblock(channels),
        name="slot",
    )


def rir_cell(features: int, slots: int = 5, ratios: Sequence[float] = RATIOS) -> tn.Node:
    """``x + 0.2 f(x)`` around searched slots; the last one returns to full width."""
    searched = (_slot(tn.width(features, ratios=ratios, divisor=8)) for _ in range(slots - 1))
    return tn.residual(tn.seq(*searched, _slot(features)), scale=0.2)


def backbone_b(
    features: int = 64,
    scale: int = 4,
    *,
    slots: int = 5,
    cells: int = 5,
    convs: int = 2,
    ratios: Sequence[float] = RATIOS,
    paths: Paths = "tree",
) -> tn.Node:
    """TrilevelNAS-B: everything at low resolution, one PixelShuffle at the end."""
    return tn.seq(
        tn.conv(3, features, name="stem"),
        trunk(
            lambda: rir_cell(features, slots, ratios),
            lambda: tn.conv(3, features),
            {"a": cells, "b": convs},
            paths,
        ),
        tn.conv(3, 3 * scale**2, name="tail"),
        tn.pixel_shuffle(scale),
        *unit_range(),
    )


def backbone_a(
    features: int = 64,
    scale: int = 4,
    *,
    slots: int = 5,
    cells: int = 5,
    ratios: Sequence[float] = RATIOS,
    paths: Paths = "tree",
) -> tn.Node:
    """TrilevelNAS-A: searched x2 upsamplings; only nodes behind all of them can be the end."""
    ups = scale.bit_length() - 1
    return tn.seq(
        tn.conv(3, features, name="stem"),
        trunk(
            lambda: rir_cell(features, slots, ratios),
            lambda: tn.seq(tn.upsample(2), tn.conv(3, features)),
            {"a": cells, "b": ups},
            paths,
            exit_at={"b": ups},
        ),
        tn.conv(3, features, name="hr_conv"),
        tn.conv(3, 3, name="tail"),
        *unit_range(),
    )


def trunk(
    a: Callable[[], tn.Node],
    b: Callable[[], tn.Node],
    at_most: Mapping[str, int],
    paths: Paths,
    *,
    exit_at: Mapping[str, int] | None = None,
) -> tn.Node:
    """The searched middle of a backbone: sequences of blocks ``a`` and ``b``, ``a`` first.

    Args:
        a: makes a RiR cell.
        b: makes a convolution or an upsampling.
        at_most: how many of each a path has at most.
        paths: ``tree``, every sequence with weights of its own (the paper's); ``trellis``,
            sequences share the blocks they pass with equal counts, and all have all blocks
            (Auto-DeepLab's, Figure 2 left); ``fixed``, all ``a`` and then all ``b`` (AGD's,
            Table 6).
        exit_at: for a tree, the counts behind which a path may end.
    """
    if paths == "fixed":
        blocks = [make() for label, make in (("a", a), ("b", b)) for _ in range(at_most[label])]
        return tn.seq(*blocks, name="trunk")
    if paths == "trellis":
        return tn.trellis(a=a(), b=b(), first="a", at_most=at_most, name="trunk")
    return tn.tree(a=a(), b=b(), first="a", at_most=at_most, exit_at=exit_at, name="trunk")


def path_of(genotype: tn.Genotype, at_most: Mapping[str, int]) -> str:
    """The sequence of blocks of a network of these spaces, such as ``a-a-b``.

    Args:
        genotype: of the network.
        at_most: as for `trunk`: what a path has that nothing is decided about.

    >>> path_of(tn.sample(tn.lower(backbone_b(16, cells=2), (3, 16, 16)), 0), {"a": 2, "b": 2})
    'a-b-a-b'
    """
    if "trunk" in genotype:
        return str(genotype["trunk"])
    left, labels = dict(at_most), []
    while any(left.values()):
        decided = genotype.get("trunk/" + "-".join(f"{k}{n}" for k, n in left.items()))
        # Undecided: a trellis behind its one a, where only b can come, or a fixed path.
        label = str(decided or ("b" if left["b"] else "a"))
        labels.append(label)
        left[label] -= 1
    return "-".join(reversed(labels))


def unit_range() -> tuple[tn.Node, tn.Node]:
    """``(tanh(x) + 1) / 2``: images lie in [0, 1]."""
    return tn.tanh(), tn.affine(0.5, 0.5)


def largest_macs(graph: tn.Graph) -> int:
    """Multiply-adds of the costliest network of one of these spaces: what a budget is a share of.

    That is a longest path with the widest residual block in every slot.
    """
    trunk = graph.decisions["trunk"]
    parents = set(trunk.order or ())
    widest = {
        path: "resblock" if decision.kind == "operation" else decision.options[-1]
        for path, decision in graph.decisions.items()
    }
    ends = [option for k, option in enumerate(trunk.options) if k not in parents]
    return max(tn.cost.macs(graph, {**widest, "trunk": end}) for end in ends)


def paper_decisions(
    path: Sequence[int], cells: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """An architecture as the paper's tables print it, as decisions of these spaces.

    Args:
        path: 0 for a RiR cell, 1 for an upsampling or convolution.
        cells: for every RiR cell on the path its slots, each with ``op`` and ``width``.
    """
    labels = ["ab"[kind] for kind in path]
    decisions: dict[str, Any] = {"trunk": "-".join(labels)}
    nodes = ["-".join(labels[: i + 1]) for i, label in enumerate(labels) if label == "a"]
    for node, slots in zip(nodes, cells):
        for i, slot in enumerate(slots):
            decisions[f"trunk/{node}/slot[{i}]"] = slot["op"]
            if i < len(slots) - 1:
                decisions[f"trunk/{node}/slot[{i}]/width"] = slot["width"]
    return decisions


def paper_architectures() -> dict[str, dict[str, Any]]:
    """The paper's four architectures by name, with its figures, our counts and a note on each.

    >>> for name, entry in paper_architectures().items():
    ...     print(name, entry["reported"]["params_m"], entry["counted"]["params"])
    table7_visual_A 0.34 372355
    table8_visual_B 0.24 234192
    table9_psnr_B 0.51 509072
    table10_aim_B 0.27 264496
    """
    text = Path(__file__).with_name("architectures.json").read_text(encoding="utf-8")
    entries = json.loads(text)["architectures"]
    for entry in entries.values():
        entry["cells"] = [
            [{"op": op, "width": width} for op, width in slots] for slots in entry["cells"]
        ]
    return entries


def paper_architecture(name: str, *, side: int = 256) -> tuple[tn.Graph, tn.Genotype]:
    """One of the paper's architectures and the space it is of.

    Args:
        name: of `paper_architectures`.
        side: of the input; the paper counts at 256.

    Raises:
        UnknownNameError: no table of the paper has this name.

    >>> graph, genotype = paper_architecture("table8_visual_B")
    >>> graph.in_shape, genotype["trunk"]
    (3x256x256, 'a-a-a')
    """
    known = paper_architectures()
    if name not in known:
        raise tn.errors.UnknownNameError(
            "an architecture of the paper is known by its table",
            got=name,
            fix=f"There are {', '.join(known)}.",
        )
    entry = known[name]
    space = {"A": backbone_a, "B": backbone_b}[entry["backbone"]]()
    graph = tn.lower(space, (3, side, side))
    return graph, tn.Genotype.of(graph, paper_decisions(entry["path"], entry["cells"]))
