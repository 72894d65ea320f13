"""The server scenario's figure: the largest rate of queries whose p99 stays below the bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, sqrt

__all__ = ["Found", "largest_rate"]

_FINENESS = 1.02  # the search ends when what failed is within 2 % of what passed
_MOST_TRIALS, _MOST_RETREATS = 14, 10
_RETREAT = 0.95
_LOWEST = 1 / 16  # a rate so far below what the warm-up promised is not worth hours of search


@dataclass(frozen=True, slots=True)
class Found:
    """The largest rate that passed and the smallest above it that failed, in queries a second; 0 where none passed."""

    passed: float
    failed: float

    @property
    def above(self) -> float:
        """Where the border surely lies below: where nothing failed, twice the last rate, which JSON can hold."""
        return self.failed if isfinite(self.failed) else 2 * self.passed


def largest_rate(passes: Callable[[float], bool], *, start: float) -> Found:
    """Double or halve the rate from `start` until the border is enclosed, then divide geometrically.

    What passed must pass once more: near the border a lucky trial is likely. Otherwise it retreats by 5 %.
    """
    passed, failed, rate = 0.0, inf, start
    for _ in range(_MOST_TRIALS):
        if passes(rate):
            passed = rate
        else:
            failed = rate
        if (passed and failed / passed <= _FINENESS) or failed <= start * _LOWEST:
            break
        rate = _next(passed, failed)
    for _ in range(_MOST_RETREATS if passed else 0):
        if passes(passed):
            return Found(passed, failed)
        passed, failed = passed * _RETREAT, passed
    return Found(0.0, failed)


def _next(passed: float, failed: float) -> float:
    if failed == inf:
        return 2 * passed
    return sqrt(passed * failed) if passed else failed / 2
