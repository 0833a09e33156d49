"""A graph as a torch module: the one compiler behind supernets and plain networks.

Legend: N batch, C channels, H W height and width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trinas._core.errors import GraphError, ShapeError
from trinas.graph import Graph
from trinas.space.decision import Option
from trinas.space.values import Var
from trinas.supernet.again import Again
from trinas.supernet.compiled import Compiled
from trinas.supernet.exits import options_to_run
from trinas.supernet.mixture import Mixture
from trinas.supernet.order import Block, Live, Order
from trinas.supernet.plan import Plan
from trinas.supernet.running import Run
from trinas.supernet.widths import JointWidths, Slices


class Layers(nn.Module):
    """Modules by path. A path is no attribute name, so it is looked up as an item."""

    def __getitem__(self, key: str) -> nn.Module:
        return self._modules[_module_name(key)]  # type: ignore[return-value]  # put there by put

    def __contains__(self, key: str) -> bool:
        return _module_name(key) in self._modules

    def put(self, key: str, module: nn.Module) -> None:
        """File a module under a path."""
        self.add_module(_module_name(key), module)

    def all_but(self, keys: Collection[str]) -> list[str]:
        """Names of the other modules."""
        kept = {_module_name(key) for key in keys}
        return [name for name in self._modules if name not in kept]

    def drop_all_but(self, keys: Collection[str]) -> list[nn.Parameter]:
        """Remove the other modules; their parameters are returned."""
        gone = self.all_but(keys)
        parameters = [p for name in gone for p in self.get_submodule(name).parameters()]
        for name in gone:
            delattr(self, name)
        return parameters


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
        widths: the searched widths.
        joint_widths: what the joint settings of the widths come to, for masks.
        skip: whether branches of weight zero are left out (default); results and
            gradients are the same either way (see `Mixture.from_weights`).
        checkpoint: whether backward computes what a choice is made of a second time instead
            of keeping it: memory falls to about one tensor a choice, and a step takes about
            half as long again. Results are the same; off by default.
        compiled: the compiled parts, see `compile`.
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
        self.compiled: Compiled | None = None
        self.plan = Plan(graph)
        self._slices: Slices | None = None
        self.joint_widths = JointWidths()
        self.widths: Sequence[Var] = [
            Var(path, tuple(int(option) for option in decision.options))
            for path, decision in graph.decisions.items()
            if decision.kind == "width"
        ]
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
        x, run = self._begin(x, mixture)
        order = self.plan.order(None if mixture is None else mixture.alive, skip=self.skip)
        blocks = self._blocks(order, run)
        if blocks is not None:
            y = self._by_blocks(*blocks, x)[order.lives[-1].position]
            return run.output(self.plan.last, y)
        values: list[Tensor | None] = [None] * len(self.plan.steps)
        result = x
        # Without decisions there is nothing to join, and compilers cannot look into what is cached.
        for live in order.lives if mixture is None else order.joined:
            result = x if live.step.kind == "input" else run.step(live, values)
            values[live.position] = result
            for position in live.frees:
                values[position] = None
        return run.output(self.plan.last, result)

    def outputs_at_exits(
        self,
        x: Tensor,
        mixture: Mixture,
        path: str,
        *,
        options: Sequence[Option] | None = None,
    ) -> dict[Option, Tensor]:
        """Run the network with one decision at each of its options in turn, the others mixed.

        The exits of a tree, the depths of a repeat: what stands before the decision runs once,
        and what stands behind it once for each option. The outputs are those of one pass an
        option in which the decision is settled there (its weights do not come in), with all
        their gradients. Every tail normalises its own batches; in training, running statistics
        move with each of them.

        Memory: besides what backward needs, the outputs, what several tails read, and the
        inside of one tail at a time.

        Args:
            x: shape (N, *graph.in_shape).
            mixture: how the other decisions stand.
            path: a decision of operations, paths or depths.
            options: of that decision; by default those that have weight, odds or a gradient.

        Returns:
            Tensors of shape (N, *graph.out_shape) by option; the same one for all where no
            option of the decision leads to the output.

        Raises:
            SpaceError: no such decision or option.
            ShapeError: `x` has other channels, or no batch dimension.
            RelaxationError: an option that was dropped for good.

        Source: side outputs of one trunk, as in Deeply-Supervised Nets, Section 2; here for
        ``E[L] = sum_k q_k L_k`` over the exits of Trilevel NAS, Eq. 1.

        >>> import trinas as tn
        >>> space = tn.seq(tn.repeat(tn.conv(3, 3), (1, 2, 3), name="depth"), tn.conv(1, 8))
        >>> net = tn.compile_supernet(tn.lower(space, (3, 16, 16)))
        >>> x, mixture = torch.rand(2, 3, 16, 16), net.mixture()
        >>> outputs = net.network.outputs_at_exits(x, mixture, "depth")
        >>> [(depth, tuple(y.shape)) for depth, y in outputs.items()]
        [(1, (2, 8, 16, 16)), (2, (2, 8, 16, 16)), (3, (2, 8, 16, 16))]
        >>> alone = net(x, at=tn.Genotype.of(net.graph, {"depth": 2}))
        >>> torch.allclose(outputs[2], alone, atol=1e-6)
        True
        """
        chosen = options_to_run(mixture, path, options)
        x, run = self._begin(x, mixture)
        exits = self.plan.exits(path, chosen, mixture.alive, skip=self.skip)
        blocks = self._blocks(exits.order, run)
        if blocks is None:
            values = self._one_by_one(exits.order.joined, run, x)
        else:
            values = self._by_blocks(*blocks, x)
        return {
            option: run.output(self.plan.last, values[position])
            for option, position in exits.outputs.items()
        }

    def _begin(self, x: Tensor, mixture: Mixture | None) -> tuple[Tensor, Run]:
        """The checked input as it lies in memory here, and the pass."""
        # By number: compilers take an empty view of a mapping for true.
        if len(self.graph.decisions) > 0 and mixture is None:
            raise GraphError(
                "a network with open decisions needs a mixture",
                got=f"{len(self.graph.decisions)} decisions",
                fix="Use trinas.compile_supernet, or settle them with trinas.specialise.",
            )
        self._check_input(x)
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return x, Run(self, mixture, x.device)

    def _blocks(
        self, order: Order, run: Run
    ) -> tuple[Sequence[Block], Callable[..., Tensor]] | None:
        """The blocks of a pass and what computes one; None where it goes step by step."""
        if self.checkpoint and torch.is_grad_enabled():
            return order.choices, functools.partial(self._twice, run)
        return None if run.compiled is None else (order.regions, run.block)

    @staticmethod
    def _one_by_one(lives: Sequence[Live], run: Run, x: Tensor) -> dict[int, Tensor]:
        """Run steps; what none of them reads is left."""
        values: dict[int, Tensor] = {}
        for live in lives:
            values[live.position] = x if live.step.kind == "input" else run.step(live, values)
            for position in live.frees:
                del values[position]
        return values

    @staticmethod
    def _by_blocks(
        blocks: Sequence[Block], compute: Callable[..., Tensor], x: Tensor
    ) -> dict[int, Tensor]:
        """The same of blocks."""
        values: dict[int, Tensor] = {}
        for block in blocks:
            last = block.lives[-1]
            if last.step.kind == "input":
                values[last.position] = x
            else:
                values[last.position] = compute(block, *[values[i] for i in block.inputs])
            for position in block.frees:
                del values[position]
        return values

    def _twice(self, run: Run, block: Block, *inputs: Tensor) -> Tensor:
        """A block whose insides are not kept for backward, but computed there once more."""
        if len(block.lives) == 1:
            return run.block(block, *inputs)
        keys = [live.step.key for live in block.lives if live.step.operation is not None]
        modules = [m for key in keys for m in self.layers[key].modules()]
        return checkpoint(
            run.block,
            block,
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), Again(modules)),
        )

    def compile(self, **options: Any) -> None:  # type: ignore[override]  # of parts, not of the whole
        """Compile the static parts with `torch.compile`, each kind of them once.

        The inside of an operation made of several (a residual block, a separable
        convolution) is compiled as one function of its input, its weights and its widths,
        and that function serves all places that are built alike. Decisions stay outside.
        So there are no graph breaks, and a new set of live branches, another path or
        other widths compile nothing new, once each form was met: either side cut or full,
        and both sides equally wide or not.

        Compilation takes place in the first calls; masks (soft widths) run as they are.
        Convolutions are not compiled but called, by torch's kernels (`trinas.ops.opaque`).

        Args:
            options: for `torch.compile`, besides ``dynamic=True`` and ``fullgraph=True``:
                ``mode="reduce-overhead"`` for CUDA graphs, for instance.
        """
        self.compiled = Compiled(options)

    def slices(self, widths: Mapping[str, int], device: torch.device) -> Slices:
        """The cuts at these widths; those of the last pass are kept, as one often follows."""
        slices = self._slices  # once: another thread may put its own there
        if slices is None or not slices.hold_for(widths, device):
            slices = self._slices = Slices(self.widths, widths, device)
        return slices

    def active(self, mixture: Mixture) -> frozenset[str]:
        """The decisions that take part in a pass: what it runs depends on them."""
        return self.plan.order(mixture.alive).decisions

    def gone(self, left: bytes) -> list[str]:
        """Beginnings of the names of all parameters that `keep` would remove."""
        kept = self.plan.runnable(left)
        return [f"layers.{name}." for name in self.layers.all_but(kept)]

    def keep(self, left: bytes) -> list[nn.Parameter]:
        """Remove what can no longer run; see `Supernet.prune`."""
        return self.layers.drop_all_but(self.plan.keep(left))

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
