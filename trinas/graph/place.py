"""Names: where in a space the lowering is, and what the parts there are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from trinas.space.nodes import Node, Residual, Seq
from trinas.space.values import Width


class Place(NamedTuple):
    """Where in the space we are.

    Attributes:
        path: names what is built here.
        decisions: names what is decided here; starts at the key inside a `Share`.
        weights: names the weights here; starts at the key inside a `Share` of weights.
        shared: inside a `Share`.
        shares_weights: inside a `Share` of weights.
        width_labels: labels for the widths that are decided at this place, in order.
    """

    path: str = ""
    decisions: str = ""
    weights: str = ""
    shared: bool = False
    shares_weights: bool = False
    width_labels: Iterator[str] = iter(())

    def child(self, label: str) -> Place:
        """The place of a part with a name of its own."""
        path = f"{self.path}/{label}" if self.path else label
        if not self.shared:
            return Place(path, path, path)
        return self._at(path, f"/{label}")

    def item(self, index: int) -> Place:
        """The place of one run of a repeat."""
        return self._at(f"{self.path}[{index}]", f"[{index}]")

    def share(self, key: str, weights: bool) -> Place:
        """This place, with decisions (and weights) named by a key."""
        place = self._replace(decisions=key, shared=True)
        return place._replace(weights=key, shares_weights=True) if weights else place

    def _at(self, path: str, step: str) -> Place:
        # Outside of shares the three names are one and the same.
        return Place(
            path,
            f"{self.decisions}{step}" if self.shared else path,
            f"{self.weights}{step}" if self.shares_weights else path,
            self.shared,
            self.shares_weights,
        )


def is_transparent(node: Node) -> bool:
    """An unnamed sequence leaves no trace in paths."""
    return isinstance(node, Seq) and node.name is None


def numbered(labels: Iterable[str]) -> list[str]:
    """The labels; those that occur more than once get a number.

    >>> numbered(["conv", "relu", "conv"])
    ['conv[0]', 'relu', 'conv[1]']
    """
    labels = list(labels)
    if len(set(labels)) == len(labels):
        return labels
    often, seen = Counter(labels), Counter[str]()
    result = []
    for label in labels:
        if often[label] > 1:
            seen[label] += 1
            label = f"{label}[{seen[label] - 1}]"
        result.append(label)
    return result


def item_labels(node: Seq) -> list[str]:
    """Labels of what stands in a sequence, unnamed sequences in it spread out."""
    labels = []
    pending: list[Node] = [*reversed(node.items)]
    while pending:
        item = pending.pop()
        if is_transparent(item):
            pending.extend(reversed(item.children))
        else:
            labels.append(item.label)
    return numbered(labels)


def width_labels(node: Node, bound: Mapping[int, Sequence[Width]]) -> list[str]:
    """Labels of the widths decided at the place of `node`, in the order of lowering.

    These are its own and those of the unnamed sequences inside that share its place.
    """
    labels: list[str] = []
    pending = [node]
    while pending:
        part = pending.pop()
        for width in bound.get(id(part), ()):
            if len(width.values) > 1:
                labels.append(width.name or "width")
        inside: Sequence[Node] = ()
        if isinstance(part, Seq):
            inside = part.items
        elif isinstance(part, Residual):
            inside = (part.body,)
        pending.extend([item for item in reversed(inside) if is_transparent(item)])
    return numbered(labels) if len(labels) > 1 else labels
