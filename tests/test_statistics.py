"""Intervals against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.statistics import (
    holm,
    mcnemar,
    mean_and_standard_error,
    mean_interval,
    paired_difference_interval,
    wilson_interval,
)


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


@pytest.mark.parametrize(("gained", "lost"), [(0, 1), (1, 0), (12, 2), (0, 7), (100, 130), (3, 3), (900, 1000)])
def test_mcnemar_is_scipys_exact_binomial_test(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost, 0.5).pvalue
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_models_that_never_differ_and_of_large_numbers() -> None:
    assert mcnemar(0, 0) == 1.0
    assert 0 <= mcnemar(0, 20_000) < 1e-300


@pytest.mark.parametrize(("gained", "lost", "trials"), [(12, 2, 50), (0, 3, 180), (5, 0, 30), (150, 86, 1600)])
def test_paired_interval_ends_where_the_score_test_rejects(gained: int, lost: int, trials: int) -> None:
    for difference in paired_difference_interval(gained, lost, trials):
        # The likeliest share of lost samples under this difference, by search instead of by formula.
        shares = np.linspace(max(0.0, -difference), (1 - difference) / 2, 400_001)[1:-1]
        likelihood = gained * np.log(np.maximum(shares + difference, 1e-300)) + lost * np.log(shares)
        likelihood += (trials - gained - lost) * np.log(np.maximum(1 - 2 * shares - difference, 1e-300))
        share = shares[likelihood.argmax()]
        variance = trials * (2 * share + difference - difference**2)
        statistic = (gained - lost - trials * difference) / variance**0.5
        assert abs(statistic) == pytest.approx(1.96, abs=2e-2)


def test_paired_interval_mirrors_and_has_a_width_where_nothing_differs() -> None:
    low, high = paired_difference_interval(9, 4, 100)
    assert paired_difference_interval(4, 9, 100) == pytest.approx((-high, -low))
    bound = 1.959964**2 / (100 + 1.959964**2)
    assert paired_difference_interval(0, 0, 100) == pytest.approx((-bound, bound), rel=1e-5)
    assert paired_difference_interval(0, 0, 0) == (-1.0, 1.0)


def test_paired_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    counts = random.multinomial(200, [0.08, 0.05, 0.87], size=1000)
    intervals = [paired_difference_interval(int(gained), int(lost), 200) for gained, lost, _ in counts]
    assert 0.925 < np.mean([low <= 0.03 <= high for low, high in intervals]) < 0.975


def test_holm_steps_down_by_hand() -> None:
    # 4 * 0.005, 3 * 0.01, 2 * 0.03, and 1 * 0.04, which may not be below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
