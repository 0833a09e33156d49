"""Schedules: their ends, their middle, what they refuse, and that they are plain values."""

import itertools
import math
import pickle

import attrs
import pytest

from trinas._core.errors import RelaxationError
from trinas.relax import Constant, Cosine, Exponential, Linear
from trinas.relax.schedule import as_schedule

MOVING = [Linear(0.1, 0.9), Linear(0.1, 0.9, warmup=0.3), Exponential(0.1, 0.9), Cosine(0.1, 0.9)]


@pytest.mark.parametrize("rule", MOVING, ids=str)
def test_starts_at_start_ends_at_end_and_never_turns_back(rule):
    values = [rule(i / 100) for i in range(101)]

    assert (values[0], values[-1]) == (0.1, 0.9)
    assert all(a <= b for a, b in itertools.pairwise(values))
    falling = attrs.evolve(rule, start=0.9, end=0.1)
    assert falling(0.4) == pytest.approx(
        0.9**0.6 * 0.1**0.4 if isinstance(rule, Exponential) else 1.0 - rule(0.4)
    )


def test_the_shapes_between_the_ends():
    assert Linear(2.0, 4.0)(0.25) == 2.5
    assert Linear(2.0, 4.0, warmup=0.5)(0.5) == 2.0
    assert Linear(2.0, 4.0, warmup=0.5)(0.75) == 3.0
    assert Exponential(8.0, 2.0)(0.5) == pytest.approx(4.0)
    assert Cosine(1.0, 0.0)(1 / 3) == pytest.approx(0.75)
    assert Constant(0.3)(0.0) == Constant(0.3)(1.0) == 0.3


def test_schedules_are_values():
    for rule in [*MOVING, Constant(1.0)]:
        assert pickle.loads(pickle.dumps(rule)) == rule
        assert hash(rule) == hash(attrs.evolve(rule))
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            rule.start = 0.0


def test_a_number_stands_for_a_constant():
    rule = Linear(0.0, 1.0)

    assert as_schedule(0.5) == Constant(0.5)
    assert as_schedule(rule) is rule
    assert as_schedule(lambda progress: progress**2)(0.5) == 0.25


@pytest.mark.parametrize("rule", [*MOVING, Constant(1.0)], ids=str)
@pytest.mark.parametrize("progress", [-0.01, 1.01, math.nan])
def test_progress_is_a_share(rule, progress):
    with pytest.raises(RelaxationError, match="progress is the share of the search that is done"):
        rule(progress)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Linear(math.nan, 1.0), "finite numbers; got nan; at Linear(start=...)"),
        (lambda: Linear(0.0, math.inf), "finite numbers; got inf; at Linear(end=...)"),
        (lambda: Constant(math.inf), "finite numbers; got inf; at Constant(value=...)"),
        (lambda: Cosine(0.0, math.nan), "got nan; at Cosine(end=...)"),
        (lambda: Linear(0, 1, warmup=1.0), "below 1; got 1.0; at Linear(warmup=...)"),
        (lambda: Linear(0, 1, warmup=-0.1), "got -0.1; at Linear(warmup=...)"),
        (lambda: Exponential(0.0, 1.0), "positive numbers; got 0.0; at Exponential(start=...)"),
        (lambda: Exponential(1.0, -1.0), "got -1.0; at Exponential(end=...). Use Linear"),
    ],
)
def test_settings_that_are_none_are_refused(make, text):
    with pytest.raises(RelaxationError) as error:
        make()

    assert text in str(error.value)
