"""Operations that know torch: how one is built, and how it runs narrower than built.

Legend: N batch, C channels, H W height and width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias, TypeVar, cast

import attrs
import torch
from torch import Tensor, nn

from trinas._core.declared import declared_at
from trinas._core.errors import ShapeError, SpaceError, UnknownNameError
from trinas._core.hints import did_you_mean
from trinas._core.registry import Registry
from trinas.space.checks import check_label, whole
from trinas.space.nodes import Node, Op, as_node
from trinas.space.operation import OperationSpec, resolve_dimension
from trinas.space.shape import Shape
from trinas.space.values import symbols

Selection: TypeAlias = int | Tensor | None
"""Channels in use: the first so many, those at an index, or (None) all of them."""


@attrs.frozen(eq=False)
class Cut:
    """How much of a superkernel runs.

    Attributes:
        ins: the channels of the full input that are present.
        outs: the channels of the full result that are wanted.
        same: whether input and result are equally wide; for soft widths the probability
            of it, a tensor of no dimensions, or (C_out,) given that a channel of the result
            is there.
        declared: the weights of the operation as `OperationSpec.weights` gives them.
        mask: for soft widths the weight of every channel of the input, (C_in,), of an
            operation that `adds_channels`; None for all ones.
    """

    ins: Selection = None
    outs: Selection = None
    same: bool | Tensor = False
    declared: Mapping[str, tuple[int | str, ...]] = attrs.field(factory=dict)
    mask: Tensor | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing is cut and nothing masked."""
        return self.ins is None and self.outs is None and self.mask is None

    def masked(self, x: Tensor) -> Tensor:
        """The input (N, C_in, ...) with its channels weighted for soft widths."""
        if self.mask is None:
            return x
        return x * self.mask.to(x.dtype).reshape(-1, *[1] * (x.dim() - 2))

    def weight(self, weight: Tensor, dimensions: tuple[int | str, ...]) -> Tensor:
        """The part of a weight that these channels use; a view where that is possible.

        With a mask its channels of the input are weighted: in an operation linear in it
        that is the same as `masked`, for less.
        """
        if self.mask is not None and "in" in dimensions:
            behind = weight.dim() - dimensions.index("in") - 1
            weight = weight * self.mask.to(weight.dtype).reshape(-1, *[1] * behind)
        for axis, dimension in enumerate(dimensions):
            chosen = {"in": self.ins, "out": self.outs}.get(str(dimension))
            if isinstance(chosen, int):
                weight = weight.narrow(axis, 0, chosen)
            elif chosen is not None:
                weight = weight.index_select(axis, chosen)
        return weight


@attrs.frozen
class Operation(OperationSpec):
    """The base of every operation; see `OperationSpec` for what to declare.

    A subclass gives `out_shape` (unless the shape stays), `weights` (unless there are
    none) and one of

    - ``forward(self, x, **weights)``, the result from the input and the weights by name:
      trinas makes the parameters, slices them to any width, and counts them;
    - ``build(self, x, y)``, a torch module for an input of shape `x` and a result of shape
      `y` (``x.numbers()`` gives sizes). Its parameters carry the names that `weights` declares.

    >>> import trinas as tn
    >>> @tn.operation("channel_gain")
    ... class Gain(tn.Operation):
    ...     def weights(self, x, y):
    ...         return {"gain": ("out",)}
    ...     def forward(self, x, gain):
    ...         return x * gain[:, None, None]
    >>> graph = tn.lower(tn.seq(tn.conv(3, tn.width(values=(4, 8))), Gain()), (3, 8, 8))
    >>> print(graph.output, tn.cost.params(graph, tn.sample(graph, 0)))
    channel_gain 232

    Attributes:
        channelwise: see `OperationSpec`.
        adds_channels: see `OperationSpec`.
        pure: the result follows from the input and the settings alone: no weights, no
            randomness, no state. Equal pure operations on one input run once for all.
        always_zero: the result is zero for every input, so that nothing needs adding.
    """

    pure: ClassVar[bool] = False
    always_zero: ClassVar[bool] = False

    def forward(self, *args: Any, **weights: Any) -> Tensor:
        """The result for ``x``, the one positional argument; (N, C, ...) in and out."""
        raise SpaceError(
            "an operation gives forward or build",
            got=type(self).__name__,
            fix="Define one of the two methods.",
        )

    def init(self, name: str, weight: Tensor) -> None:
        """Fill a fresh weight in place.

        By default zeros for names with ``bias`` or ``shift``, ones for other vectors, and
        torch's default for convolutions (Kaiming uniform, a = sqrt 5) for the rest.
        """
        if "bias" in name or "shift" in name:
            nn.init.zeros_(weight)
        elif weight.dim() < 2:
            nn.init.ones_(weight)
        else:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))

    def build(self, x: Shape, y: Shape) -> nn.Module:
        """A torch module for these shapes, as wide as they can get (`Shape.numbers`)."""
        return _Functional(self, x, y)

    def run(self, module: nn.Module, x: Tensor, at: Cut) -> Tensor:
        """Run the full-width `module` on the channels that `at` selects.

        The default cuts every declared weight; it suits any module whose forward takes
        its sizes from its weights and its input. An operation that `adds_channels` and has
        its own `run` weighs its input by ``at.masked(x)``.
        """
        if not at.declared or (at.ins is None and at.outs is None):
            return module(at.masked(x))
        cut = {n: at.weight(attrgetter(n)(module), d) for n, d in at.declared.items()}
        if isinstance(module, _Functional):
            return self.forward(x, **cut)
        return torch.func.functional_call(module, cut, (x,))


class _Functional(nn.Module):
    """The module of an operation that is written as a function of its weights."""

    def __init__(self, operation: Operation, x: Shape, y: Shape) -> None:
        super().__init__()
        self.operation = operation
        for name, dimensions in operation.weights(x, y).items():
            weight = torch.empty([resolve_dimension(d, x, y) for d in dimensions])
            operation.init(name, weight)
            self.register_parameter(name, nn.Parameter(weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.operation.forward(x, **dict(self.named_parameters()))

    def extra_repr(self) -> str:
        return str(self.operation)


operations: Registry[Callable[..., Node | OperationSpec]] = Registry("operation")
"""Every operation and block by name."""

T = TypeVar("T", bound=Callable[..., Any])


def operation(name: str) -> Callable[[T], T]:
    """Register an operation (a subclass of `Operation`) or a block (a function of nodes).

    A class is made a frozen attrs class: annotated fields become its settings. After that
    ``trinas.op(name, ...)`` builds it, and the class itself can stand anywhere in a space.

    Raises:
        SpaceError: the name is taken, or not usable in a path.
    """
    check_label(name)

    def add(thing: T) -> T:
        if isinstance(thing, type) and issubclass(thing, OperationSpec):
            # A class that is one already must not be made one again: it lost its defaults.
            frozen = thing if "__attrs_attrs__" in vars(thing) else attrs.frozen(thing)
            operations.register(name)(frozen)
            frozen.registered = name
            return cast(T, frozen)
        if not callable(thing):
            raise SpaceError(
                "an operation is a subclass of Operation, or a function that returns nodes",
                got=thing,
                at=declared_at(),
                fix="Use @trinas.operation(name) as a decorator.",
            )
        operations.register(name)(thing)
        return cast(T, thing)

    return add


def op(operation_name: str, /, *args: Any, name: str | None = None, **settings: Any) -> Node:
    """A node for a registered operation or block, by name.

    Raises:
        UnknownNameError: nothing is registered under that name; near names are offered.

    >>> op("conv", 3, 16).label
    'conv'
    """
    try:
        make = operations[operation_name]
    except UnknownNameError as error:
        at = declared_at()
        raise UnknownNameError(error.rule, got=error.got, at=at, fix=error.fix) from None
    node = as_node(make(*args, **settings))
    return node if name is None else node.named(name)


def leaf(operation: OperationSpec, name: str | None) -> Op:
    """A node around one operation, with the line that asked for it."""
    return Op(operation, name=name, declared=declared_at())


def true_or_false(
    operation: OperationSpec, attribute: attrs.Attribute[bool], value: object
) -> None:
    """A validator for settings that are on or off.

    Raises:
        SpaceError: anything but True and False.
    """
    if not isinstance(value, bool):
        raise SpaceError(
            f"{attribute.name} of {operation.kind} is True or False",
            got=repr(value),
            at=declared_at(),
            fix="Correct the setting.",
        )


def finite(operation: OperationSpec, attribute: attrs.Attribute[float], value: object) -> None:
    """A validator for settings that are ordinary numbers.

    Raises:
        SpaceError: no number, infinite, or not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpaceError(
            f"{attribute.name} of {operation.kind} is a finite number",
            got=repr(value),
            at=declared_at(),
            fix="Correct the setting.",
        )


def at_least(least: int) -> Callable[[OperationSpec, attrs.Attribute[int], object], None]:
    """A validator for settings that are whole numbers of at least `least`.

    Raises (when it runs):
        SpaceError: another value; the message names the operation and the setting.
    """

    def check(operation: OperationSpec, setting: attrs.Attribute[int], value: object) -> None:
        if not whole(value, least):
            raise SpaceError(
                f"{setting.name} of {operation.kind} is a whole number of at least {least}",
                got=value,
                at=declared_at(),
                fix="Correct the setting.",
            )

    return check


def require_known(what: str, value: str, known: Collection[str]) -> None:
    """Check that `value` is one of the `known` names.

    Raises:
        SpaceError: it is not; the message lists them, the nearest one first.
    """
    if value not in known:
        raise SpaceError(
            f"unknown {what}",
            got=repr(value),
            at=declared_at(),
            fix=did_you_mean(value, known, then=f"Known: {', '.join(known)}."),
        )


def require_image(x: Shape, what: str) -> tuple[int, int]:
    """Height and width of `x`.

    Raises:
        ShapeError: `x` is not a feature map.
    """
    if len(x.size) != 2:
        raise ShapeError(
            f"{what} takes a feature map (C, H, W)",
            got=x,
            fix="Does a flatten stand before it? Is the in_shape (C, H, W), without the batch?",
        )
    return x.size[0], x.size[1]


def require_fixed_channels(x: Shape, what: str) -> int:
    """The channel count of `x` where nothing is searched.

    Raises:
        ShapeError: it depends on a width.
    """
    if symbols(x.channels) or not isinstance(x.channels, int):
        raise ShapeError(
            f"{what} needs a fixed number of channels", got=x, fix="Use a plain int before it."
        )
    return x.channels
