"""Against values of the literature, and against simulated data whose truth is known."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bench_export.latency.statistics import compare, early_stopping, holm, needed, percentile, stops_under


@pytest.mark.parametrize(("share", "count"), [(0.5, 6), (0.9, 29), (0.95, 59), (0.99, 299), (0.999, 2995)])
def test_a_percentile_needs_as_many_queries_as_the_binomial_distribution_says(share: float, count: int) -> None:
    assert needed(share) == count
    ordered = np.arange(count)
    assert percentile(ordered[:-1], share) is None
    found = percentile(ordered, share)
    assert found is not None
    assert found.low <= found.value <= found.high == count - 1


def test_the_median_of_twenty_has_the_ranks_of_the_textbook() -> None:
    """Conover's table: the sixth and the fifteenth smallest of 20 enclose the median with 95.9 %."""
    found = percentile(np.arange(1, 21), 0.5)
    assert found is not None
    assert (found.low, found.high) == (6, 15)


def test_the_value_is_the_one_that_loadgen_reports() -> None:
    found = percentile(np.arange(1000), 0.9)
    assert found is not None
    assert found.value == 900


@pytest.mark.parametrize(("share", "count"), [(0.5, 50), (0.9, 29), (0.9, 200), (0.99, 299), (0.99, 1000)])
def test_intervals_cover_the_true_percentile_of_a_skewed_distribution(share: float, count: int) -> None:
    random, rounds = np.random.default_rng(1), 800
    true_value = -np.log(1 - share)  # of the exponential distribution
    covered = 0
    for _ in range(rounds):
        found = percentile(np.sort(random.exponential(size=count)), share)
        assert found is not None
        covered += found.low <= true_value <= found.high
    assert covered / rounds >= 0.93


@pytest.mark.parametrize(("share", "count"), [(0.9, 64), (0.95, 130), (0.99, 662)])
def test_early_stopping_needs_the_published_number_of_queries(share: float, count: int) -> None:
    ordered = np.arange(count)
    estimate, _ = early_stopping(ordered, share)
    assert estimate == count - 1
    too_few, sentence = early_stopping(ordered[:-1], share)
    assert too_few is None
    assert f"needs {count}" in sentence


def test_early_stopping_lets_a_server_be_late_as_often_as_published() -> None:
    assert stops_under(0, 459, 0.99)
    assert not stops_under(0, 458, 0.99)
    assert stops_under(1, 662, 0.99)
    assert not stops_under(1, 661, 0.99)


def _blocks(random: np.random.Generator, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Two candidates whose blocks share a drift far larger than the difference between them."""
    drift = np.exp(np.cumsum(random.normal(0, 0.1, 20)))
    return drift * np.exp(random.normal(0, 0.01, 20)), drift * factor * np.exp(random.normal(0, 0.01, 20))


def test_a_slower_candidate_is_found_in_spite_of_drift() -> None:
    a, b = _blocks(np.random.default_rng(2), 1 / 1.071)
    found = compare(a, b)
    assert found is not None
    assert found.low < 1.071 < found.high
    assert re.fullmatch(r"B [67]\.\d % faster \[6\.\d, 7\.\d\]", found.verdict("A", "B"))
    turned = compare(b, a)
    assert turned is not None
    assert turned.verdict("B", "A") == found.verdict("A", "B")


def test_equal_candidates_differ_in_one_of_twenty_comparisons_only() -> None:
    random = np.random.default_rng(3)
    found = [compare(*_blocks(random, 1.0)) for _ in range(600)]
    wrong = sum(one is not None and one.verdict("A", "B") != "no difference detectable" for one in found)
    assert 10 <= wrong <= 50


def test_large_differences_are_said_in_times() -> None:
    found = compare([6.0, 6.1, 5.9, 6.0], [1.0, 1.0, 1.0, 1.0])
    assert found is not None
    assert found.verdict("torch", "ort").startswith("ort 6.00 times as fast [5.8")


def test_two_blocks_are_not_compared() -> None:
    assert compare([1.0, 2.0], [1.0, 2.0]) is None


def test_identical_blocks_are_equal() -> None:
    found = compare([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert found is not None
    assert found.verdict("A", "B") == "no difference detectable"


def test_holm_adjusts_as_in_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
