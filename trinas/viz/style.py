"""Colours, and how operations and weights are spelled in a drawing.

Fills are Paul Tol's pale colours, made as backgrounds of black text and told apart by
colour-blind readers; lines are darker relatives of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import attrs

from trinas.graph import Graph
from trinas.space import OperationSpec, Shape, Value
from trinas.space.values import largest, smallest


@attrs.frozen
class Colour:
    """How one kind of box looks."""

    fill: str
    line: str


INK = "#222222"
SOFT = "#5A5A5A"
FAINT = "#B8B8B8"
COLOURS = {
    "end": Colour("#E4E4E4", "#777777"),
    "conv": Colour("#BBCCEE", "#4A689A"),
    "depthwise": Colour("#CCEEFF", "#3A86A3"),
    "residual": Colour("#CCDDAA", "#66803A"),
    "resample": Colour("#EEEEBB", "#8C8A2E"),
    "pointwise": Colour("#F2F2F2", "#8A8A8A"),
    "block": Colour("#FFCCCC", "#A65A5A"),
    "skip": Colour("#FFFFFF", "#6E6E6E"),
    "zero": Colour("#FFFFFF", "#B0B0B0"),
    "merge": Colour("#FFFFFF", "#555555"),
    "other": Colour("#DDDDDD", "#777777"),
}
"""Kind of box to its colour."""

FOLLOWERS = ("activation", "batch_norm", "affine", "dropout")
_RESAMPLE = ("pool", "global_avg_pool", "pixel_shuffle", "upsample", "crop", "flatten")
# Settings that a shape tells better, or that no reader of a drawing asks for.
_QUIET = ("channels", "features", "bias", "function", "mode", "affine", "momentum")
_CHANNELS = re.compile(r"→ \d")
_LONG_NOTE = 26
_SPELLED = {
    "kernel": "{0}×{0}",
    "stride": "/{0}",
    "dilation": "dilation {0}",
    "groups": "{0} groups",
    "factor": "×{0}",
}


def kind_of_operation(operation: OperationSpec) -> str:
    """The kind that colours one operation."""
    registered = type(operation).registered
    if registered in ("conv", "linear"):
        return "conv"
    if registered in FOLLOWERS:
        return "pointwise"
    if registered in _RESAMPLE:
        return "resample"
    return {"dwconv": "depthwise", "zero": "zero", "shortcut": "skip"}.get(registered, "other")


def kind_of_nodes(graph: Graph, nodes: Sequence[str]) -> str:
    """The kind of a block that these nodes make up."""
    return most_telling(
        {
            "residual" if graph.vertex(n)["kind"] in ("sum", "product") else _kind(graph, n)
            for n in nodes
        }
    )


def most_telling(kinds: Collection[str]) -> str:
    """The kind of a block that has parts of these kinds."""
    order = ("depthwise", "residual", "conv", "resample", "other", "pointwise", "zero", "skip")
    return next((kind for kind in order if kind in kinds), "other")


def _kind(graph: Graph, node: str) -> str:
    operation = graph.vertex(node)["op"]
    return "merge" if operation is None else kind_of_operation(operation)


def spell_operation(operation: OperationSpec) -> str:
    """An operation in a few words.

    >>> import trinas as tn
    >>> spell_operation(tn.conv(3, 16, stride=2).operation)
    'conv 3×3 /2'
    >>> spell_operation(tn.pixel_shuffle(4).operation)
    'pixel shuffle ×4'
    """
    words = [operation.kind.replace("_", " ")]
    for field in attrs.fields(type(operation)):
        value = getattr(operation, field.name)
        if field.name in _QUIET or value == field.default:
            continue
        text = f"{value:g}" if isinstance(value, float) else str(value)
        words.append(_SPELLED.get(str(field.name), f"{field.name} {{0}}").format(text))
    return " ".join(words)


def with_follower(notes: Sequence[str], kind: str) -> tuple[str, ...]:
    """The notes of a box that an activation or normalisation joins, before its channels.

    >>> with_follower(with_follower(("3 → 16",), "batch_norm"), "relu")
    ('→ batch norm → relu', '3 → 16')
    """
    words = f"→ {kind.replace('_', ' ')}"
    channels = [note for note in notes[-1:] if _CHANNELS.search(note)]
    before = list(notes[: len(notes) - len(channels)])
    if before and before[-1].startswith("→") and len(before[-1]) + len(words) < _LONG_NOTE:
        words = f"{before.pop()} {words}"
    return (*before, words, *channels)


def spell_channels(value: Value) -> str:
    """A channel count; a range where it is searched.

    >>> import trinas as tn
    >>> spell_channels(tn.width(values=(24, 32, 64)))
    '24–64'
    """
    low, high = smallest(value), largest(value)
    return str(high) if low == high else f"{low}–{high}"


def spell_shape(shape: Shape) -> str:
    """A shape with searched channels as a range."""
    return "×".join([spell_channels(shape.channels), *map(str, shape.size)])


def spell_change(x: Shape, y: Shape) -> str:
    """``in → out`` channels, and the sizes where they change."""
    if x.size == y.size:
        return f"{spell_channels(x.channels)} → {spell_channels(y.channels)}"
    return f"{spell_shape(x)} → {spell_shape(y)}"


def spell_weight(weight: float) -> str:
    """A weight in two digits.

    >>> spell_weight(0.314), spell_weight(0.001), spell_weight(0.0)
    ('0.31', '<0.01', '0')
    """
    if weight == 0:
        return "0"
    return "<0.01" if 0 < weight < 0.005 else f"{weight:.2f}"


def grey(weight: float) -> str:
    """A grey that is darker for a larger weight in [0, 1]."""
    level = round(0xB0 - (0xB0 - 0x22) * min(max(weight, 0.0), 1.0) ** 0.5)
    return f"#{level:02X}{level:02X}{level:02X}"


def pen(weight: float) -> str:
    """A line width that is larger for a larger weight in [0, 1]."""
    return f"{0.7 + 3.3 * min(max(weight, 0.0), 1.0):.2f}"
