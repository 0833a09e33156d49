"""The short way into a search: Algorithm 1 of Trilevel NAS, from a config."""

from __future__ import annotations

from trinas._core.errors import ConfigError
from trinas.search.batches import Data
from trinas.search.checks import require_supernet
from trinas.search.config import SearchConfig
from trinas.search.cost_term import CostAtWork, CostControl
from trinas.search.engine import Run
from trinas.search.methods import trilevel
from trinas.search.part import Chain, Part, chain
from trinas.search.report import StepReport, step_report
from trinas.search.running import phases_of, require_valid
from trinas.search.task import Loss, Task
from trinas.supernet import Supernet


class Search(Run[StepReport]):
    """A search in progress: iterate over it, one report a step.

    It is `run` with the method of `trilevel`.

    Args:
        net: the supernet; trained and settled in place.
        loss: of prediction and target.
        train: data of the weights (the first half): a function of the step, or a loader.
        valid: data of the architecture (the other half).
        config: all settings.
        watch: further parts, such as `average` or a `term` of one's own.

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
        self,
        net: Supernet,
        loss: Loss,
        train: Data,
        valid: Data,
        config: SearchConfig,
        *,
        watch: Part | Chain | None = None,
    ) -> None:
        self.net = require_supernet(net)
        if not isinstance(config, SearchConfig):
            raise ConfigError("a search is set up by a SearchConfig", got=config)
        require_valid(valid, at="search")
        self.config = config
        self.train = train
        self.valid = valid
        method = trilevel(config)
        super().__init__(
            method if watch is None else chain(method, watch),
            Task(net, loss, autocast=config.autocast),
            phases_of(config.search_steps, config.pretrain_steps),
            train=train,
            valid=valid,
            seed=config.seed,
            report=step_report,
            what="search",
        )

    @property
    def cost_weight(self) -> float:
        """The weight of the cost term at present; 0 without one."""
        cost = self._cost
        return 0.0 if cost is None else cost.weight

    @cost_weight.setter
    def cost_weight(self, value: float) -> None:
        if self._cost is None:
            raise ConfigError("the weight is that of a cost term", got=value, at="a search of none")
        self._cost.weight = value

    @property
    def _cost(self) -> CostAtWork | None:
        return self.part(CostControl) if self.config.cost is not None else None
