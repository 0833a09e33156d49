"""Student's intervals against SciPy, and what a paired comparison says."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trinas.bench.statistics import beats, distribution, interval, quantile

numbers = st.floats(-100, 100, allow_subnormal=False)


@given(st.floats(0, 50), st.integers(1, 40))
def test_the_distribution_is_students(t, freedom):
    assert distribution(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), abs=1e-12)


@pytest.mark.parametrize("freedom", [1, 2, 5, 9, 30])
def test_the_quantile_is_students(freedom):
    assert quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = stats.norm.rvs(loc=3.0, size=(2000, 5), random_state=0).tolist()
    covered = [(i := interval(row)).low <= 3.0 <= i.high for row in draws]

    assert sum(covered) / len(covered) == pytest.approx(0.95, abs=0.015)


def test_one_value_says_nothing_about_its_spread():
    assert interval([2.0]) == (2.0, math.inf)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20))
def test_two_methods_beat_each_other_once_altogether(pairs):
    mine, theirs = zip(*pairs)

    assert beats(mine, theirs) + beats(theirs, mine) == pytest.approx(1.0)
    assert beats(mine, mine) == 0.5
