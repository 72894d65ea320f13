"""Intervals against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.statistics import mean_and_standard_error, mean_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 1), (1, 1), (0, 30), (30, 30), (18, 30), (7040, 8000), (12_087, 12_630), (1, 10**6)]
)
def test_wilson_equals_scipys(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_stays_within_0_and_1_and_around_the_share() -> None:
    for trials in range(1, 60):
        for successes in range(trials + 1):
            low, high = wilson_interval(successes, trials)
            assert 0 <= low <= successes / trials + 1e-12
            assert successes / trials - 1e-12 <= high <= 1


@pytest.mark.parametrize("values", [[0.9, 0.91], [0.5, 0.7, 0.6], [1.0, 1.0, 1.0], [1e9, 1e9 + 1, 1e9 + 2]])
def test_mean_interval_is_students(values: list[float]) -> None:
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    error = stats.sem(values)
    expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error) if error else (mean, mean)
    assert (low, high) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("values", [[0.9, 0.91], [0.8427, 0.85, 0.8633, 0.84], [1.0] * 10, [1e9, 1e9 + 1, 1e9 + 2]])
def test_mean_and_standard_error_are_scipys(values: list[float]) -> None:
    assert mean_and_standard_error(values) == pytest.approx((np.mean(values), stats.sem(values)), rel=1e-12)


def test_mean_and_standard_error_by_hand() -> None:
    # Deviations -1, 0, 1: a variance of 1 over three values.
    assert mean_and_standard_error([2.0, 3.0, 4.0]) == pytest.approx((3.0, 3**-0.5))
