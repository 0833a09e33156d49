"""Algorithm 1 of Trilevel NAS: pretrain, then weights and architecture in turn.

A `Search` is an iterator. It does one step, yields a frozen report, and does nothing else:
no printing, no files. Its whole state is in `state_dict`, and data are a function of the
step number, so N steps, a checkpoint and M steps are the same as N + M steps.

Where it departs from Algorithm 1: the gradients of all width passes of a step are summed
into one update of the weights (the listing writes one update for each in pretraining).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trinas._core.errors import CheckpointError, ConfigError, TrinasError
from trinas.relax import order_penalty
from trinas.search.checks import (
    loss_of,
    own_randomness,
    require_own_weights,
    require_supernet,
    take_batch,
)
from trinas.search.config import Batches, Loss, SearchConfig
from trinas.search.cost_term import CostTerm
from trinas.search.loading import (
    as_lists,
    load_optimiser,
    load_part,
    plain_dtype,
    python_random_state,
    require_keys,
    require_plan,
    require_random_state,
    require_step,
)
from trinas.search.patience import Patience
from trinas.search.report import StepReport, spreads
from trinas.search.stepping import adam, descend, forget, precision, set_rate
from trinas.supernet import Mixture, Supernet, Widths

Batch: TypeAlias = tuple[Tensor, Any]


class Search:
    """A search in progress: iterate over it, one report a step.

    Args:
        net: the supernet; trained and settled in place.
        loss: of prediction and target.
        train: batches for the weights, by step number (the first half of the data).
        valid: batches for the architecture (the other half).
        config: all settings.

    Raises:
        ConfigError: there is nothing to train.

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
        require_supernet(net)
        if not isinstance(config, SearchConfig):
            raise ConfigError("a search is set up by a SearchConfig", got=config)
        self.net = net
        self.loss = loss
        self.train = train
        self.valid = valid
        self.config = config
        self.step = 0
        self.cost_weight = config.cost.weight if config.cost else 0.0
        self._weights = net.weight_parameters()
        self._arch = list(net.arch_parameters().values())
        self._device = self._weights[0].device
        self._weight_optimiser = adam(self._weights, config.weight_lr)
        # Without architecture parameters (a space of one network) there is nothing to
        # optimise, and Adam refuses an empty list.
        self._arch_optimiser = adam(
            self._arch or [torch.zeros(1, requires_grad=True)], config.arch_lr, config.arch_betas
        )
        self._generator = torch.Generator(self._device).manual_seed(config.seed)
        self._rng = random.Random(config.seed)
        self._patience: Patience | None = None
        if config.prune_after is not None:
            self._patience = Patience(net, config.prune_after)
        self._cost: CostTerm | None = None
        if config.cost is not None:
            self._cost = CostTerm(net.graph, config.cost, self._device)

    def __iter__(self) -> Iterator[StepReport]:
        """Do the steps that are left."""
        while self.step < self.config.total_steps:
            yield self.advance()

    def advance(self) -> StepReport:
        """Do one step of Algorithm 1 and report it.

        Raises:
            ConfigError: all steps are done, or the network was moved to another device.
            DataError: a batch that is no pair of tensors on the device of the network.
            ShapeError: a target of another shape than the prediction, or a loss that is
                not one number.
            DivergenceError: a loss or a gradient that is not finite; nothing was updated
                with it. On an accelerator a report says so when its loss is read, behind
                the update.
            RelaxationError: logits that are not finite.
        """
        self._check_readiness()
        pretraining = self.step < self.config.pretrain_steps
        try:
            with own_randomness(self.config.seed, self.step, self._device):
                report = self._pretrain() if pretraining else self._search()
        except TrinasError as error:
            error.add_note(f"in {self._place()}")
            raise
        return report

    def _check_readiness(self) -> None:
        if self.step >= self.config.total_steps:
            raise ConfigError(
                "a search has the steps of its config",
                got=f"a call after all {self.config.total_steps}",
                fix="Make a Search of more steps, or go on with Training.",
            )
        require_own_weights(self.net.network, self._weights, self._device, of="Search")

    def _place(self) -> str:
        phase = "pretrain" if self.step < self.config.pretrain_steps else "search"
        return f"{phase} step {self.step + 1}"

    def _pretrain(self) -> StepReport:
        """Lines 5 to 11: the weights alone, as the space starts."""
        config = self.config
        lr = self._begin_step(self.step / config.pretrain_steps, progress=0.0)
        with torch.no_grad():
            mixture = self.net.mixture(generator=self._generator)
        batch = self._batch(self.train, "train")
        loss = self._update_weights(batch, mixture, config.pretrain_passes)
        self.step += 1
        return StepReport(
            phase="pretrain",
            step=self.step,
            total=config.total_steps,
            progress=self.net.progress,
            lr=lr,
            cost_weight=self.cost_weight,
            loss=loss,
        )

    def _search(self) -> StepReport:
        """Lines 13 to 24: the weights on one half of the data, then the architecture."""
        config = self.config
        done = (self.step - config.pretrain_steps) / config.search_steps
        lr = self._begin_step(done, progress=done)
        # The logits stand still until the end of the step, so one relaxation, and one
        # transfer to the host, serves both halves of it.
        mixture = self.net.mixture(generator=self._generator)
        batch = self._batch(self.train, "train")
        loss = self._update_weights(batch, mixture.detached(), config.search_passes)
        arch_loss = cost = None
        spread = {}
        if self._arch:
            arch_loss, cost = self._update_architecture(batch, mixture, lr)
            spread = spreads(self.net.graph, mixture.odds_by_path())
        self._prune(mixture)
        self.step += 1
        if self.step == config.total_steps:
            self.net.progress = 1.0
            spread = spreads(self.net.graph, self.net.odds()) if self._arch else {}
        self._control_cost()
        return StepReport(
            phase="search",
            step=self.step,
            total=config.total_steps,
            progress=self.net.progress,
            lr=lr,
            cost_weight=self.cost_weight,
            spread=spread,
            loss=loss,
            arch_loss=arch_loss,
            cost=cost,
        )

    def _begin_step(self, share: float, *, progress: float) -> float:
        lr = self.config.weight_lr * self.config.weight_schedule(share)
        set_rate(self._weight_optimiser, lr)
        self.net.train()
        self.net.progress = progress
        return lr

    def _batch(self, batches: Batches, name: str) -> Batch:
        return take_batch(batches, self.step, name=name, device=self._device)

    # -- one half of a step: the weights -------------------------------------------------

    def _update_weights(self, batch: Batch, mixture: Mixture, passes: tuple[Widths, ...]) -> Tensor:
        """Lines 7 to 9 and 14 to 16: descend on the loss summed over the passes."""
        self._weight_optimiser.zero_grad(set_to_none=True)
        losses = [
            self._backward(batch, mixture.with_widths(widths, rng=self._rng), widths)
            for widths in passes
        ]
        unsound = descend(
            self._weight_optimiser,
            self._weights,
            clip=self.config.clip,
            what="gradient of the weights",
            at=self._place(),
        )
        return torch.stack(losses).sum() + unsound

    def _backward(
        self, batch: Batch, mixture: Mixture, widths: str, inputs: list[Tensor] | None = None
    ) -> Tensor:
        """One pass, forward and backward, after which nothing of its graph is left.

        So the memory of a step is that of its largest pass, not of their sum.
        """
        x, y = batch
        with precision(x, self.config.autocast):
            at = f"{self._place()}, {widths} widths"
            loss = loss_of(self.loss, self.net(x, at=mixture), y, at=at)
        if loss.requires_grad:  # not where all that is alive learns nothing
            loss.backward(inputs=inputs)
        return loss.detach()

    # -- the other half: the architecture ------------------------------------------------

    def _update_architecture(
        self, batch: Batch, mixture: Mixture, lr: float
    ) -> tuple[Tensor, Tensor | None]:
        """Lines 17 to 23: descend on the other half of the data, plus the cost term.

        All three gradients are taken at the same point, then all parameters move.
        """
        config = self.config
        valid = self._batch(self.valid, "valid")
        leaf = mixture.leaf()
        passes = [(leaf.with_widths(w, rng=self._rng), w) for w in config.search_passes]
        if config.order == 2:
            rate = lr if config.unroll_lr is None else config.unroll_lr
            loss = self.unrolled_loss(batch, valid, [settled for settled, _ in passes], rate)
        else:
            # Only the architecture is asked for: gradients of the weights would be computed
            # for nothing.
            losses = [self._backward(valid, m, w, inputs=[leaf.weights]) for m, w in passes]
            loss = torch.stack(losses).sum()

        self._arch_optimiser.zero_grad(set_to_none=True)
        outer = (mixture.weights * _or_zero(leaf.weights.grad, leaf.weights)).sum()
        cost = None
        if self._cost is not None:
            cost = self._cost(mixture)
            outer = outer + self.cost_weight * cost
        if config.order_penalty:
            outer = outer + config.order_penalty * self._order_term()
        outer.backward()
        unsound = descend(
            self._arch_optimiser,
            self._arch,
            clip=config.clip,
            what="gradient of the architecture",
            at=self._place(),
        )
        return loss + unsound, None if cost is None else cost.detach()

    def unrolled_loss(
        self, train: Batch, valid: Batch, passes: Sequence[Mixture], rate: float
    ) -> Tensor:
        """The loss after one weight step, differentiated through that step (DARTS, Eq. 7).

        The weights stay as they are; the gradient is added to that of ``passes[0].weights``.
        It is exact (double backward), so that the graphs of all passes are in memory at once.

        Args:
            train: batch of the inner step.
            valid: batch of the loss.
            passes: mixtures with the same `Mixture.leaf` and different widths.
            rate: size of the inner step.
        """

        def loss_at(weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
            x, y = batch
            losses = []
            for mixture in passes:
                with precision(x, self.config.autocast):
                    y_hat = functional_call(self.net.network, dict(weights), (x, mixture))
                    losses.append(loss_of(self.loss, y_hat, y, at=self._place()))
            return torch.stack(losses).sum()

        weights = {n: p for n, p in self.net.network.named_parameters() if p.requires_grad}
        inner = torch.autograd.grad(
            loss_at(weights, train), list(weights.values()), create_graph=True, allow_unused=True
        )
        moved = {
            name: w if g is None else w - rate * g for (name, w), g in zip(weights.items(), inner)
        }
        loss = loss_at(moved, valid)
        loss.backward(inputs=[passes[0].weights])
        return loss.detach()

    def _order_term(self) -> Tensor:
        """The paper's order term: path logits are pushed to descend along each path."""
        total = torch.zeros((), device=self._device)
        for group in self.net.architecture.groups:
            if any(parent >= 0 for parent in group.order):
                logits = self.net.architecture.get_parameter(group.name)
                total = total + order_penalty(logits, group.order).sum()
        return total

    def _prune(self, mixture: Mixture) -> None:
        """Drop what has had no weight for long enough, from network and optimiser."""
        if self._patience is None:
            return
        options = self._patience.exhausted(mixture.host, self.net.pruned)
        if options:
            self._forget(self.net.prune(options))

    def _forget(self, parameters: Sequence[nn.Parameter]) -> None:
        forget(self._weight_optimiser, parameters)
        self._weights = self.net.weight_parameters()

    def _control_cost(self) -> None:
        """Double or halve the weight of the cost when the derived network leaves its band."""
        control = self.config.cost
        if self._cost is None or control is None or not control.every:
            return
        if (self.step - self.config.pretrain_steps) % control.every == 0:
            self.cost_weight = self._cost.adjust(self.cost_weight, self.net.derive())

    # -- checkpoints ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on: tensors and plain values only."""
        return {
            "net": self.net.state_dict(),
            "weight_optimiser": self._weight_optimiser.state_dict(),
            "arch_optimiser": self._arch_optimiser.state_dict(),
            "step": self.step,
            "cost_weight": None if self._cost is None else self.cost_weight,
            "generator": self._generator.get_state(),
            "rng": as_lists(self._rng.getstate()),
            "idle": [] if self._patience is None else list(self._patience.counts),
            "plan": _plan(self.config, self.net),
            "device": self._device.type,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint, with the learning rates of this search's config.

        The weight of the cost is the one saved, which `CostControl` had been adjusting.

        Raises:
            CheckpointError: it lacks entries, or was saved for another space, under other
                steps, passes, order, relaxations, seed or precision, or on another kind of
                device. Make the search anew then: part of the state may be loaded.
        """
        require_keys(state, _KEYS, "search", of="Search")
        require_plan(
            state["plan"],
            _plan(self.config, self.net),
            "search",
            free="rates, schedule, clip, cost, order penalty and prune_after",
        )
        if state["device"] != self._device.type:
            raise CheckpointError(
                "a search resumes on the kind of device that its random numbers came from",
                got=f"a checkpoint from {state['device']}",
                at=f"a search on {self._device}",
                fix="Move the network before its Search is made.",
            )
        require_step(state["step"], self.config.total_steps, "search")
        require_random_state(state["generator"], self._generator)
        rng = python_random_state(state["rng"])
        self._check_rest(state)
        load_part(self.net, state["net"], "supernet")
        kept = {id(p) for p in self.net.weight_parameters()}
        self._forget([p for p in self._weights if id(p) not in kept])
        load_optimiser(
            self._weight_optimiser,
            self._weights,
            state["weight_optimiser"],
            "optimiser of the weights",
        )
        load_optimiser(
            self._arch_optimiser,
            self._arch_optimiser.param_groups[0]["params"],
            state["arch_optimiser"],
            "optimiser of the architecture",
        )
        # The settings of the config hold, not those of the run that saved.
        for group in self._arch_optimiser.param_groups:
            group.update(lr=self.config.arch_lr, betas=self.config.arch_betas)
        if self._patience is not None and state["idle"]:
            self._patience.counts = list(state["idle"])
        self.step = state["step"]
        if self._cost is not None and state["cost_weight"] is not None:
            self.cost_weight = state["cost_weight"]
        self._generator.set_state(state["generator"].cpu())
        self._rng.setstate(rng)

    def _check_rest(self, state: dict[str, Any]) -> None:
        weight, idle = state["cost_weight"], state["idle"]
        if weight is not None and (not isinstance(weight, int | float) or not weight >= 0):
            raise CheckpointError(
                "the weight of the cost in a checkpoint is a number from 0 on", got=repr(weight)
            )
        known = isinstance(idle, list) and all(isinstance(count, int) for count in idle)
        if not known or len(idle) not in (0, self.net.graph.slots):
            raise CheckpointError(
                "a checkpoint counts idle steps for every option, or for none",
                got=repr(idle)[:80],
                at=f"a space of {self.net.graph.slots} options",
            )


_KEYS = (
    "net",
    "weight_optimiser",
    "arch_optimiser",
    "step",
    "cost_weight",
    "generator",
    "rng",
    "idle",
    "plan",
    "device",
)


def _plan(config: SearchConfig, net: Supernet) -> dict[str, Any]:
    """The settings that decide what steps there are and what they draw, as plain values."""
    return {
        "relaxations": {
            kind: type(relaxation).__name__ for kind, relaxation in net.architecture.relax.items()
        },
        "pretrain_steps": config.pretrain_steps,
        "search_steps": config.search_steps,
        "pretrain_passes": list(config.pretrain_passes),
        "search_passes": list(config.search_passes),
        "order": config.order,
        "seed": config.seed,
        "autocast": plain_dtype(config.autocast),
    }


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient.detach()
