"""Intervals and tests. Every accuracy that is shown carries its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = [
    "holm",
    "mcnemar",
    "mean_and_standard_error",
    "mean_interval",
    "paired_difference_interval",
    "wilson_interval",
]

#: The 97.5 % quantile of the normal distribution.
_Z = 1.959963984540054


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927); (0, 1) where nothing was tried."""
    if not trials:
        return 0.0, 1.0
    share = successes / trials
    centre = share + _Z**2 / (2 * trials)
    spread = _Z * math.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    scale = 1 + _Z**2 / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high): the mean over seeds with its 95 % interval by Student's t; needs at least two values."""
    from scipy.special import stdtrit  # scipy.stats takes four times as long to import

    mean, error = mean_and_standard_error(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * error
    return mean, mean - half, mean + half


def mean_and_standard_error(values: Sequence[float]) -> tuple[float, float]:
    """(mean, standard error of the mean): what LFW's protocol reports over its folds; needs at least two values."""
    count = len(values)
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return mean, deviation / math.sqrt(count)


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided exact p-value of McNemar's test (1947): that of `gained` in a binomial of gained + lost, 1/2.

    `gained` counts the samples that only the first of two models gets right, `lost` those that only the second does.
    """
    trials, fewer = gained + lost, min(gained, lost)
    if gained == lost:
        return 1.0
    term, tail = 1, 1
    for successes in range(fewer):
        term = term * (trials - successes) // (successes + 1)
        tail += term
    return min(1.0, tail / (1 << (trials - 1)))


def paired_difference_interval(gained: int, lost: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a difference of two proportions of the same samples (Tango, Stat. Med. 17, 1998).

    The difference is (gained - lost) / trials, with `gained` and `lost` as in `mcnemar`. (-1, 1) where nothing was
    tried. Unlike Wald's interval it has a width where both models are right and wrong on the same samples.
    """
    if not trials:
        return -1.0, 1.0
    centre = (gained - lost) / trials
    low = _crossing(lambda difference: _score(difference, gained, lost, trials) - _Z, -1.0, centre)
    high = _crossing(lambda difference: _score(difference, gained, lost, trials) + _Z, centre, 1.0)
    return low, high


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down method (1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _score(difference: float, gained: int, lost: int, trials: int) -> float:
    """Tango's statistic: standard normal where the true difference is this one. It falls as the difference rises."""
    over = gained - lost - trials * difference
    a, b = 2 * trials, -gained - lost + (2 * trials - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)  # of samples lost, most likely under the difference
    variance = trials * (2 * share + difference * (1 - difference))
    if variance <= 0:
        return math.copysign(math.inf, over) if over else 0.0
    return over / math.sqrt(variance)


def _crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function passes 0, by bisection; an end where it does not."""
    for _ in range(60):
        middle = (low + high) / 2
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
