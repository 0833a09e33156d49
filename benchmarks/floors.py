"""What a step cannot do without: its bare operations, each alone, one after the other.

A floor is the sum over the operations of a step of the time that each takes forward and
backward by itself. So it has neither sums nor choices nor any bookkeeping. What autograd
costs to start is not in it, either: a few of the same operation, each with data of its own,
go backward in one call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import trinas as tn
from benchmarks.measure import Samples, Work

LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}

COPIES = 2
"""Enough to share that start; with more of them their data fall out of the cache."""

LAYERS = (
    nn.Conv2d,
    nn.Linear,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)
"""Layers that count as operations; the rest only moves or adds what they compute."""


class Bare(Protocol):
    """An operation on inputs of one size, equal to all that take the same time."""

    def work(self, layout: torch.memory_format, device: torch.device) -> Work:
        """Forwards and backwards `COPIES` times."""
        ...


@attrs.frozen
class Convolution:
    """One call of ``torch.conv2d``."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    bias: bool
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    learns: bool
    """Whether the gradient of the input is asked for, too."""

    def work(self, layout: torch.memory_format, device: torch.device) -> Work:
        """Forwards and backwards `COPIES` times."""
        c_out = self.weight[0]

        def build() -> nn.Module:
            size = (self.x[1], c_out, self.weight[2:], self.stride, self.padding, self.dilation)
            return nn.Conv2d(*size, self.groups, self.bias)  # type: ignore[arg-type]  # two numbers

        return there_and_back(build, self.x, self.learns, layout, device)


@attrs.frozen
class Layer:
    """One layer of a search space.

    Attributes:
        operation: what it computes.
        x: shape of its input, without the batch.
        y: shape of its result.
        batch: of so many.
        learns: whether the gradient of the input is asked for, too.
        by_torch: with the layer of torch, where trinas has one of its own in its stead.
    """

    operation: tn.Operation
    x: tn.Shape
    y: tn.Shape
    batch: int
    learns: bool
    by_torch: bool = False

    def work(self, layout: torch.memory_format, device: torch.device) -> Work:
        """Forwards and backwards `COPIES` times."""
        shape = (self.batch, *self.x.numbers())
        return there_and_back(self._build, shape, self.learns, layout, device)

    def as_torch(self) -> Layer:
        """The same by torch; itself where that makes no difference."""
        module = self._build()
        return attrs.evolve(self, by_torch=type(module) is not _of_torch(module))

    def _build(self) -> nn.Module:
        module = self.operation.build(self.x, self.y)
        if self.by_torch:
            module.__class__ = _of_torch(module)
        return module


def _of_torch(module: nn.Module) -> type[nn.Module]:
    """The class of torch that a layer is one of; a subclass has the same attributes."""
    return next(kind for kind in LAYERS if isinstance(module, kind))


def there_and_back(
    build: Callable[[], nn.Module],
    shape: Sequence[int],
    learns: bool,
    layout: torch.memory_format,
    device: torch.device,
) -> Work:
    """`COPIES` modules forwards on random numbers, and gradients of all they depend on."""
    like = layout if len(shape) == 4 else torch.contiguous_format
    modules: list[nn.Module] = []
    xs: list[Tensor] = []
    for _ in range(COPIES):
        module = build().to(device)
        modules.append(module.to(memory_format=layout))  # type: ignore[call-overload]  # is torch's
        x = torch.randn(*shape, device=device).contiguous(memory_format=like)
        xs.append(x.requires_grad_(learns))
    cotangents = [torch.randn_like(module(x)) for module, x in zip(modules, xs)]
    for_these = [p for module in modules for p in module.parameters()] + (xs if learns else [])

    def work() -> None:
        ys = [module(x) for module, x in zip(modules, xs)]
        torch.autograd.grad(ys, for_these, cotangents)

    return work


@attrs.frozen
class Floor:
    """Bare operations and how often each of them runs in a step."""

    name: str
    counts: Mapping[Bare, int]

    def works(self, device: torch.device) -> dict[str, Work]:
        """Each operation once, in either layout."""
        return {
            _label(bare, layout): bare.work(memory, device)
            for layout, memory in LAYOUTS.items()
            for bare in self.counts
        }

    def added(self, samples: Samples) -> tuple[str, Samples]:
        """The name of the sum in the faster layout, and samples that hold it."""
        names = {layout: f"{self.name}, {layout}" for layout in LAYOUTS}
        for layout, name in names.items():
            counts = {_label(bare, layout): n / COPIES for bare, n in self.counts.items()}
            samples = samples.with_sum(name, counts)
        return min(names.values(), key=samples.median), samples


def _label(bare: Bare, layout: str) -> str:
    return f"{bare} {layout}"


def convolutions(forward: Callable[[], object]) -> Counter[Bare]:
    """The convolutions of a forward pass, whoever asks for them."""
    with _Watch() as watch:
        forward()
    return watch.found


class _Watch(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Bare] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.conv2d:
            self.found[_convolution(*args, **(kwargs or {}))] += 1
        return func(*args, **(kwargs or {}))


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Convolution:
    return Convolution(
        tuple(input.shape),
        tuple(weight.shape),
        bias is not None,
        _pair(stride),
        _pair(padding),
        _pair(dilation),
        groups,
        input.requires_grad,
    )


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def defined_layers(graph: tn.Graph, batch: int, *, by_torch: bool = False) -> Counter[Bare]:
    """The layers of a space without widths as it is written down: each edge has its own."""
    found = (layer for _, layer in _layers(graph, batch))
    return Counter(layer.as_torch() if by_torch else layer for layer in found)


def run_layers(net: tn.Supernet, batch: int, forward: Callable[[], object]) -> Counter[Bare]:
    """The layers of such a space that a forward pass runs."""
    layers = net.network.layers
    by_module = {id(layers[key]): layer for key, layer in _layers(net.graph, batch)}
    found: Counter[Bare] = Counter()
    with _watched(layers, lambda module: found.update(_known(by_module, module))):
        forward()
    return found


def _known(by_module: Mapping[int, Layer], module: nn.Module) -> list[Layer]:
    return [by_module[id(module)]] if id(module) in by_module else []


@contextmanager
def _watched(layers: nn.Module, seen: Callable[[nn.Module], None]) -> Iterator[None]:
    hooks = [m.register_forward_pre_hook(lambda m, _: seen(m)) for m in layers.children()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _layers(graph: tn.Graph, batch: int) -> Iterator[tuple[str, Layer]]:
    """The name of the weights of every layer, and the layer."""
    for node in graph:
        vertex = graph.vertex(node)
        operation = vertex["op"]
        if not isinstance(operation, tn.Operation):
            continue
        (source,) = graph.sources(node)
        x, y = graph.vertex(source.node)["shape"], vertex["shape"]
        if isinstance(operation.build(x, y), LAYERS):
            yield vertex["weights"] or "", Layer(operation, x, y, batch, source.node != graph.input)
