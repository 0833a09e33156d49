"""A graph as a torch module: the one compiler behind supernets and plain networks.

Legend: N batch, C channels, H W height and width.
"""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trinas._core.errors import GraphError, ShapeError
from trinas.graph import Graph
from trinas.ops import Operation
from trinas.space.values import Symbol, Value, Var
from trinas.supernet.again import Again
from trinas.supernet.mixing import weighted_sum
from trinas.supernet.mixture import Mixture
from trinas.supernet.plan import Block, Live, Order, Plan, Step
from trinas.supernet.widths import JointWidths, Masks, Slices

Values: TypeAlias = Mapping[int, Tensor | None] | Sequence[Tensor | None]


class Layers(nn.Module):
    """Modules by path. A path is no attribute name, so it is looked up as an item."""

    def __getitem__(self, key: str) -> nn.Module:
        return self._modules[_module_name(key)]  # type: ignore[return-value]  # put there by put

    def __contains__(self, key: str) -> bool:
        return _module_name(key) in self._modules

    def put(self, key: str, module: nn.Module) -> None:
        """File a module under a path."""
        self.add_module(_module_name(key), module)

    def drop_all_but(self, keys: Collection[str]) -> list[nn.Parameter]:
        """Remove the other modules; their parameters are returned."""
        kept = {_module_name(key) for key in keys}
        gone = [name for name in self._modules if name not in kept]
        parameters = [p for name in gone for p in self.get_submodule(name).parameters()]
        for name in gone:
            delattr(self, name)
        return parameters


@functools.cache
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
        plan: the order of work.
        joint_widths: what the joint settings of the widths come to, for masks.
        skip: whether branches of weight zero are left out (default); results and
            gradients are the same either way (see `Mixture.from_weights`).
        checkpoint: whether backward computes what a choice is made of a second time instead
            of keeping it: memory falls to about one tensor a choice, and a step takes about
            a third longer. Results are the same; off by default.
        channels_last: whether feature maps lie in memory channels last (default), as the
            kernels for convolutions, pooling and normalisation like them best. Set it
            before parameters are used elsewhere; `to(memory_format=...)` moves those.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.layers = Layers()
        self.skip = True
        self.checkpoint = False
        self.channels_last = True
        self.plan = Plan(graph)
        self.joint_widths = JointWidths()
        for step in self.plan.steps:
            if step.operation is not None and step.key not in self.layers:
                self.layers.put(step.key, step.operation.build(step.x, step.y))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # documented

    def forward(self, x: Tensor, mixture: Mixture | None = None) -> Tensor:
        """Run the network.

        Args:
            x: shape (N, *graph.in_shape); where only convolutions and the like meet it,
                any height and width that the strides divide.
            mixture: how the decisions stand; needed exactly where the graph has some.

        Returns:
            Tensor of shape (N, *graph.out_shape).

        Raises:
            GraphError: decisions are open and there is no mixture.
            ShapeError: `x` has other channels, or no batch dimension.
        """
        if self.graph.decisions and mixture is None:
            raise GraphError(
                "a network with open decisions needs a mixture",
                got=f"{len(self.graph.decisions)} decisions",
                fix="Use trinas.compile_supernet, or settle them with trinas.specialise.",
            )
        self._check_input(x)
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        run = _Run(self, mixture, x.device)
        order = self.plan.order(None if mixture is None else mixture.alive, skip=self.skip)
        if self.checkpoint and torch.is_grad_enabled():
            return self._by_blocks(run, order, x)
        values: list[Tensor | None] = [None] * len(self.plan.steps)
        result = x
        for live in order.lives:
            result = x if live.step.kind == "input" else run.step(live, values)
            values[live.position] = result
            for position in live.frees:
                values[position] = None
        return result

    def keep(self, left: bytes) -> list[nn.Parameter]:
        """Remove what can no longer run; see `Supernet.prune`."""
        return self.layers.drop_all_but(self.plan.keep(left))

    def _by_blocks(self, run: _Run, order: Order, x: Tensor) -> Tensor:
        """The same, with mixtures computed a second time where backward comes to them."""
        values: list[Tensor | None] = [None] * len(self.plan.steps)
        result = x
        for block in order.blocks:
            *before, last = block.lives
            if before:
                inputs = [_there(values[i]) for i in block.inputs]
                result = checkpoint(
                    run.block,
                    block,
                    *inputs,
                    use_reentrant=False,
                    context_fn=functools.partial(self._once, block),
                )
            else:
                result = x if last.step.kind == "input" else run.step(last, values)
            values[last.position] = result
            for position in block.frees:
                values[position] = None
        return result

    def _once(self, block: Block) -> tuple[nullcontext[None], Again]:
        """Contexts of the first computation and of those after it."""
        keys = [live.step.key for live in block.lives if live.step.operation is not None]
        return nullcontext(), Again([m for key in keys for m in self.layers[key].modules()])

    def _check_input(self, x: Tensor) -> None:
        expected = self.graph.in_shape.numbers()
        if x.dim() != 1 + len(expected) or x.shape[1] != expected[0]:
            raise ShapeError(
                "an input has a batch dimension and the channels the graph was lowered for",
                got=f"shape {tuple(x.shape)}",
                at=f"a network for (N, {', '.join(map(str, expected))})",
                fix="Lower the space for the inputs it gets.",
            )

    def extra_repr(self) -> str:
        """The shapes that go in and out."""
        return f"{self.graph.in_shape} -> {self.graph.out_shape}"


def _there(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


class _Run:
    """One forward pass."""

    def __init__(self, network: Network, mixture: Mixture | None, device: torch.device) -> None:
        self._layers = network.layers
        self._mixture = mixture
        self._cuts: Slices | Masks | None = None
        self._masks: Masks | None = None
        if mixture is None:
            return
        if mixture.widths is None:
            self._cuts = self._masks = Masks(network.graph, mixture, network.joint_widths)
        else:
            widths: dict[Symbol, Value] = {
                Var(path, _numbers(network.graph, path)): count
                for path, count in mixture.widths.items()
            }
            self._cuts = Slices(widths, device)

    @functools.cached_property
    def _weights(self) -> Sequence[Tensor]:
        """The weights one by one: taken apart in one go, so that backward joins them in one."""
        assert self._mixture is not None
        return self._mixture.weights.unbind(0)

    def block(self, block: Block, *inputs: Tensor) -> Tensor:
        """The result of the last step of a block; nothing is kept from other blocks."""
        run = self
        if self._masks is not None and self._mixture is not None:
            # Masks made in here would belong to this block's part of the graph alone.
            run = copy.copy(self)
            run._cuts = run._masks = self._masks.afresh()
        values: dict[int, Tensor | None] = dict(zip(block.inputs, inputs))
        for live in block.lives:
            values[live.position] = run.step(live, values)
        return _there(values[block.lives[-1].position])

    def step(self, live: Live, values: Values) -> Tensor:
        """The result of one step."""
        try:
            return self._step(live, [_there(values[i]) for i in live.inputs])
        except Exception as error:
            place = f", declared at {live.step.declared}" if live.step.declared else ""
            error.add_note(f"while running node {live.step.node}{place}")
            raise

    def _step(self, live: Live, inputs: list[Tensor]) -> Tensor:
        kind = live.step.kind
        if kind == "op":
            return self._op(live.step, inputs[0])
        if kind == "mix":
            return self._mix(live, inputs)
        if kind == "concat":
            return torch.cat(inputs, dim=1)
        if kind == "product":
            return functools.reduce(operator.mul, inputs)
        if kind == "keep" and self._mixture is not None:
            return _sum(inputs, tuple(self._mixture.host[slot] for slot in live.slots))
        return _sum(inputs, live.coefs)

    def _op(self, step: Step, x: Tensor) -> Tensor:
        module, operation = self._layers[step.key], step.operation
        if operation is None or not step.searched or self._cuts is None:
            return module(x)
        y = operation.run(module, x, self._cuts.cut(step))
        if self._masks is not None:
            return self._masked(step, operation, self._masks, y)
        return self._scored(step, y) if step.makes else y

    @staticmethod
    def _masked(step: Step, operation: Operation, masks: Masks, y: Tensor) -> Tensor:
        if not step.makes and operation.keeps_zero:
            return y
        mask = masks.channels(step)
        # Only what sets its own width is weighted by it; the rest is kept clean of what
        # a bias or a sigmoid puts into channels that are not there.
        mask = mask if step.makes else (mask != 0).to(mask)
        return y * mask.to(y.dtype).reshape(-1, *[1] * (y.dim() - 2))

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
        # What does not take part is here because nothing is skipped; its gradient is that
        # of what is.
        weights = [
            self._weights[slot] if mixture.alive[slot] else self._weights[slot].detach()
            for slot in live.slots
        ]
        return weighted_sum(weights, inputs)


def _numbers(graph: Graph, path: str) -> tuple[int, ...]:
    return tuple(int(option) for option in graph.decisions[path].options)


def _sum(inputs: list[Tensor], coefs: tuple[float, ...]) -> Tensor:
    factors = coefs or (1.0,) * len(inputs)
    total = inputs[0] if factors[0] == 1.0 else inputs[0] * factors[0]
    for x, factor in zip(inputs[1:], factors[1:]):
        total = torch.add(total, x, alpha=factor)
    return total
