"""Adds nodes to a graph under construction, inferring and checking shapes as it goes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from trinas._core.errors import ShapeError, SpaceError
from trinas.graph.ir import Graph, Source, Vertex, assemble
from trinas.space.decision import Decision
from trinas.space.operation import OperationSpec
from trinas.space.shape import Shape
from trinas.space.values import IN, same

INPUT = "input"

_ADDED = "what is added up has one shape"
_MULTIPLIED = "what is multiplied has one shape"
_OPTIONS = "the options of one decision give one shape"
_EDGES = "the edges into one step of a cell give one shape"


def same_shape(left: Shape, right: Shape) -> bool:
    """Whether two tensors can be added, whatever the search decides.

    Pieces of a concatenation are cut one by one, so they add up with equal pieces only.
    """
    return left is right or (left.size == right.size and same_pieces(left, right))


def same_pieces(left: Shape, right: Shape) -> bool:
    """Whether two tensors have their channels in the same pieces."""
    return len(left.segments) == len(right.segments) and all(
        same(a, b) for a, b in zip(left.segments, right.segments)
    )


def same_weights(operation: OperationSpec, left: Shape, right: Shape) -> bool:
    """Whether an operation holds the same weights on inputs of these two shapes."""
    if left.segments != right.segments:
        return False
    if left.size == right.size:
        return True
    declared = [dict(operation.weights(x, operation.out_shape(x))) for x in (left, right)]
    return declared[0] == declared[1]


def join(shapes: Sequence[Shape]) -> Shape:
    """The shape of a concatenation along the channels."""
    return Shape(tuple(part for s in shapes for part in s.segments), shapes[0].size)


def is_gate(shape: Shape) -> bool:
    """Whether a tensor has one value per channel, which a product spreads over positions."""
    return bool(shape.size) and set(shape.size) == {1}


def fits_gate(gate: Shape, shape: Shape) -> bool:
    """Whether `gate` can multiply every position of a tensor of this shape."""
    return len(gate.size) == len(shape.size) and same_pieces(gate, shape)


class Builder:
    """A graph in the making.

    Every method that adds a node takes its name and inputs, works out the shape of the
    result, and refuses what does not fit.
    """

    def __init__(self, in_shape: Shape) -> None:
        self.decisions: dict[str, Decision] = {}
        self.asked: list[Decision] = []  # inside shares, where it matters
        self._vertices: dict[str, Vertex] = {}
        self._inputs: dict[str, tuple[Source, ...]] = {}
        # One object for each shape, so that equal ones are mostly told by identity.
        self._shapes: dict[Shape, tuple[Shape, Fraction | None]] = {}
        self._height = in_shape.size[0] if in_shape.size else None
        self._declared: dict[str, str | None] = {}
        self._shared_decisions: set[str] = set()
        self._shares: dict[str, tuple[Decision, ...]] = {}
        self._weights: dict[str, str] = {}  # to the node that has them first
        self._shared_weights: set[str] = set()
        self._add(INPUT, "input", in_shape, ())

    def finish(self, output: str) -> Graph:
        """The finished graph."""
        return assemble(self._vertices, self._inputs, self.decisions, INPUT, output)

    def decide(self, decision: Decision, *, shared: bool, declared: str | None) -> str:
        """Register a decision and return its path; a shared one may be there already."""
        path = decision.path
        known = self.decisions.setdefault(path, decision)
        if known is decision:
            self._declared[path] = declared
        else:
            self._agree_on_decision(known, decision, shared, declared)
        if shared:
            self._shared_decisions.add(path)
            self.asked.append(known)
        return path

    def _agree_on_decision(
        self, known: Decision, decision: Decision, shared: bool, declared: str | None
    ) -> None:
        path, first_declared = known.path, self._declared[known.path]
        if not (shared and path in self._shared_decisions):
            raise SpaceError(
                "two decisions of a space have different paths",
                got=path,
                at=_two_places(first_declared, declared),
                fix="Name one of them otherwise (name=..., or the key of a share).",
            )
        if known != decision:
            raise SpaceError(
                "a shared decision offers the same options everywhere",
                got=f"{list(decision.options)} after {list(known.options)}",
                at=f"{path}, declared at {_two_places(first_declared, declared)}",
                fix="Share spaces with equal options only, or use another key.",
            )

    def agree_on_share(self, key: str, before: int, name: str, declared: str | None) -> None:
        """Check that the decisions asked since `before` are those of other places of `key`."""
        asked = tuple(self.asked[before:])
        known = self._shares.setdefault(key, asked)
        if known != asked:
            differ = sorted({d.path for d in known} ^ {d.path for d in asked})
            raise SpaceError(
                "a shared subspace holds the same decisions at all its places",
                got=f"{', '.join(differ)} at some places only",
                at=_place(name, declared),
                fix="Use another key for another subspace.",
            )

    def operation(
        self,
        name: str,
        operation: OperationSpec,
        source: str,
        *,
        weights: str,
        shared: bool,
        declared: str | None,
    ) -> str:
        """Add an operation; `IN` in its settings becomes the channels of `source`."""
        x = self._shape(source)
        try:
            symbols = operation.symbols
            if symbols and IN in symbols:
                operation = operation.bind({IN: x.channels})
            shape = operation.out_shape(x)
        except (ShapeError, SpaceError) as error:
            at = _place(f"{name} ({operation})", declared)
            raise type(error)(error.rule, got=error.got, at=at, fix=error.fix) from None
        self._add(
            name,
            "op",
            shape,
            (Source(source, None),),
            op=operation,
            weights=weights,
            declared=declared,
        )
        known_name = self._weights.setdefault(weights, name)
        if known_name != name:
            self._agree_on_weights(weights, operation, x, name, shared)
        elif shared:
            self._shared_weights.add(weights)
        return name

    def _agree_on_weights(
        self, weights: str, operation: OperationSpec, x: Shape, name: str, shared: bool
    ) -> None:
        known_name = self._weights[weights]
        if not (shared and weights in self._shared_weights):
            raise SpaceError(
                "two sets of weights have different names",
                got=weights,
                at=f"{name} and {known_name}",
                fix="Name one of them otherwise (name=..., or the key of a share).",
            )
        known = self._vertices[known_name]["op"]
        known_x = self._shape(self._inputs[known_name][0].node)
        if known != operation or not same_weights(operation, x, known_x):
            raise ShapeError(
                "weights are shared between equal operations on equally many channels",
                got=f"{operation} on {x} after {known} on {known_x}",
                at=f"{name} and {known_name}",
                fix="Share the decisions alone (weights=False) where channels differ.",
            )

    def total(
        self,
        name: str,
        sources: Sequence[str],
        *,
        coefs: Sequence[float] = (),
        kind: str = "sum",
        declared: str | None = None,
    ) -> str:
        """Add a sum or product of equally shaped nodes."""
        rule = _MULTIPLIED if kind == "product" else _ADDED
        if kind == "product":
            gates = [s for s in sources if is_gate(self._shape(s))]
            full = [s for s in sources if s not in gates] or gates
            shape = self._agree(name, full, full, rule, declared)
            for gate in gates:
                if not fits_gate(self._shape(gate), shape):
                    self._agree(name, (full[0], gate), (full[0], gate), rule, declared)
        else:
            shape = self._agree(name, sources, sources, rule, declared)
        inputs = tuple(Source(s, None) for s in sources)
        return self._add(name, kind, shape, inputs, coefs=tuple(coefs), declared=declared)

    def concat(self, name: str, sources: Sequence[str], *, declared: str | None = None) -> str:
        """Add a concatenation along the channels."""
        shapes = [self._shape(s) for s in sources]
        for source, shape in zip(sources, shapes):
            if shape.size != shapes[0].size:
                raise ShapeError(
                    "what is concatenated has one height and width",
                    got=f"{shapes[0]} from {sources[0]} and {shape} from {source}",
                    at=_place(name, declared),
                    fix="Give the branches equal strides; halving needs an even size.",
                )
        inputs = tuple(Source(s, None) for s in sources)
        return self._add(name, "concat", join(shapes), inputs, declared=declared)

    def pick(
        self,
        name: str,
        decision: str,
        sources: Sequence[Source],
        *,
        labels: Sequence[str],
        kind: str = "mix",
        declared: str | None = None,
    ) -> str:
        """Add a node that picks among its inputs; `labels` name them in messages."""
        rule = _OPTIONS if kind == "mix" else _EDGES
        shape = self._agree(name, [s.node for s in sources], labels, rule, declared)
        return self._add(name, kind, shape, tuple(sources), decision=decision, declared=declared)

    def _agree(
        self,
        name: str,
        sources: Sequence[str],
        labels: Sequence[str],
        rule: str,
        declared: str | None,
    ) -> Shape:
        first = self._shape(sources[0])
        for source, label in zip(sources, labels):
            shape = self._shape(source)
            if shape is not first and not same_shape(first, shape):
                at = _place(name, declared)
                raise _mismatch(rule, (first, labels[0]), (shape, label), at)
        return first

    def _add(  # every field of the contract, once
        self,
        name: str,
        kind: str,
        shape: Shape,
        sources: tuple[Source, ...],
        *,
        op: OperationSpec | None = None,
        weights: str | None = None,
        coefs: tuple[float, ...] = (),
        decision: str | None = None,
        declared: str | None = None,
    ) -> str:
        if name in self._vertices:
            raise SpaceError(
                "two parts of a space have different paths",
                got=name,
                at=_two_places(self._vertices[name]["declared"], declared),
                fix="Name one of them otherwise (name=...).",
            )
        if shape not in self._shapes:
            self._shapes[shape] = shape, self._scale(shape)
        shape, scale = self._shapes[shape]
        self._vertices[name] = {
            "kind": kind,
            "shape": shape,
            "scale": scale,
            "op": op,
            "weights": weights,
            "coefs": coefs,
            "decision": decision,
            "declared": declared,
        }
        self._inputs[name] = sources
        return name

    def _shape(self, node: str) -> Shape:
        return self._vertices[node]["shape"]

    def _scale(self, shape: Shape) -> Fraction | None:
        if not shape.size or self._height is None:
            return None
        return Fraction(shape.size[0], self._height)


def _place(name: str, declared: str | None) -> str:
    return name + (f", declared at {declared}" if declared else "")


def _two_places(first: str | None, second: str | None) -> str:
    return f"{first or 'an unknown line'} and {second or 'an unknown line'}"


def _mismatch(
    rule: str, left: tuple[Shape, str], right: tuple[Shape, str], place: str
) -> ShapeError:
    """The error about two tensors, each given as its shape and who makes it."""
    if left[0].size == right[0].size and same(left[0].channels, right[0].channels):
        pieces = [" | ".join(map(str, shape.segments)) for shape, _ in (left, right)]
        return ShapeError(
            f"{rule}, and its searched channels are cut into the same pieces",
            got=f"pieces {pieces[0]} from {left[1]} and {pieces[1]} from {right[1]}",
            at=place,
            fix="Put a 1x1 convolution behind the concatenation.",
        )
    if left[0].size == right[0].size and left[0].symbols and right[0].symbols:
        fix = (
            "These follow different width decisions. Use one trinas.width object for both "
            "(a copied part decides its own, unless the width is used outside of it too), or "
            "end both at a fixed number of channels."
        )
    else:
        skip = ", or pass a skip (trinas.shortcut)" if rule == _ADDED else ""
        fix = f"Give both the same channels and stride{skip}."
    got = f"{left[0]} from {left[1]} and {right[0]} from {right[1]}"
    return ShapeError(rule, got=got, at=place, fix=fix)
