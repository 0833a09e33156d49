"""The way in: what can be drawn, and how.

What does the drawing is imported by the first one: most programs that use trinas draw
nothing, and these modules are a fifth of what there is to import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from trinas.graph import Genotype, Graph
from trinas.space import Node, OperationSpec
from trinas.viz.drawing import Drawing, DrawingError

if TYPE_CHECKING:
    from trinas.viz.scene import Direction
    from trinas.viz.view import View

Detail = Literal["blocks", "operations"]


@runtime_checkable
class HasGraph(Protocol):
    """What a plain network shows of itself to be drawn."""

    @property
    def graph(self) -> Graph:
        """The graph it runs."""
        ...


@runtime_checkable
class HasWeights(Protocol):
    """What a supernet shows of itself to be drawn."""

    @property
    def graph(self) -> Graph:
        """The graph it runs."""
        ...

    def weights(self) -> Mapping[str, Sequence[float]]:
        """For every decision path the weights of its options, in order."""
        ...


Drawable = Node | OperationSpec | Graph | Genotype | HasWeights | HasGraph


def draw(
    what: Drawable,
    genotype: Genotype | None = None,
    *,
    detail: Detail = "blocks",
    title: str | None = None,
    direction: Direction | None = None,
) -> Drawing:
    """Draw a space, a graph, a genotype, a supernet or a plain network.

    A space is drawn as it is written: choices, trees and repeats as nested frames. A
    graph is drawn with all its options. A genotype is drawn as the network it describes.
    A supernet is drawn like its graph, with the weights in force as numbers and as the
    strength of arrows; what has weight 0 is faint. Cells are drawn once, however often
    they are used, beside the line of blocks they stand in.

    Args:
        what: the thing to draw.
        genotype: brings out its part of a graph or supernet; the rest is faint.
        detail: ``blocks`` draws every option of a choice and every small part without
            decisions as one box; ``operations`` draws every operation.
        title: a line above the drawing.
        direction: of the flow, ``TB`` (down) or ``LR`` (to the right). By default to the
            right where there are cells, else down. Long networks are broken into columns
            or rows, so that they suit a page.

    Returns:
        The drawing: its text, and ways to render that.

    Raises:
        DrawingError: something that cannot be drawn, or an unknown setting.
        GenotypeError: `genotype` belongs to another graph.

    >>> import trinas as tn
    >>> slot = tn.choice(conv3=tn.conv_relu(3, 8), conv1=tn.conv_relu(1, 8), name="slot")
    >>> graph = tn.lower(tn.seq(tn.conv(3, 8), slot), (3, 16, 16))
    >>> picture = tn.draw(tn.Genotype.of(graph, {"slot": "conv3"}), title="found")
    >>> "8 → 8" in picture.dot, "slot/conv1" in picture.dot
    (True, False)
    """
    from trinas.viz.dot import to_dot
    from trinas.viz.network import network_scene
    from trinas.viz.space import space_scene

    _check("detail", detail, ("blocks", "operations"))
    _check("direction", direction, ("TB", "LR", None))
    deep = detail == "operations"
    if isinstance(what, Node | OperationSpec):
        if genotype is not None:
            raise DrawingError(
                "a space is drawn without a genotype",
                got=repr(genotype),
                fix="Draw the genotype alone, or on its graph: draw(genotype.graph, genotype).",
            )
        scene = space_scene(what, direction, title, deep=deep)
    else:
        scene = network_scene(_view(what, genotype), direction, title, deep=deep)
    return Drawing(to_dot(scene))


def _view(what: object, genotype: Genotype | None) -> View:
    from trinas.viz.view import open_view, settled_view

    match what:
        case Graph():
            return open_view(what, genotype)
        case Genotype() if genotype is None:
            return settled_view(what)
        case Genotype():
            raise DrawingError("a genotype is drawn alone", fix="Leave the second one out.")
        case HasWeights():
            return open_view(what.graph, genotype, _checked(what.graph, what.weights()))
        case HasGraph():
            return open_view(what.graph, genotype)
    raise DrawingError(
        "a drawing shows a space, a graph, a genotype, a supernet or a network",
        got=type(what).__name__,
        fix="Lower or derive what you have first.",
    )


def _checked(graph: Graph, weights: Mapping[str, Sequence[float]]) -> Mapping[str, Sequence[float]]:
    for path, values in weights.items():
        decision = graph.decisions.get(path)
        count = 0 if decision is None else len(decision.options)
        if len(values) != count:
            raise DrawingError(
                "weights give every option of a decision of the graph one number",
                got=f"{len(values)} for {count} options",
                at=path,
            )
    return weights


def _check(name: str, value: object, known: Sequence[object]) -> None:
    if value not in known:
        raise DrawingError(
            f"unknown {name}", got=repr(value), fix=f"Known: {', '.join(map(str, known))}."
        )
