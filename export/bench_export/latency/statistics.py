"""Percentiles with distribution-free intervals, LoadGen's early stopping, and paired comparisons over blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Comparison", "Percentile", "compare", "early_stopping", "holm", "needed", "percentile", "stops_under"]

#: What an interval leaves out on both sides together.
_ALPHA = 0.05

#: LoadGen's confidence and what it calls tolerance (early_stopping.cc).
_STOPPING_ALPHA = 0.01

#: Blocks that a comparison needs: fewer say nothing of their own spread.
_LEAST_BLOCKS = 3

#: From this ratio on, "times as fast" reads better than percent.
_TIMES = 2.0


@dataclass(frozen=True, slots=True)
class Percentile:
    """A percentile of a sample with its 95 % interval, in the sample's unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many times as fast b is as a, with its 95 % interval; `p` is the paired t test's, later Holm's."""

    ratio: float
    low: float
    high: float
    p: float

    def verdict(self, a: str, b: str) -> str:
        """Such as "B 7.1 % faster [5.9, 8.4]", or that no difference is detectable."""
        if not self.p < _ALPHA or self.low <= 1 <= self.high:
            return "no difference detectable"
        if self.ratio < 1:
            return replace(self, ratio=1 / self.ratio, low=1 / self.high, high=1 / self.low).verdict(b, a)
        if self.ratio >= _TIMES:
            return f"{b} {self.ratio:.2f} times as fast [{self.low:.2f}, {self.high:.2f}]"
        percents = (100 * (value - 1) for value in (self.ratio, self.low, self.high))
        return "{} {:.1f} % faster [{:.1f}, {:.1f}]".format(b, *percents)


def needed(share: float) -> int:
    """The smallest sample whose extremes enclose the percentile `share` with 95 % confidence: 299 for 0.99."""
    count = max(1, math.floor(math.log(_ALPHA) / math.log(max(share, 1 - share))))
    while share**count + (1 - share) ** count > _ALPHA:
        count += 1
    return count


def percentile(ordered: NDArray[np.integer] | NDArray[np.floating], share: float) -> Percentile | None:
    """The percentile `share` (0..1) of an ordered sample with its interval; None where the sample is too small.

    The interval lies between two of the sample's values, whose ranks follow from the binomial distribution alone
    (Conover, Practical Nonparametric Statistics, 3.2). It takes queries as independent. Where the upper rank would lie
    beyond the largest value, that value bounds it and the lower tail gets what is left. The value is LoadGen's:
    the element at n * share.
    """
    from scipy.stats import binom

    count = len(ordered)
    if count < needed(share):
        return None
    above = min(share**count, _ALPHA)  # the chance that the percentile exceeds every value
    below = (1 - share) ** count
    tail = _ALPHA / 2
    lower_tail = tail if above <= tail else _ALPHA - above
    upper_tail = tail if below <= tail else _ALPHA - below
    low = _last_rank(lower_tail, count, share)
    high = min(int(binom.ppf(1 - upper_tail, count, share)) + 1, count)
    return Percentile(
        float(ordered[min(int(count * share), count - 1)]), float(ordered[max(low, 1) - 1]), float(ordered[high - 1])
    )


def early_stopping(ordered: NDArray[np.integer], share: float) -> tuple[int | None, str]:
    """LoadGen's early stopping on an ordered sample: (its estimate of the percentile or None, a sentence).

    The t-th largest latency, where t is the most that the binomial distribution allows at 99 % confidence; p90 needs 64
    queries, p95 130, p99 662 (MLPerf inference rules; early_stopping.cc).
    """
    count = len(ordered)
    discarded = _most_over(count, share)
    name = f"{100 * share:g}th percentile"
    if discarded < 1:
        return None, f"only {count} queries; early stopping needs {_stopping_needs(share)} for the {name}"
    estimate = int(ordered[count - discarded])
    return estimate, f"{name} estimate {estimate / 1e6:.4g} ms from {count} queries, {discarded - 1} highest discarded"


def stops_under(num_over: int, count: int, share: float) -> bool:
    """LoadGen's early stopping of the server scenario: whether `num_over` late queries of `count` are few enough."""
    return num_over <= _most_over(count, share)


def compare(a: Sequence[float], b: Sequence[float]) -> Comparison | None:
    """Two candidates' times of the same blocks -> how many times as fast b is; None for fewer than three blocks.

    Student's t on the logarithms of the ratios, paired by block: what slows the machine down for both cancels.
    """
    from scipy.stats import t

    if len(a) < _LEAST_BLOCKS or len(a) != len(b):
        return None
    logs = np.log(np.asarray(a, dtype=float)) - np.log(np.asarray(b, dtype=float))
    mean, error = float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(len(logs))
    if error < 1e-12:  # noqa: PLR2004  # equal to the last digit: only made-up blocks are
        certain = math.exp(mean)
        return Comparison(certain, certain, certain, 1.0 if abs(mean) < 1e-12 else 0.0)  # noqa: PLR2004
    half = float(t.ppf(1 - _ALPHA / 2, len(logs) - 1)) * error
    p = 2 * float(t.sf(abs(mean) / error, len(logs) - 1))
    return Comparison(math.exp(mean), math.exp(mean - half), math.exp(mean + half), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment for several tests at once (Holm 1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def _last_rank(tail: float, count: int, share: float) -> int:
    """The largest rank r with P(fewer than r values below the percentile) <= tail; 0 where there is none."""
    from scipy.stats import binom

    rank = int(binom.ppf(tail, count, share))
    while rank > 0 and binom.cdf(rank - 1, count, share) > tail:
        rank -= 1
    return rank


def _most_over(count: int, share: float) -> int:
    """The largest number of late queries for which P(as few or fewer) <= 1 %, were the percentile just missed."""
    from scipy.stats import binom

    most = int(binom.ppf(_STOPPING_ALPHA, count, 1 - share)) + 1
    while most >= 0 and binom.cdf(most, count, 1 - share) > _STOPPING_ALPHA:
        most -= 1
    return most


def _stopping_needs(share: float) -> int:
    count = 2
    while _most_over(count, share) < 1:
        count += 1
    return count
