"""Estimators of the gradient of a sampled decision, against enumeration."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import estimators as e

ODDS = ([0.7, 0.3], [0.2, 0.5, 0.3], [0.6, 0.1, 0.3])
DRAWS = list(itertools.product(*(range(len(row)) for row in ODDS)))
LIKE = torch.zeros((), dtype=torch.float64)
P = e.flat(ODDS, LIKE)
BLOCKS = e.blocks_of(ODDS, LIKE)
# Losses in which all decisions interact.
LOSS = {
    draw: 2.0 + math.sin(3.0 * i) + draw[0] * draw[1] - 2.0 * draw[1] * (draw[2] == 1)
    for i, draw in enumerate(DRAWS)
}


def odds_of(draw):
    return math.prod(row[k] for row, k in zip(ODDS, draw))


def losses_of(draws):
    return torch.tensor([LOSS[draw] for draw in draws], dtype=torch.float64)


def enumerated():
    """``p_k (E[L | k] - E[L])``, from its definition."""
    mean = sum(odds_of(x) * LOSS[x] for x in DRAWS)
    found = []
    for d, row in enumerate(ODDS):
        for k, p in enumerate(row):
            there = sum(odds_of(x) * LOSS[x] for x in DRAWS if x[d] == k) / p
            found.append(p * (there - mean))
    return torch.tensor(found, dtype=torch.float64)


def test_what_is_enumerated_is_the_gradient_of_the_expected_loss():
    logits = P.log().requires_grad_()
    rows = [part.softmax(0) for part in logits.split([len(row) for row in ODDS])]
    expected = torch.einsum("a,b,c,abc->", *rows, losses_of(DRAWS).view(2, 3, 3))

    (gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(enumerated(), gradient)


def expectation(estimate, n):
    """The mean of an estimate over all ways to draw `n` times, each by its odds."""
    total = torch.zeros_like(P)
    for draws in itertools.product(DRAWS, repeat=n):
        hot = e.one_hot(ODDS, draws, LIKE)
        total += math.prod(map(odds_of, draws)) * estimate(losses_of(draws), hot)
    return total


VALUE = torch.linspace(-1.0, 2.0, len(P), dtype=torch.float64)  # a model far from the truth
UNBIASED = {
    "leave one out": lambda losses, hot: e.leave_one_out(losses, hot, P),
    "earlier baseline": lambda losses, hot: e.reinforce(losses, hot, P, 5.0),
    "with a model": lambda losses, hot: e.with_model(losses, hot, P, VALUE, BLOCKS),
}


@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_over_all_draws_is_the_gradient(name):
    torch.testing.assert_close(expectation(UNBIASED[name], 2), enumerated())


def test_scaling_by_the_losses_of_the_same_draws_is_biased():
    def scaled(losses, hot):
        return e.leave_one_out(losses, hot, P) / losses.mean()

    found, right = expectation(scaled, 2), enumerated()
    assert torch.cosine_similarity(found, right, dim=0) < 0.995


def test_the_candidates_of_one_decision_side_by_side():
    total = torch.zeros(3, dtype=torch.float64)
    for draw in DRAWS:
        losses = losses_of([(draw[0], k, draw[2]) for k in range(3)])
        total += odds_of(draw) * e.conditional(losses, P[2:5])

    torch.testing.assert_close(total, enumerated()[2:5])


def averaged(estimate, draw, n, times=8_000):
    rng = random.Random(0)
    rows = []
    for _ in range(times):
        draws = draw(ODDS, n, rng)
        rows.append(estimate(losses_of(draws), e.one_hot(ODDS, draws, LIKE)))
    rows = torch.stack(rows)
    return rows.mean(0), rows.std(0) / times**0.5


DEPENDENT = {
    "antithetic": (e.antithetic, lambda losses, hot: e.leave_pair_out(losses, hot, P)),
    "stratified": (e.stratified, lambda losses, hot: e.reinforce(losses, hot, P, 2.0)),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_draws_that_depend_on_each_other_with_a_baseline_that_suits_them(name):
    draw, estimate = DEPENDENT[name]
    mean, error = averaged(estimate, draw, 4)

    assert ((mean - enumerated()).abs() < 4.5 * error + 1e-12).all()


def test_stratified_draws_are_biased_where_each_is_the_others_baseline():
    mean, error = averaged(UNBIASED["leave one out"], e.stratified, 4)

    assert ((mean - enumerated()).abs() > 10 * error).any()


@given(
    st.lists(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_stratified_draws_take_every_option_about_as_often_as_its_odds(rows, n, seed):
    odds = [[v / sum(row) for v in row] for row in rows]
    draws = e.stratified(odds, n, random.Random(seed))
    for d, row in enumerate(odds):
        for k, p in enumerate(row):
            assert abs(sum(draw[d] == k for draw in draws) - n * p) < 2.0


@pytest.mark.parametrize("draw", [e.independent, e.antithetic, e.stratified])
def test_every_way_to_draw_has_the_odds(draw):
    rng = random.Random(1)
    hot = torch.cat([e.one_hot(ODDS, draw(ODDS, 4, rng), LIKE) for _ in range(5000)])

    torch.testing.assert_close(hot.mean(0), P, atol=0.02, rtol=0.0)
