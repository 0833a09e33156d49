"""Settings of a search and of a training: frozen, complete, without side effects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import torch

from trinas.search import validators as check
from trinas.search.candidates import Budget, require_budget
from trinas.search.cost_term import CostControl
from trinas.search.schedules import Halving, LrSchedule

Sampled = Literal["differences", "straight_through"]
Paths = Literal["exits", "mixture"]


@attrs.frozen(kw_only=True)
class SearchConfig:
    """How to search, in numbers: Algorithm 1 with today's signals; see `trilevel`.

    The rates are those of short searches, in which a few hundred steps decide; the reference
    paper's, for 57,500 steps a phase, are 1e-4 and 3e-4.

    Attributes:
        pretrain_steps: weights only.
        search_steps: weights and architecture in turn, radius growing to its end.
        weight_lr: Adam's learning rate for weights, following `weight_schedule` in each of
            the two phases.
        weight_schedule: share of the phase to factor.
        arch_lr: Adam's learning rate for the architecture parameters.
        arch_betas: Adam's betas for them.
        clip: largest norm of the gradients of the weights (and of the architecture).
        pretrain_passes: what every pretraining step runs, by name (`trinas.search.setting.PASSES`).
        search_passes: what every search step runs. By default some are of a network of the space
            drawn evenly: in mixtures alone options learn to add up, and none to stand by itself,
            as in the end one has to.
        arch_passes: what the architecture looks at in a search step, of mixed options only.
        order: 1, or 2 for the unrolled gradient of DARTS (Eq. 7 there, exact by double
            backward; inner step plain gradient descent with `unroll_lr`).
        unroll_lr: step of the unrolled update; the learning rate of the weights if None.
        sampled: how drawn decisions (widths) learn: ``differences`` of losses, or
            ``straight_through`` as in AGD and the reference paper.
        draws: forward passes a step that differences are taken between.
        paths: how paths and depths learn: from the losses at their ``exits``, which the weights are
            trained for, too, or from the loss of their ``mixture``, as in the reference paper. At
            order 2 it is the mixture in any case.
        deepest: with ``exits``, share of the deepest ones in the loss of the weights, on top of
            their odds; it falls to 0 once paths and depths move.
        wait: with ``exits``, share of the search before which they stand still.
        cost: a cost term, or None.
        order_penalty: weight of the paper's order term on the path logits (loss form).
        prune_after: steps in a row at weight zero after which an option is dropped for good
            (`Supernet.prune`): memory follows the search down. None keeps all: an option
            at zero costs no time as it is, and comes back where the others fall.
        autocast: ``torch.bfloat16`` or ``torch.float16`` for automatic mixed precision, or None.
        seed: of everything the search draws; data that are functions have their own.

    `PUBLISHED` in this module has the signals and passes of the paper.

    Raises:
        ConfigError: a setting is out of its range.

    Source: Trilevel NAS, Algorithm 1 and Appendix A.1.
    """

    pretrain_steps: int = attrs.field(default=0, validator=[check.whole, check.not_negative])
    search_steps: int = attrs.field(default=1000, validator=[check.whole, check.positive])
    weight_lr: float = attrs.field(default=1e-2, validator=check.positive)
    weight_schedule: LrSchedule = attrs.field(default=Halving())
    arch_lr: float = attrs.field(default=2e-2, validator=check.positive)
    arch_betas: tuple[float, float] = attrs.field(default=(0.5, 0.999), validator=check.betas)
    clip: float = attrs.field(default=5.0, validator=check.positive)
    pretrain_passes: tuple[str, ...] = attrs.field(
        default=("widest", "narrowest", "network", "network"), validator=check.passes
    )
    search_passes: tuple[str, ...] = attrs.field(
        default=("sampled", "network"), validator=check.passes
    )
    arch_passes: tuple[str, ...] = attrs.field(
        default=("sampled",), validator=[check.passes, check.mixed_passes]
    )
    order: Literal[1, 2] = attrs.field(default=1, validator=check.one_or_two)
    unroll_lr: float | None = attrs.field(default=None, validator=check.optional(check.positive))
    sampled: Sampled = attrs.field(
        default="differences", validator=check.one_of("differences", "straight_through")
    )
    draws: int = attrs.field(default=4, validator=[check.whole, check.at_least_2])
    paths: Paths = attrs.field(default="exits", validator=check.one_of("exits", "mixture"))
    deepest: float = attrs.field(default=0.5, validator=check.share)
    wait: float = attrs.field(default=0.5, validator=check.below_1)
    cost: CostControl | None = None
    order_penalty: float = attrs.field(default=0.0, validator=check.not_negative)
    prune_after: int | None = attrs.field(
        default=None, validator=check.optional([check.whole, check.positive])
    )
    autocast: torch.dtype | None = attrs.field(default=None, validator=check.autocast)
    seed: int = attrs.field(default=0, validator=[check.whole, check.seed])

    @property
    def total_steps(self) -> int:
        """Steps of both phases together."""
        return self.pretrain_steps + self.search_steps


PUBLISHED: Mapping[str, Any] = {
    "sampled": "straight_through",
    "paths": "mixture",
    "pretrain_passes": ("widest", "narrowest", "random", "random"),
    "search_passes": ("sampled", "widest", "narrowest"),
    "arch_passes": ("sampled", "widest", "narrowest"),
}
"""Settings of a `SearchConfig` with the signals and passes of the reference paper."""


def _budget(owner: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    require_budget(value, at=type(owner).__name__, name=attribute.name)


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
        autocast: ``torch.bfloat16`` or ``torch.float16`` for automatic mixed precision, or None.
        seed: of everything the search draws; data that are functions have their own.

    Raises:
        ConfigError: a setting is out of its range.
    """

    train_steps: int = attrs.field(default=1000, validator=[check.whole, check.not_negative])
    candidates: int = attrs.field(default=100, validator=[check.whole, check.positive])
    weight_lr: float = attrs.field(default=1e-2, validator=check.positive)
    weight_schedule: LrSchedule = attrs.field(default=Halving())
    clip: float = attrs.field(default=5.0, validator=check.positive)
    within: Budget | None = attrs.field(default=None, validator=_budget)
    score_batches: int = attrs.field(default=1, validator=[check.whole, check.positive])
    autocast: torch.dtype | None = attrs.field(default=None, validator=check.autocast)
    seed: int = attrs.field(default=0, validator=[check.whole, check.seed])


@attrs.frozen(kw_only=True)
class TrainConfig:
    """How to train a plain network.

    Attributes:
        steps: how many.
        lr: Adam's learning rate, following `schedule`.
        schedule: share of the steps to factor.
        clip: largest norm of the gradients, or None.
        autocast: ``torch.bfloat16`` or ``torch.float16`` for automatic mixed precision, or None.
        seed: of what layers draw (dropout); data that are functions have their own.

    Raises:
        ConfigError: a setting is out of its range.
    """

    steps: int = attrs.field(validator=[check.whole, check.positive])
    lr: float = attrs.field(default=1e-4, validator=check.positive)
    schedule: LrSchedule = attrs.field(default=Halving())
    clip: float | None = attrs.field(default=5.0, validator=check.optional(check.positive))
    autocast: torch.dtype | None = attrs.field(default=None, validator=check.autocast)
    seed: int = attrs.field(default=0, validator=[check.whole, check.seed])
