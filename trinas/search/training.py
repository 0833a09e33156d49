"""Training of a network: from the weights of a search, or from scratch."""

from __future__ import annotations

from torch import nn

from trinas._core.errors import ConfigError
from trinas.search.batches import Data
from trinas.search.config import TrainConfig
from trinas.search.engine import Run
from trinas.search.optimisers import OptimiserLike, adam
from trinas.search.part import Chain, Part, chain
from trinas.search.phase import Phase
from trinas.search.report import StepReport, step_report
from trinas.search.task import Loss, Task
from trinas.search.weights import weights


class Training(Run[StepReport]):
    """A training in progress: iterate over it, one report a step.

    Whether it is *from search* or *from scratch* is a matter of the model: build it with
    ``inherit=net``, or without (Trilevel NAS, Section 5.1).

    Args:
        model: any module, trained in place. What is frozen in it (parameters, normalisation in
            evaluation mode) stays frozen.
        loss: of prediction and target.
        train: a function of the step, or a loader.
        config: all settings.
        optimiser: instead of Adam; the rate of the config is then not used.
        watch: further parts, such as `average`.

    Raises:
        ConfigError: there is nothing to train.

    >>> import torch, trinas as tn
    >>> model = tn.build(tn.lower(tn.conv(3, 1), (1, 8, 8)))
    >>> batch = torch.rand(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    >>> losses = [r.loss for r in tn.Training(model, torch.nn.functional.l1_loss,
    ...           lambda step: batch, tn.TrainConfig(steps=20, lr=0.01))]
    >>> losses[-1] < losses[0]
    True
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        train: Data,
        config: TrainConfig,
        *,
        optimiser: OptimiserLike | None = None,
        watch: Part | Chain | None = None,
    ) -> None:
        if not isinstance(config, TrainConfig):
            raise ConfigError("a training is set up by a TrainConfig", got=config)
        self.model = model
        self.config = config
        self.train = train
        rule = adam(config.lr) if optimiser is None else optimiser
        part = weights(rule, passes=("sampled",), schedule=config.schedule, clip=config.clip)
        super().__init__(
            chain(part) if watch is None else chain(part, watch),
            Task(model, loss, autocast=config.autocast),
            (Phase("train", config.steps),),
            train=train,
            valid=None,
            seed=config.seed,
            report=step_report,
            what="training",
        )
