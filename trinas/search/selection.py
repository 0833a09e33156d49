"""Which network a search ends in: likely ones, ranked by their losses, within a budget."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
from torch import nn

from trinas._core.errors import ConfigError
from trinas.graph import Genotype, settle
from trinas.search.batches import Data
from trinas.search.candidates import DRAWS, Budget, require_budget
from trinas.search.checks import require_finite, require_whole
from trinas.search.scoring import mean_loss
from trinas.search.stream import Stream
from trinas.search.task import Loss, Task
from trinas.space.decision import Decision, Picked
from trinas.supernet import Supernet


def likely(
    net: Supernet,
    count: int,
    *,
    within: Budget | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> tuple[Genotype, ...]:
    """Different networks that a search thinks likely: the derived one, and others drawn.

    Every decision is drawn with the softmax of its logits over the temperature. So there is a
    choice where one network was derived, and where that one is not within a budget.

    Args:
        net: a supernet at the end of its search.
        count: how many; there are fewer where 1000 draws in a row bring nothing new.
        within: only networks within this budget.
        temperature: above 0; the higher, the further away.
        seed: of the draws.

    Raises:
        ConfigError: `count` or `temperature` is out of range, or none was found in the budget.

    >>> import trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.conv(3, 8), b=tn.conv(1, 8), name="slot"), (3, 16, 16))
    >>> net = tn.compile_supernet(graph, seed=0)
    >>> likely(net, 5, within=tn.Budget(100, "params"))
    (Genotype(slot='b'),)
    """
    require_whole(count, "a count of networks", least=1, at="likely")
    _require(net, within, at="likely")
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise ConfigError("a temperature is a positive, finite number", got=temperature)
    rng = random.Random(seed)
    logits = net.architecture.logits_by_path()

    def pick(decision: Decision) -> Picked:
        return _drawn(decision, logits.get(decision.path), temperature, rng)

    found: dict[Genotype, None] = {}
    in_vain = 0
    genotype = net.derive()
    while len(found) < count and in_vain < DRAWS:
        if genotype not in found and (within is None or within.allows(genotype)):
            found[genotype] = None
            in_vain = 0
        else:
            in_vain += 1
        genotype = Genotype.of(net.graph, settle(net.graph, pick))
    if not found:
        raise ConfigError(
            "some likely network is within the budget",
            got=f"none among {DRAWS}",
            at=None if within is None else str(within),
            fix="Raise the limit, ask for less, or search with an expected cost.",
        )
    return tuple(found)


def _require(net: object, within: object, *, at: str) -> None:
    if not isinstance(net, Supernet):
        raise ConfigError("networks are chosen by a supernet", got=f"a {type(net).__name__}", at=at)
    require_budget(within, at=at)


def _drawn(
    decision: Decision, logits: Sequence[float] | None, temperature: float, rng: random.Random
) -> Picked:
    """An outcome, by the largest noisy logits (Gumbel, top k)."""
    rows = [0.0] * len(decision.options) if logits is None else logits
    noisy = {
        option: logit / temperature - math.log(rng.expovariate(1.0) + 1e-300)
        for option, logit in zip(decision.options, rows)
    }
    ranked = sorted(decision.derivable, key=lambda option: -noisy[option])
    if decision.kind == "inputs":
        return tuple(sorted(int(option) for option in ranked[: decision.keep]))
    return ranked[0]


def rank(
    net: Supernet,
    loss: Loss,
    data: Data,
    candidates: Sequence[Genotype],
    *,
    batches: int = 1,
    within: Budget | None = None,
    model: nn.Module | None = None,
) -> list[tuple[Genotype, float]]:
    """Networks by their loss with the weights of a supernet, the best first.

    So that a result can be selected: of the networks that a search thinks likely, of those that a
    budget allows. Normalisation is by the batches at hand, see `recalibrate` for a network by
    itself.

    Args:
        net: the supernet.
        loss: of prediction and target.
        data: of the scores: a function of the number of the batch from 0, or a loader.
        candidates: the networks.
        batches: how many batches, the same for all.
        within: only these; all where None.
        model: what contains the supernet; itself where None.

    Raises:
        ConfigError: no candidate is within the budget.
        DivergenceError: a loss is not finite.

    >>> import torch, trinas as tn
    >>> graph = tn.lower(tn.choice(a=tn.relu(), b=tn.seq(tn.conv(3, 1)), name="slot"), (1, 4, 4))
    >>> net = tn.compile_supernet(graph)
    >>> x = torch.rand(2, 1, 4, 4)
    >>> ranked = tn.rank(net, torch.nn.functional.l1_loss, lambda number: (x, x),
    ...                  list(tn.enumerate_genotypes(graph)))
    >>> ranked[0]
    (Genotype(slot='a'), 0.0)
    """
    _require(net, within, at="rank")
    require_whole(batches, "a count of batches", least=1, at="rank")
    if model is not None and all(inside is not net for inside in model.modules()):
        raise ConfigError(
            "a supernet is ranked in a model that contains it",
            got=f"a {type(model).__name__} without it",
            at="rank",
            fix="Give the module that the supernet is a part of, or leave model out.",
        )
    for candidate in candidates:
        if not isinstance(candidate, Genotype):
            raise ConfigError(
                "candidates are genotypes",
                got=repr(candidate)[:60],
                at="rank",
                fix="Give some, as trinas.likely or trinas.enumerate_genotypes do.",
            )
    allowed = [g for g in candidates if within is None or within.allows(g)]
    if not allowed:
        raise ConfigError(
            "some candidate is within the budget",
            got=f"none of {len(candidates)}",
            at="rank" if within is None else f"rank, {within}",
            fix="Raise the limit, ask for less, or give more candidates.",
        )
    task = Task(net if model is None else model, loss)
    stream = Stream(data, name="data", seed=0, device=task.device)
    kept = []
    for number in range(batches):
        kept.append(stream.take(number))
        stream.done()
    modes = [(layer, layer.training) for layer in task.model.modules()]
    try:
        scores = [mean_loss(task, net, genotype, kept, at="rank") for genotype in allowed]
    finally:
        for layer, training in modes:
            layer.training = training
    values = torch.stack(scores)
    require_finite(values.abs().max(), "loss of every candidate", at="rank", wait=True)
    return sorted(zip(allowed, values.tolist()), key=lambda entry: entry[1])
