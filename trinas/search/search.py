"""Algorithm 1 of Trilevel NAS: pretrain, then weights and architecture in turn.

A `Search` is an iterator. It does one step, yields a frozen report, and does nothing else:
no printing, no files. Its whole state is in `state_dict`, and data are a function of the
step number, so N steps, a checkpoint and M steps are the same as N + M steps.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trinas._core.errors import CheckpointError
from trinas.cost import ExpectedCost, count
from trinas.relax import order_penalty
from trinas.search.config import Batches, Loss, SearchConfig
from trinas.search.report import StepReport, spreads, uniform_structure
from trinas.supernet import Mixture, Supernet, Widths


class Search:
    """A search in progress: iterate over it, one report a step.

    Args:
        net: the supernet; trained and settled in place.
        loss: of prediction and target.
        train: batches for the weights, by step number (the first half of the data).
        valid: batches for the architecture (the other half).
        config: all settings.

    >>> import torch, trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 2), b=tn.conv(1, 2), name="slot"), (1, 8, 8))
    >>> net = tn.compile_supernet(graph)
    >>> batch = torch.rand(2, 1, 8, 8), torch.rand(2, 2, 8, 8)
    >>> search = tn.Search(net, torch.nn.functional.l1_loss, lambda step: batch,
    ...                    lambda step: batch, tn.SearchConfig(search_steps=3))
    >>> for report in search:
    ...     assert report.loss > 0
    >>> sorted(net.weights()["slot"])
    [0.0, 1.0]
    """

    def __init__(
        self, net: Supernet, loss: Loss, train: Batches, valid: Batches, config: SearchConfig
    ) -> None:
        self.net = net
        self.loss = loss
        self.train = train
        self.valid = valid
        self.config = config
        self.step = 0
        self.cost_weight = config.cost.weight if config.cost else 0.0
        self._weights = net.weight_parameters()
        self._arch = list(net.arch_parameters().values())
        self._weight_optimiser = torch.optim.Adam(self._weights, lr=config.weight_lr)
        # Without architecture parameters (a space of one network) there is nothing to
        # optimise, and Adam refuses an empty list.
        self._arch_optimiser = torch.optim.Adam(
            self._arch or [torch.zeros(1, requires_grad=True)],
            lr=config.arch_lr,
            betas=config.arch_betas,
        )
        device = next(iter(self._arch + self._weights)).device
        self._generator = torch.Generator(device).manual_seed(config.seed)
        self._rng = random.Random(config.seed)
        self._cost = self._cost_terms(device)

    def __iter__(self) -> Iterator[StepReport]:
        """Do the steps that are left."""
        while self.step < self.config.total_steps:
            yield self.advance()

    def advance(self) -> StepReport:
        """Do one step of Algorithm 1 and report it."""
        config, net = self.config, self.net
        pretraining = self.step < config.pretrain_steps
        done = self.step if pretraining else self.step - config.pretrain_steps
        length = config.pretrain_steps if pretraining else config.search_steps
        lr = config.weight_lr * config.weight_schedule(done / length)
        for group in self._weight_optimiser.param_groups:
            group["lr"] = lr

        net.train()
        net.progress = 0.0 if pretraining else done / config.search_steps
        passes = config.pretrain_passes if pretraining else config.search_passes
        x, y = self.train(self.step)
        loss = self._update_weights(x, y, passes)

        arch_loss = cost = None
        spread = {}
        if not pretraining and self._arch:
            arch_loss, cost, mixture = self._update_architecture(lr, x, y)
            spread = spreads(mixture)
        self.step += 1
        if self.step == config.total_steps:
            net.progress = 1.0
        self._control_cost()
        return StepReport(
            phase="pretrain" if pretraining else "search",
            step=self.step,
            total=config.total_steps,
            progress=net.progress,
            lr=lr,
            cost_weight=self.cost_weight,
            spread=spread,
            loss=loss,
            arch_loss=arch_loss,
            cost=cost,
        )

    # -- one half of a step: the weights -------------------------------------------------

    def _update_weights(self, x: Tensor, y: Tensor, passes: tuple[Widths, ...]) -> Tensor:
        """Lines 7 to 9 and 14 to 16: descend on the loss summed over the passes."""
        with torch.no_grad():
            mixture = self.net.mixture(generator=self._generator)
        self._weight_optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=x.device)
        for widths in passes:
            # One backward a pass: memory is that of the largest pass, not of their sum.
            loss = self._loss(x, y, mixture.with_widths(widths, rng=self._rng))
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(self._weights, self.config.clip)
        self._weight_optimiser.step()
        return total

    def _loss(self, x: Tensor, y: Tensor, mixture: Mixture) -> Tensor:
        with self._autocast(x):
            return self.loss(self.net(x, at=mixture), y)

    def _autocast(self, x: Tensor) -> torch.autocast:
        dtype = self.config.autocast
        return torch.autocast(x.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    # -- the other half: the architecture ------------------------------------------------

    def _update_architecture(
        self, lr: float, x_train: Tensor, y_train: Tensor
    ) -> tuple[Tensor, Tensor | None, Mixture]:
        """Lines 17 to 23: descend on the other half of the data, plus the cost term."""
        config = self.config
        x, y = self.valid(self.step)
        mixture = self.net.mixture(generator=self._generator)
        leaf = mixture.leaf()
        passes = [leaf.with_widths(w, rng=self._rng) for w in config.search_passes]
        if config.order == 2:
            rate = lr if config.unroll_lr is None else config.unroll_lr
            loss = self._unrolled_loss((x_train, y_train), (x, y), passes, rate)
        else:
            loss = torch.zeros((), device=x.device)
            for settled in passes:
                # Only the architecture is asked for: gradients of the weights would be
                # computed for nothing.
                part = self._loss(x, y, settled)
                part.backward(inputs=[leaf.weights])
                loss += part.detach()

        self._arch_optimiser.zero_grad(set_to_none=True)
        outer = (mixture.weights * _or_zero(leaf.weights.grad, leaf.weights)).sum()
        cost = self._cost_term(mixture)
        if cost is not None:
            outer = outer + self.cost_weight * cost
        outer = outer + self._order_term()
        outer.backward()
        nn.utils.clip_grad_norm_(self._arch, config.clip)
        self._arch_optimiser.step()
        return loss, None if cost is None else cost.detach(), mixture

    def _unrolled_loss(
        self,
        train: tuple[Tensor, Tensor],
        valid: tuple[Tensor, Tensor],
        passes: list[Mixture],
        rate: float,
    ) -> Tensor:
        """The loss after one weight step, differentiated through that step (DARTS, Eq. 7)."""
        names = [name for name, _ in self.net.network.named_parameters()]

        def loss_at(weights: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            with self._autocast(x):
                parts = [
                    self.loss(functional_call(self.net.network, dict(weights), (x, m)), y)
                    for m in passes
                ]
            return torch.stack(parts).sum()

        weights = dict(zip(names, self._weights))
        inner = torch.autograd.grad(
            loss_at(weights, *train), self._weights, create_graph=True, allow_unused=True
        )
        moved = {
            name: w if g is None else w - rate * g for (name, w), g in zip(weights.items(), inner)
        }
        loss = loss_at(moved, *valid)
        loss.backward(inputs=[passes[0].weights])
        return loss.detach()

    def _order_term(self) -> Tensor:
        """The paper's order term: path logits are pushed to descend along each path."""
        total = torch.zeros((), device=self._arch[0].device)
        if self.config.order_penalty:
            for group in self.net.architecture.groups:
                if any(parent >= 0 for parent in group.order):
                    logits = self.net.architecture.get_parameter(group.name)
                    total = total + order_penalty(logits, group.order).sum()
        return self.config.order_penalty * total

    # -- cost ----------------------------------------------------------------------------

    def _cost_terms(self, device: torch.device) -> tuple[ExpectedCost, list[Any]] | None:
        control = self.config.cost
        if control is None:
            return None
        expected = ExpectedCost(self.net.graph, control.metric, target=control.target).to(device)
        shares = (control.share_structure, 1 - control.share_structure)
        parts = []
        for share, structure in zip(shares, (True, False)):
            values, held = uniform_structure(self.net.graph, structure=structure)
            parts.append(
                (share, torch.tensor(held, device=device), torch.tensor(values, device=device))
            )
        return expected, parts

    def _cost_term(self, mixture: Mixture) -> Tensor | None:
        """Expected cost over target: structure and widths apart, the other side held."""
        if self._cost is None:
            return None
        expected, parts = self._cost
        total = torch.zeros((), device=mixture.odds.device)
        for share, held, values in parts:
            total = total + share * expected(torch.where(held, values, mixture.odds))
        return total

    def _control_cost(self) -> None:
        """Double or halve the weight of the cost when the derived network leaves its band."""
        control = self.config.cost
        if control is None or not control.every or self.step <= self.config.pretrain_steps:
            return
        if (self.step - self.config.pretrain_steps) % control.every:
            return
        genotype = self.net.derive()
        derived = getattr(count(self.net.graph, genotype), control.metric) / control.target
        if derived > control.band[1]:
            self.cost_weight *= 2
        elif derived < control.band[0]:
            self.cost_weight /= 2

    # -- checkpoints ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on: tensors and plain values only."""
        return {
            "net": self.net.state_dict(),
            "weight_optimiser": self._weight_optimiser.state_dict(),
            "arch_optimiser": self._arch_optimiser.state_dict(),
            "step": self.step,
            "cost_weight": self.cost_weight,
            "generator": self._generator.get_state(),
            "rng": _plain(self._rng.getstate()),
            "total_steps": self.config.total_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: it was saved for another space, or another number of steps.
        """
        if state["total_steps"] != self.config.total_steps:
            raise CheckpointError(
                "a search resumes with the number of steps it was planned for",
                got=f"{state['total_steps']} steps",
                at=f"a config of {self.config.total_steps} steps",
                fix="The radius follows the share of steps done; use the same config.",
            )
        self.net.load_state_dict(state["net"])
        self._weight_optimiser.load_state_dict(state["weight_optimiser"])
        self._arch_optimiser.load_state_dict(state["arch_optimiser"])
        self.step = state["step"]
        self.cost_weight = state["cost_weight"]
        self._generator.set_state(state["generator"].cpu())
        self._rng.setstate(_tuples(state["rng"]))


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient.detach()


def _plain(value: Any) -> Any:
    """Tuples as lists, so that a checkpoint loads with ``weights_only=True``."""
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
