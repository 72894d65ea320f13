"""The largest rate that passes, on made-up systems whose border is known."""

from __future__ import annotations

import random

import pytest

from bench_export.latency.search import largest_rate


@pytest.mark.parametrize("start", [30.0, 100.0, 900.0])
def test_the_border_is_found_from_below_and_from_above(start: float) -> None:
    found = largest_rate(lambda rate: rate <= 137.0, start=start)
    assert found.passed <= 137.0 < found.failed <= 1.02 * found.passed


def test_a_lucky_trial_must_pass_once_more() -> None:
    dice = random.Random(0)
    found = largest_rate(lambda rate: rate <= 100 or (rate < 120 and dice.random() < 0.3), start=100.0)
    assert 85 < found.passed < 120


def test_where_nothing_passes_the_rate_is_zero() -> None:
    tried: list[float] = []

    def passes(rate: float) -> bool:
        tried.append(rate)
        return False

    assert largest_rate(passes, start=160.0).passed == 0
    assert min(tried) >= 10


def test_a_border_that_was_never_reached_is_still_a_number() -> None:
    found = largest_rate(lambda _rate: True, start=1.0)
    assert found.failed == float("inf")
    assert found.above == 2 * found.passed
