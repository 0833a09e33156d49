"""The genotype that a mixture is closest to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trinas.graph import Genotype, settle
from trinas.space.decision import Decision, Picked
from trinas.supernet.inputs import KeptInputs
from trinas.supernet.mixture import Mixture


def leading(
    mixture: Mixture, logits: Mapping[str, Sequence[float]], kept_inputs: KeptInputs
) -> Genotype:
    """The genotype of the likeliest options; equal odds fall to the larger logit, then the first.

    Args:
        mixture: without noise.
        logits: by decision.
        kept_inputs: how inputs are ranked.
    """
    weights, odds = mixture.by_path(), mixture.odds_by_path()

    def pick(decision: Decision) -> Picked:
        if decision.kind == "inputs":
            if mixture.learned_inputs:
                return kept_inputs.heaviest(decision.path, weights, logits, odds)
            return kept_inputs.strongest(decision.path, odds)
        ranked = zip(odds[decision.path], logits[decision.path], decision.options)
        best = max(
            (entry for entry in ranked if entry[2] in decision.derivable),
            key=lambda entry: entry[:2],
        )
        return best[2]

    return Genotype.of(mixture.graph, settle(mixture.graph, pick))
