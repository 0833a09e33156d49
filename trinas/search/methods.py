"""Methods of the literature, as chains."""

from __future__ import annotations

from typing import Literal

from trinas.search import signals
from trinas.search.architecture import architecture
from trinas.search.config import SearchConfig
from trinas.search.optimisers import adam, sgd
from trinas.search.part import Chain, Part, chain
from trinas.search.schedules import CosineDecay
from trinas.search.terms import ordered
from trinas.search.watching import prune
from trinas.search.weights import weights


def trilevel(config: SearchConfig) -> Chain:
    """Algorithm 1 of Trilevel NAS as a chain, with the settings of a config.

    Line by line: `weights` is 5 to 11 and 14 to 16, `architecture` 17 to 23 with the terms
    `expected_cost` (18 to 20) and `ordered` in it; `prune` is ours.

    >>> [type(part).__name__ for part in trilevel(SearchConfig(prune_after=100))]
    ['Weights', 'Architecture', 'Prune']
    """
    second = config.order == 2
    exits = config.paths == "exits" and not second
    first = signals.exits() if exits else signals.gradient()
    drawn = config.sampled == "differences"
    parts: list[Part] = [
        weights(
            adam(config.weight_lr),
            passes=config.search_passes,
            pretrain_passes=config.pretrain_passes,
            schedule=config.weight_schedule,
            clip=config.clip,
            exits=config.deepest if exits else None,
            wait=config.wait if exits else 0.0,
        ),
        architecture(
            adam(config.arch_lr, betas=config.arch_betas),
            signal=signals.unrolled(config.unroll_lr) if second else first,
            sampled=signals.differences(config.draws) if drawn else signals.straight_through(),
            passes=config.arch_passes,
            clip=config.clip,
            wait=config.wait if exits else 0.0,
        ),
    ]
    if config.cost is not None:
        parts.append(config.cost)
    if config.order_penalty:
        parts.append(ordered(config.order_penalty))
    if config.prune_after is not None:
        parts.append(prune(config.prune_after))
    return chain(*parts)


def darts(order: Literal[1, 2] = 2) -> Chain:
    """DARTS with the settings that it was published with, for batches of 64.

    Its supernet mixes operations by softmax and adds all edges, of which the strongest are kept:
    ``compile_supernet(graph, {"operation": trinas.relax.Softmax(), "inputs": "strongest"})``.

    Args:
        order: 2 differentiates through a step of the weights, of their present rate.

    Source: Liu, Simonyan and Yang, *DARTS*, 2019, Section 3.1 and Appendix A.1. The decay of the
    weights in the unrolled step is left out.

    >>> [type(part).__name__ for part in darts()]
    ['Weights', 'Architecture']
    """
    return chain(
        weights(
            sgd(0.025, momentum=0.9, weight_decay=3e-4),
            schedule=CosineDecay(0.04),  # from 0.025 to 0.001
            clip=5.0,
        ),
        architecture(
            adam(3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
            signal=signals.unrolled() if order == 2 else signals.gradient(),
        ),
    )
