"""What a run works on: a model, the supernets in it, a loss, and the precision of a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from trinas._core.errors import ConfigError
from trinas.search.batches import Batch
from trinas.search.checks import loss_of
from trinas.search.loading import load_part
from trinas.search.precision import precision
from trinas.search.setting import Pass, Setting
from trinas.supernet import Supernet

Loss: TypeAlias = Callable[[Any, Any], Tensor]
"""Prediction and target to a tensor of no dimensions."""


class Task:
    """A model and its loss.

    The model may be a supernet, a plain network, or any module with supernets somewhere in it.
    Layers that are in evaluation mode when the task is made, in a model that is not, and
    normalisations whose parameters are all frozen stay in evaluation mode while it is trained.

    Args:
        model: trained in place.
        loss: of prediction and target.
        autocast: ``torch.bfloat16`` or ``torch.float16`` for automatic mixed precision; losses
            are scaled in float16 (`torch.amp.GradScaler`).

    Attributes:
        nets: the supernets in the model, by their names there.
        weights: parameters that are trained and are no architecture parameters, by name.
        arch: architecture parameters, by name.

    Raises:
        ConfigError: `model` is no module, or one without weights to train.

    >>> import trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 4), b=tn.conv(1, 4), name="slot"), (1, 8, 8))
    >>> model = nn.Sequential(tn.compile_supernet(graph), nn.Flatten(), nn.Linear(256, 10))
    >>> task = Task(model, nn.functional.cross_entropy)
    >>> list(task.nets), list(task.arch), "2.bias" in task.weights
    (['0'], ['0.architecture.alpha_2'], True)
    """

    def __init__(
        self, model: nn.Module, loss: Loss, *, autocast: torch.dtype | None = None
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ConfigError(
                "a run works on a module",
                got=f"a {type(model).__name__}",
                fix="Make a supernet with trinas.compile_supernet(graph).",
            )
        self.model = model
        self.loss = loss
        self.autocast = autocast
        self.nets: dict[str, Supernet] = {
            name: part for name, part in model.named_modules() if isinstance(part, Supernet)
        }
        ids = {id(p) for net in self.nets.values() for p in net.arch_parameters().values()}
        named = list(model.named_parameters())
        self.arch = {name: p for name, p in named if id(p) in ids and p.requires_grad}
        self._arch_ids = ids
        self.weights = self._trained(named)
        if not self.weights:
            raise ConfigError(
                "there are weights to train",
                got=f"{type(model).__name__} without any",
                fix="Put a layer that learns into it, or thaw one.",
            )
        if not callable(loss):
            raise ConfigError("a loss is a function of prediction and target", got=repr(loss)[:80])
        first = next(iter(self.weights.values()))
        if any(is_lazy(p) for p in self.weights.values()):
            raise ConfigError(
                "a model has its sizes before it is trained",
                got="a lazy layer that saw no batch",
                fix="Run it once on a batch.",
            )
        if first.is_inference():
            raise ConfigError(
                "weights can be trained",
                got="parameters made under torch.inference_mode",
                fix="Make the model outside of it.",
            )
        self.device = first.device
        self.scaler: torch.amp.GradScaler | None = None
        if autocast is torch.float16:
            self.scaler = torch.amp.GradScaler(self.device.type)
        self._frozen = frozen_layers(model)

    def _trained(self, named: Iterable[tuple[str, nn.Parameter]]) -> dict[str, nn.Parameter]:
        return {n: p for n, p in named if id(p) not in self._arch_ids and p.requires_grad}

    def refresh(self) -> None:
        """Take notice of what was removed from the model."""
        self.weights = self._trained(self.model.named_parameters())

    def load(self, state: Mapping[str, Any]) -> None:
        """Load a state of the model; what was pruned where it was saved is pruned here first.

        Raises:
            CheckpointError: it does not fit.
        """
        if isinstance(state, dict):
            for name, net in self.nets.items():
                own = f"{name}." if name else ""
                part = {k[len(own) :]: v for k, v in state.items() if k.startswith(own)}
                load_part(net, part, "supernet")
        if "" not in self.nets:
            load_part(self.model, state, "model")
        self.refresh()

    def stand(self) -> tuple[list[Any], dict[str, Any] | None]:
        """How supernets and scaler stand between two steps, for `set_back`."""
        nets = [(net, net.progress, net._held) for net in self.nets.values()]
        return nets, None if self.scaler is None else self.scaler.state_dict()

    def set_back(self, stood: tuple[list[Any], dict[str, Any] | None]) -> None:
        """Let them stand as they did."""
        for net, progress, held in stood[0]:
            net.progress, net._held = progress, held
        if stood[1] is not None:  # a new one: half a step is nothing that a scaler forgets
            self.scaler = torch.amp.GradScaler(self.device.type)
            self.scaler.load_state_dict(stood[1])

    def require_unmoved(self) -> None:
        """Check that the model still has its parameters, on their device.

        Raises:
            ConfigError: they are others, or elsewhere.
        """
        name, own = next(iter(self.weights.items()))
        try:
            found: Tensor | None = self.model.get_parameter(name)
        except AttributeError:
            found = None
        if found is not own or own.device != self.device:
            raise ConfigError(
                "a run keeps the parameters it was made with, on their device",
                got=f"others, on {own.device if found is None else found.device}",
                at=f"a run on {self.device}",
                fix="Move or change the network before its run is made.",
            )

    def train_mode(self) -> None:
        """Put the model into training mode, but for what is frozen."""
        self.model.train()
        self.freeze()

    def freeze(self) -> None:
        """Put what is frozen into evaluation mode."""
        for layer in self._frozen:
            layer.eval()

    def draw(self, generator: torch.Generator | None = None) -> Setting:
        """One relaxation of all supernets, differentiable."""
        nets = tuple(self.nets.values())
        return Setting(nets, tuple(net.mixture(generator=generator) for net in nets))

    def loss_at(self, batch: Batch, setting: Setting, *, at: str) -> Tensor:
        """The loss of a batch, checked.

        Args:
            batch: input and target.
            setting: how the decisions stand.
            at: phase and step, for messages.

        Raises:
            ShapeError: see `trinas.search.checks.loss_of`.
            DivergenceError: the same.
            DataError: the same.
        """
        return self._loss(lambda x: self.model(x), batch, setting, at)

    def loss_with(
        self, weights: Mapping[str, Tensor], batch: Batch, setting: Setting, *, at: str
    ) -> Tensor:
        """The same with other weights in place of the model's, by name."""
        return self._loss(
            lambda x: functional_call(self.model, dict(weights), (x,)), batch, setting, at
        )

    def _loss(
        self, predict: Callable[[Any], Any], batch: Batch, setting: Setting, at: str
    ) -> Tensor:
        x, y = batch
        with setting.held(), precision(self.device, self.autocast):
            return loss_of(self.loss, predict(x), y, at=at)

    def descend(
        self, batch: Batch, one: Pass, *, at: str, inputs: Sequence[Tensor] | None = None
    ) -> Tensor:
        """One pass, forward and backward; its loss, as often as the pass counts.

        Nothing of its graph is left, so the memory of a step is that of its largest pass, not of
        their sum.

        Args:
            batch: input and target.
            one: how the decisions stand, and how often it counts.
            at: phase and step, for messages.
            inputs: what gradients are added to; all weights where None.
        """
        loss = self.loss_at(batch, one.setting, at=f"{at}, {one.name}" if one.name else at)
        return self.backward(loss if one.times == 1 else one.times * loss, inputs)

    def backward(self, loss: Tensor, inputs: Sequence[Tensor] | None = None) -> Tensor:
        """Backward of a loss (scaled, where float16 needs it); the loss without its graph."""
        if loss.requires_grad:  # not where all that is alive learns nothing
            scaled = loss if self.scaler is None else self.scaler.scale(loss)
            scaled.backward(inputs=inputs)
        return loss.detach()


def frozen_layers(model: nn.Module) -> list[nn.Module]:
    """What stays in evaluation mode: layers put there, and normalisations with frozen weights."""
    frozen = []
    for layer in model.modules():
        own = list(layer.parameters(recurse=False))
        fixed = isinstance(layer, _NormBase) and bool(own) and not any(p.requires_grad for p in own)
        if fixed or (model.training and not layer.training):
            frozen.append(layer)
    return frozen
