"""Random search with weight sharing: the baseline beside every gradient search.

First the weights of a supernet are trained, every step those of one network drawn at random.
Then random networks are scored with these weights, and the best one wins. Nothing is learned
about the architecture, so what a search is worth shows in how far it gets beyond this.

Everything that is drawn is a function of the seed and of the step number, like the data.
"""

from __future__ import annotations

import random
from typing import Any, Literal

from trinas._core.errors import CheckpointError, ConfigError
from trinas.graph import Genotype
from trinas.search.batches import Data
from trinas.search.candidates import find_candidates
from trinas.search.checks import require_supernet
from trinas.search.config import RandomSearchConfig
from trinas.search.engine import Run
from trinas.search.optimisers import adam
from trinas.search.part import chain
from trinas.search.phase import Phase
from trinas.search.report import SampleReport
from trinas.search.scoring import DrawNetwork, Score, ScoreAtWork
from trinas.search.step import Step
from trinas.search.task import Loss, Task
from trinas.search.weights import weights
from trinas.supernet import Supernet


class RandomSearch(Run[SampleReport]):
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
        train: data of the weights: a function of the step from 0, or a loader.
        valid: data of the scores; a function is asked for 0 to ``score_batches - 1``.
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

    what_next = "Its result is in best and in ranking."

    def __init__(
        self, net: Supernet, loss: Loss, train: Data, valid: Data, config: RandomSearchConfig
    ) -> None:
        _check_parts(net, config)
        self.net = net
        self.config = config
        self.train = train
        self.valid = valid
        self.candidates = find_candidates(
            net.graph,
            config.candidates,
            rng=random.Random(f"{config.seed}: candidates"),
            within=config.within,
        )
        method = chain(
            DrawNetwork(config.within, self.candidates),
            weights(
                adam(config.weight_lr),
                passes=("sampled",),
                schedule=config.weight_schedule,
                clip=config.clip,
            ),
            Score(self.candidates, valid, config.score_batches, config.seed),
        )
        super().__init__(
            method,
            Task(net, loss, autocast=config.autocast),
            (Phase("train", config.train_steps), Phase("score", len(self.candidates), alike=True)),
            train=train,
            valid=None,
            seed=config.seed,
            report=_report,
            what="random search",
        )

    @property
    def _scores(self) -> ScoreAtWork:
        return self.part(Score)

    @property
    def ranking(self) -> list[tuple[Genotype, float]]:
        """The candidates scored so far with their scores, the least loss first.

        Of equal scores the earlier candidate comes first. All scores are brought to the
        host at once.

        Raises:
            DivergenceError: a score is not finite.
        """
        return self._scores.ranking()

    @property
    def best(self) -> Genotype:
        """The candidate of least loss, of those scored so far.

        Raises:
            ConfigError: none is scored yet.
            DivergenceError: a score is not finite.
        """
        if not self._scores.scores:
            raise ConfigError(
                "the best candidate is known once one is scored",
                got=f"{self.step} of {self.total} steps done",
                fix=f"Scoring begins after {self.config.train_steps} steps; iterate to the end.",
            )
        return self.ranking[0][0]

    def plan(self) -> dict[str, Any]:
        """The settings that decide what is drawn and scored, as plain values."""
        config, within = self.config, self.config.within
        return {
            "candidates": config.candidates,
            "score_batches": config.score_batches,
            "within": None if within is None else [within.limit, within.metric, within.at_least],
            **super().plan(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint, with the learning rate of this search's config.

        Raises:
            CheckpointError: it lacks entries, or was saved for another space or for
                settings that draw or score otherwise.
        """
        model = state.get("model") if isinstance(state, dict) else None
        extra = model.get("_extra_state") if isinstance(model, dict) else None
        if isinstance(extra, dict) and extra.get("pruned"):
            raise CheckpointError(
                "a random search draws from the whole space",
                got=f"a supernet that was pruned at {next(iter(extra['pruned']))}",
                fix="Load what RandomSearch.state_dict gave.",
            )
        self._require_scores(state)
        super().load_state_dict(state)

    def _require_scores(self, state: Any) -> None:
        """Check that there is a score for every candidate that is past."""
        try:
            scores, step = state["parts"]["Score"]["memory"]["scores"], state["step"]
            found = tuple(scores.shape)
        except (KeyError, TypeError, AttributeError):
            return  # what is missing is told apart by what every run checks
        done = max(0, step - self.config.train_steps) if isinstance(step, int) else 0
        if found != (done,):
            raise CheckpointError(
                "a random search has a score for every candidate that it is past",
                got=f"step {step} and scores of {found}",
                at=f"a search of {self.config.train_steps} + {len(self.candidates)} steps",
                fix="Load what RandomSearch.state_dict gave.",
            )


def _report(step: Step, done: int, total: int) -> SampleReport:
    facts = step.facts
    phase: Literal["train", "score"] = "score" if step.phase == "score" else "train"
    return SampleReport(phase, done, total, facts["genotype"], facts.get("lr", 0.0), facts["loss"])


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
