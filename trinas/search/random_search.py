"""Random search with weight sharing: the baseline beside every gradient search.

First the weights of a supernet are trained, every step those of one network drawn at random.
Then random networks are scored with these weights, and the best one wins. Nothing is learned
about the architecture, so what a search is worth shows in how far it gets beyond this.

Everything that is drawn is a function of the seed and of the step number, like the data.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import attrs
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from trinas._core.errors import CheckpointError, ConfigError, TrinasError
from trinas.graph import Genotype
from trinas.search import validators as check
from trinas.search.candidates import Budget, draw, find_candidates
from trinas.search.checks import (
    loss_of,
    own_randomness,
    require_finite,
    require_own_weights,
    require_supernet,
    take_batch,
)
from trinas.search.config import (
    Batches,
    Halving,
    Loss,
    LrSchedule,
)
from trinas.search.loading import (
    load_optimiser,
    load_part,
    plain_dtype,
    require_keys,
    require_plan,
    require_step,
)
from trinas.search.stepping import adam, descend, precision, set_rate
from trinas.supernet import Supernet


def _budget(owner: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, Budget):
        raise ConfigError(
            f"{attribute.name} is a Budget or None",
            got=value,
            at=type(owner).__name__,
            fix='Give Budget(limit, "macs") or Budget(limit, "params").',
        )


@attrs.frozen(kw_only=True)
class RandomSearchConfig:
    """How to search at random; weights are trained by default as in `SearchConfig`.

    Attributes:
        train_steps: steps of the shared weights, one random network each. 0 scores with the
            weights the supernet has.
        candidates: how many different networks are scored.
        weight_lr: Adam's learning rate, following `weight_schedule`.
        weight_schedule: share of the training steps to factor.
        clip: largest norm of the gradients.
        within: only networks within this budget are trained and scored; all where None. What
            is over it is drawn again, so a budget that few keep costs a `count` for each try.
        score_batches: batches whose mean loss is the score of a candidate, the same for all.
            They are asked for once and kept.
        autocast: ``torch.bfloat16`` for automatic mixed precision, or None.
        seed: of everything the search draws; data have their own.

    Raises:
        ConfigError: a setting is out of its range.
    """

    train_steps: int = attrs.field(default=1000, validator=[check.whole, check.not_negative])
    candidates: int = attrs.field(default=100, validator=[check.whole, check.positive])
    weight_lr: float = attrs.field(default=1e-4, validator=check.positive)
    weight_schedule: LrSchedule = attrs.field(default=Halving())
    clip: float = attrs.field(default=5.0, validator=check.positive)
    within: Budget | None = attrs.field(default=None, validator=_budget)
    score_batches: int = attrs.field(default=1, validator=[check.whole, check.positive])
    autocast: torch.dtype | None = attrs.field(default=None, validator=check.autocast)
    seed: int = attrs.field(default=0, validator=[check.whole, check.not_negative])


@attrs.frozen(eq=False)
class SampleReport:
    """One finished step of a `RandomSearch`: a network, and its loss.

    The loss stays on the device until it is read, as in `StepReport`.

    Attributes:
        phase: ``train`` or ``score``.
        step: number of the step within the run, from 1.
        total: number of steps of the run.
        genotype: the network that was trained or scored.
        lr: learning rate of the weights; 0 where a network is scored.
    """

    phase: Literal["train", "score"]
    step: int
    total: int
    genotype: Genotype = attrs.field(repr=False)
    lr: float
    _loss: Tensor = attrs.field(repr=False, alias="loss")

    @property
    def loss(self) -> float:
        """Training loss of the step, or the score of the candidate.

        Raises:
            DivergenceError: it is not finite; on the CPU the step itself has raised it.
        """
        require_finite(self._loss, "loss", at=f"{self.phase} step {self.step}", wait=True)
        return float(self._loss)


class RandomSearch:
    """A random search in progress: iterate over it, one report a step.

    *Training.* Each step draws one network and descends on its loss. What the network does
    not use gets no gradient and stays as it is, with what Adam remembers of it. (The kernel
    of a searched width is one parameter, so its other channels follow their old momentum.)

    Networks are drawn as by `trinas.sample`: every decision evenly over its own options.
    An even draw over *networks* is another one where decisions depend on each other: each
    further cell of a tree multiplies the networks behind it, so nearly all networks have
    the longest path, and what only short paths use would hardly be trained.

    *Scoring.* Candidates are different networks drawn the same way; they are known from
    the start and depend on the seed alone. A space of no more networks than
    ``config.candidates`` is enumerated; and where 1000 draws in a row bring nothing new
    within the budget, there are fewer candidates. Each is scored by its mean loss on the
    same batches, in evaluation mode, without gradients.

    Batch normalisation is the exception to evaluation mode: the running statistics of a
    supernet are those of no single network, so a candidate is normalised by the statistics
    of the batch it is scored on, and the running ones stay as they are. So use scoring
    batches that are about as large as those of training, and train what was built with
    ``inherit=net`` before it is used in evaluation mode.

    Args:
        net: the supernet; its weights are trained in place. Its architecture parameters
            and its progress are left alone.
        loss: of prediction and target.
        train: batches for the weights, by step number from 0.
        valid: batches for the scores, asked for 0 to ``score_batches - 1``.
        config: all settings.

    Attributes:
        candidates: the networks that are scored, in this order.
        step: how many steps are done.
        total: steps of training and one for each candidate.

    Raises:
        ConfigError: there is nothing to train, options of the supernet were pruned, or no
            network was found within the budget.

    Source: Li & Talwalkar, arXiv 1902.07638; training by single paths: Guo et al.,
    arXiv 1904.00420.

    >>> import torch, trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 2), b=tn.conv(1, 2), name="slot"), (1, 8, 8))
    >>> net = tn.compile_supernet(graph)
    >>> batch = torch.rand(2, 1, 8, 8), torch.rand(2, 2, 8, 8)
    >>> config = tn.RandomSearchConfig(train_steps=4)
    >>> search = tn.RandomSearch(net, torch.nn.functional.l1_loss, lambda step: batch,
    ...                          lambda step: batch, config)
    >>> print(*(report.phase for report in search))
    train train train train score score
    >>> genotype, score = search.ranking[0]
    >>> search.best == genotype
    True
    """

    def __init__(
        self, net: Supernet, loss: Loss, train: Batches, valid: Batches, config: RandomSearchConfig
    ) -> None:
        _check_parts(net, config)
        self.net = net
        self.loss = loss
        self.train = train
        self.valid = valid
        self.config = config
        self.step = 0
        self.candidates = find_candidates(
            net.graph,
            config.candidates,
            rng=random.Random(f"{config.seed}: candidates"),
            within=config.within,
        )
        self.total = config.train_steps + len(self.candidates)
        self._weights = net.weight_parameters()
        self._device = self._weights[0].device
        self._optimiser = adam(self._weights, config.weight_lr)
        self._score_batches: list[tuple[Tensor, Any]] = []
        self._scores: list[Tensor] = []
        self._normal = _BatchStatistics(net)

    def __iter__(self) -> Iterator[SampleReport]:
        """Do the steps that are left."""
        while self.step < self.total:
            yield self.advance()

    def advance(self) -> SampleReport:
        """Train or score one network, and report it.

        Raises:
            ConfigError: all steps are done, or the network was moved to another device.
            DataError: a batch that is no pair of tensors on the device of the network.
            ShapeError: a target of another shape than the prediction, or a loss that is
                not one number.
            DivergenceError: a loss or a gradient that is not finite; nothing was updated
                with it. On an accelerator a report says so when its loss is read, behind
                the update.
        """
        self._check_readiness()
        training = self.step < self.config.train_steps
        # Whatever an operation may draw in evaluation, it draws the same for all candidates.
        number = min(self.step, self.config.train_steps)
        try:
            with own_randomness(self.config.seed, number, self._device):
                report = self._train() if training else self._score()
        except TrinasError as error:
            error.add_note(f"in {self._place()}")
            raise
        self.step += 1
        return report

    def _check_readiness(self) -> None:
        if self.step >= self.total:
            raise ConfigError(
                "a random search has the steps of its config",
                got=f"a call after all {self.total}",
                fix="Its result is in best and in ranking.",
            )
        require_own_weights(self.net.network, self._weights, self._device, of="RandomSearch")

    def _place(self) -> str:
        phase = "train" if self.step < self.config.train_steps else "score"
        return f"{phase} step {self.step + 1}"

    def _train(self) -> SampleReport:
        """One step of the weights that one random network uses."""
        config = self.config
        lr = config.weight_lr * config.weight_schedule(self.step / config.train_steps)
        set_rate(self._optimiser, lr)
        self.net.train()
        genotype = self._drawn()
        batch = take_batch(self.train, self.step, name="train", device=self._device)
        loss = self._loss_of(genotype, batch)
        # To None, not to zero: Adam passes over what has no gradient.
        self._optimiser.zero_grad(set_to_none=True)
        if loss.requires_grad:  # not where the network learns nothing
            loss.backward()
        unsound = descend(
            self._optimiser,
            self._weights,
            clip=config.clip,
            what="gradient of the weights",
            at=self._place(),
        )
        told = loss.detach() + unsound
        return SampleReport("train", self.step + 1, self.total, genotype, lr, told)

    def _drawn(self) -> Genotype:
        """The network of a training step."""
        rng = random.Random(f"{self.config.seed}: step {self.step}")
        genotype = draw(self.net.graph, rng, within=self.config.within)
        # The budget lets next to nothing through, but the candidates it did.
        return rng.choice(self.candidates) if genotype is None else genotype

    @torch.no_grad()
    def _score(self) -> SampleReport:
        """The mean loss of one candidate."""
        for number in range(len(self._score_batches), self.config.score_batches):
            batch = take_batch(self.valid, number, name="valid", device=self._device)
            self._score_batches.append(batch)
        genotype = self.candidates[self.step - self.config.train_steps]
        self.net.eval()
        with self._normal.in_force():
            losses = [self._loss_of(genotype, batch) for batch in self._score_batches]
        score = torch.stack(losses).mean()
        self._scores.append(score)
        return SampleReport("score", self.step + 1, self.total, genotype, 0.0, score)

    def _loss_of(self, genotype: Genotype, batch: tuple[Tensor, Any]) -> Tensor:
        x, y = batch
        with precision(x, self.config.autocast):
            return loss_of(self.loss, self.net(x, at=genotype), y, at=self._place())

    # -- results -------------------------------------------------------------------------

    @property
    def ranking(self) -> list[tuple[Genotype, float]]:
        """The candidates scored so far with their scores, the least loss first.

        Of equal scores the earlier candidate comes first. All scores are brought to the
        host at once.

        Raises:
            DivergenceError: a score is not finite.
        """
        if not self._scores:
            return []
        scores = torch.stack(self._scores)
        require_finite(scores.abs().max(), "score of every candidate", at="score", wait=True)
        return sorted(zip(self.candidates, scores.tolist()), key=lambda entry: entry[1])

    @property
    def best(self) -> Genotype:
        """The candidate of least loss, of those scored so far.

        Raises:
            ConfigError: none is scored yet.
            DivergenceError: a score is not finite.
        """
        if not self._scores:
            raise ConfigError(
                "the best candidate is known once one is scored",
                got=f"{self.step} of {self.total} steps done",
                fix=f"Scoring begins after {self.config.train_steps} steps; iterate to the end.",
            )
        return self.ranking[0][0]

    # -- checkpoints ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on: tensors and plain values only."""
        return {
            "net": self.net.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
            "scores": torch.stack(self._scores) if self._scores else torch.empty(0),
            "plan": _plan(self.config),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint, with the learning rate of this search's config.

        Raises:
            CheckpointError: it lacks entries, or was saved for another space or for
                settings that draw or score otherwise. Make the search anew then: part of
                the state may be loaded.
        """
        require_keys(state, _KEYS, "random search", of="RandomSearch")
        require_plan(state["plan"], _plan(self.config), "random search", free="rates and clip")
        require_step(state["step"], self.total, "random search")
        scores = state["scores"]
        done = max(0, state["step"] - self.config.train_steps)
        if not isinstance(scores, Tensor) or scores.shape != (done,):
            found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise CheckpointError(
                "a random search has a score for every candidate that it is past",
                got=f"step {state['step']} and scores of {found}",
                at=f"a search of {self.config.train_steps} + {len(self.candidates)} steps",
                fix="Load what RandomSearch.state_dict gave.",
            )
        extra = state["net"].get("_extra_state") if isinstance(state["net"], dict) else None
        if isinstance(extra, dict) and extra.get("pruned"):
            raise CheckpointError(
                "a random search draws from the whole space",
                got=f"a supernet that was pruned at {next(iter(extra['pruned']))}",
                fix="Load what RandomSearch.state_dict gave.",
            )
        load_part(self.net, state["net"], "supernet")
        load_optimiser(self._optimiser, self._weights, state["optimiser"], "optimiser")
        self.step = state["step"]
        self._scores = list(scores.to(self._device).unbind())


_KEYS = ("net", "optimiser", "step", "scores", "plan")


def _check_parts(net: Supernet, config: object) -> None:
    require_supernet(net)
    if not isinstance(config, RandomSearchConfig):
        raise ConfigError("a random search is set up by a RandomSearchConfig", got=config)
    if net.pruned:
        raise ConfigError(
            "a random search draws from the whole space",
            got=f"a supernet without {', '.join(map(str, next(iter(net.pruned.values()))))}",
            at=next(iter(net.pruned)),
            fix="Compile the supernet anew.",
        )


def _plan(config: RandomSearchConfig) -> dict[str, Any]:
    """The settings that decide what is drawn and scored, as plain values."""
    within = config.within
    return {
        "train_steps": config.train_steps,
        "candidates": config.candidates,
        "score_batches": config.score_batches,
        "seed": config.seed,
        "within": None if within is None else [within.limit, within.metric],
        "autocast": plain_dtype(config.autocast),
    }


class _BatchStatistics:
    """Batch normalisation by the batch at hand, without a trace in the running statistics.

    Such layers then work in training mode, on statistics of their own that nobody reads.
    """

    def __init__(self, net: Supernet) -> None:
        self._layers: Sequence[_BatchNorm] = [
            m for m in net.network.modules() if isinstance(m, _BatchNorm)
        ]
        self._spare: list[dict[str, Tensor | None]] = []

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Inside, layers take the statistics of their batch; afterwards all is as before."""
        if not self._spare:
            self._spare = [
                {name: None if b is None else b.clone() for name, b in layer._buffers.items()}
                for layer in self._layers
            ]
        kept = [(dict(layer._buffers), layer.training) for layer in self._layers]
        try:
            for layer, spare in zip(self._layers, self._spare):
                layer._buffers.update(spare)
                layer.training = True
            yield
        finally:
            for layer, (buffers, training) in zip(self._layers, kept):
                layer._buffers.update(buffers)
                layer.training = training
