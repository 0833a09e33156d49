"""A graph as a torch module: the one compiler behind supernets and plain networks.

Legend: N batch, C channels, H W height and width.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trinas._core.errors import GraphError
from trinas.graph import Graph
from trinas.ops import Cut, Operation
from trinas.space.values import Symbol, Value, Var
from trinas.supernet.mixture import Mixture
from trinas.supernet.plan import Live, Plan, Step
from trinas.supernet.widths import Masks, Slices

Declared = Mapping[str, tuple[int | str, ...]]


class Layers(nn.Module):
    """Modules by path. A path is no attribute name, so it is looked up as an item."""

    def __getitem__(self, key: str) -> nn.Module:
        return self._modules[_module_name(key)]  # type: ignore[return-value]

    def __contains__(self, key: str) -> bool:
        return _module_name(key) in self._modules

    def put(self, key: str, module: nn.Module) -> None:
        """File a module under a path."""
        self.add_module(_module_name(key), module)


def _module_name(key: str) -> str:
    # torch refuses names that shadow an attribute of a module ("type", "float", ...).
    return f"{key}_" if hasattr(nn.Module, key) else key


class Network(nn.Module):
    """Runs a graph. With decisions in the graph, a `Mixture` says how they stand.

    Args:
        graph: what to run; every operation becomes one module, at its full width.

    Attributes:
        graph: the graph.
        layers: the modules, named by the nodes of the graph.
        skip: whether branches of weight zero are left out (default); results and
            gradients are the same either way.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.layers = Layers()
        self.skip = True
        self._plan = Plan(graph)
        self._declared: dict[str, Declared] = {}
        for step in self._plan.steps:
            if step.operation is None or step.key in self.layers:
                continue
            self.layers.put(step.key, _operation(step).build(step.x, step.y))
            self._declared[step.key] = _declared(step)

    def forward(self, x: Tensor, mixture: Mixture | None = None) -> Tensor:
        """Run the network.

        Args:
            x: shape (N, *graph.in_shape).
            mixture: how the decisions stand; needed exactly where the graph has some.

        Returns:
            Tensor of shape (N, *graph.out_shape).

        Raises:
            GraphError: decisions are open and there is no mixture.
        """
        if self.graph.decisions and mixture is None:
            raise GraphError(
                "a network with open decisions needs a mixture",
                got=f"{len(self.graph.decisions)} decisions",
                fix="Use trinas.compile_supernet, or settle them with trinas.specialise.",
            )
        run = _Run(self, mixture, x.device)
        host = None if mixture is None else mixture.host
        values: list[Tensor | None] = [None] * len(self._plan.steps)
        result = x
        for live in self._plan.live(host, skip=self.skip):
            if live.step.kind == "input":
                result = x
            else:
                try:
                    result = run.step(live, [_there(values[i]) for i in live.inputs])
                except RuntimeError as error:
                    place = f", declared at {live.step.declared}" if live.step.declared else ""
                    error.add_note(f"while running node {live.step.node}{place}")
                    raise
            values[live.position] = result
            for position in live.frees:
                values[position] = None
        return result

    def declared(self, key: str) -> Declared:
        """The declared weights of a module, by its path."""
        return self._declared[key]

    def extra_repr(self) -> str:
        """The shapes that go in and out."""
        return f"{self.graph.in_shape} -> {self.graph.out_shape}"


def _there(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def _declared(step: Step) -> Declared:
    operation = _operation(step)
    return dict(operation.weights(step.x, step.y)) if step.searched else {}


def _operation(step: Step) -> Operation:
    assert step.operation is not None
    return step.operation


class _Run:
    """One forward pass."""

    def __init__(self, network: Network, mixture: Mixture | None, device: torch.device) -> None:
        self._layers = network.layers
        self._network = network
        self._mixture = mixture
        self._cuts: Slices | Masks | None = None
        self._masks: Masks | None = None
        self._weights: Sequence[Tensor] = ()
        if mixture is None:
            return
        self._weights = mixture.weights.unbind(0)
        if mixture.widths is None:
            self._cuts = self._masks = Masks(network.graph, mixture)
        else:
            widths: dict[Symbol, Value] = {
                Var(path, _numbers(network.graph, path)): count
                for path, count in mixture.widths.items()
            }
            self._cuts = Slices(widths, device)

    def step(self, live: Live, inputs: list[Tensor]) -> Tensor:
        """The result of one step."""
        kind = live.step.kind
        if kind == "op":
            return self._op(live.step, inputs[0])
        if kind == "mix":
            return self._mix(live, inputs)
        if kind == "concat":
            return torch.cat(inputs, dim=1)
        if kind == "product":
            return functools.reduce(operator.mul, inputs)
        return _sum(inputs, live.coefs)

    def _op(self, step: Step, x: Tensor) -> Tensor:
        module = self._layers[step.key]
        operation = _operation(step)
        if not step.searched or self._cuts is None:
            return module(x)
        y = operation.run(module, x, self._cuts.cut(step, self._network.declared(step.key)))
        if self._masks is not None and (step.makes or not operation.keeps_zero):
            mask = self._masks.channels(step.y)
            # Only what sets its own width is weighted by it; the rest is kept clean of
            # what a bias or a sigmoid puts into channels that are not there.
            mask = mask if step.makes else (mask != 0).to(mask)
            return y * _over_channels(mask, y)
        return self._scored(step, y)

    def _scored(self, step: Step, y: Tensor) -> Tensor:
        """Multiply by the (unit) weight of the widths in force, for its gradient alone."""
        mixture = self._mixture
        if mixture is None or mixture.widths is None:
            return y
        for path in step.makes:
            if path in mixture.scored:
                decision = mixture.graph.decisions[path]
                slot = mixture.graph.offsets[path] + decision.index(mixture.widths[path])
                y = y * self._weights[slot].to(y.dtype)
        return y

    def _mix(self, live: Live, inputs: list[Tensor]) -> Tensor:
        mixture = self._mixture
        assert mixture is not None
        if len(inputs) == 1 and not mixture.weights.requires_grad:
            value = mixture.host[live.slots[0]]
            return inputs[0] if value == 1.0 else inputs[0] * value
        total: Tensor | None = None
        for x, slot in zip(inputs, live.slots):
            weight = self._weights[slot].to(x.dtype)
            total = x * weight if total is None else torch.addcmul(total, x, weight)
        return _there(total)


def _numbers(graph: Graph, path: str) -> tuple[int, ...]:
    return tuple(int(option) for option in graph.decisions[path].options)


def _over_channels(mask: Tensor, y: Tensor) -> Tensor:
    return mask.to(y.dtype).reshape(-1, *[1] * (y.dim() - 2))


def _sum(inputs: list[Tensor], coefs: tuple[float, ...]) -> Tensor:
    factors = coefs or (1.0,) * len(inputs)
    total = inputs[0] if factors[0] == 1.0 else inputs[0] * factors[0]
    for x, factor in zip(inputs[1:], factors[1:]):
        total = torch.add(total, x, alpha=factor)
    return total


__all__ = ["Cut", "Layers", "Network"]
