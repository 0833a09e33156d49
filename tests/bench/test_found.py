"""A search with its defaults finds what was planted."""

from __future__ import annotations

import pytest

from trinas.bench import METHODS, Allowance, planted

# One of each kind; every task with ten seeds is in docs/results/bench (see test_results).
KINDS = ("operation", "width-norm", "edges-1of3", "pair")


def found(name: str, seed: int) -> tuple[bool, float]:
    """Whether the answer is right, and the least probability on what was chosen."""
    benchmark = planted(name)
    result = METHODS["search"](benchmark, Allowance(), seed)
    return benchmark.accepts(result.genotype), result.facts["confidence"]


@pytest.mark.parametrize("name", KINDS)
def test_the_planted_answer_is_found(name):
    right, confidence = found(name, 2)

    assert right
    assert confidence >= 0.9


def test_options_that_only_mix_do_not_learn_to_stand_alone():
    """What passes of one network are for: without them another operation wins."""
    benchmark = planted("operation")
    answers = [
        benchmark.accepts(METHODS["trilevel"](benchmark, Allowance(), seed).genotype)
        for seed in (2, 3)
    ]

    assert answers == [False, False]
