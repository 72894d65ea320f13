"""McNemar's test and Tango's interval for many pairs at once: the same as in `bench.statistics`, on arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    Counts = NDArray[np.int64]

__all__ = ["mcnemar_p", "paired_intervals"]

#: The 97.5 % quantile of the normal distribution.
_Z = 1.959963984540054

#: What no longer changes a sum.
_NOTHING = 1e-17

#: Halvings of an interval of 1: to the last digit of a float.
_STEPS = 55


def mcnemar_p(gained: Counts, lost: Counts) -> Numbers:
    """Two-sided exact p-values of McNemar's test (1947); `gained` and `lost` as in `bench.statistics.mcnemar`.

    The tail of the binomial is summed from its largest term on. scipy.special has it too, but takes as long to import as
    a hundred runs to read.
    """
    fewer, trials = np.minimum(gained, lost), gained + lost
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, int(trials.max(initial=0)) + 1)))])
    largest = np.exp(logs[trials] - logs[fewer] - logs[trials - fewer] - trials * np.log(2))
    total, term, place = np.ones_like(largest), np.ones_like(largest), fewer.astype(np.float64)
    while (term > _NOTHING * total).any():
        term = term * (place / (trials - place + 1))
        total += term
        place -= 1
    p: Numbers = np.minimum(1.0, 2 * largest * total)
    return np.where(gained == lost, 1.0, p)


def paired_intervals(gained: Counts, lost: Counts, trials: Counts) -> tuple[Numbers, Numbers]:
    """The 95 % score intervals of the differences (gained - lost) / trials (Tango, Stat. Med. 17, 1998): low, high."""
    b, c, n = (values.astype(np.float64) for values in (gained, lost, trials))
    centre = (b - c) / n
    low = _crossing(lambda difference: _score(difference, b, c, n) - _Z, np.full_like(centre, -1.0), centre)
    high = _crossing(lambda difference: _score(difference, b, c, n) + _Z, centre, np.full_like(centre, 1.0))
    return low, high


def _score(difference: Numbers, gained: Numbers, lost: Numbers, trials: Numbers) -> Numbers:
    """Tango's statistic: standard normal where the true difference is this one. It falls as the difference rises."""
    over = gained - lost - trials * difference
    a, b = 2 * trials, -gained - lost + (2 * trials - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (np.sqrt(np.maximum(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = trials * (2 * share + difference * (1 - difference))
    certain = variance <= 0
    found: Numbers = over / np.sqrt(np.where(certain, 1.0, variance))
    sure = np.where(over == 0, 0.0, np.copysign(np.inf, over))
    return np.where(certain, sure, found)


def _crossing(function: Callable[[Numbers], Numbers], low: Numbers, high: Numbers) -> Numbers:
    """Where falling functions pass 0, by bisection; an end where they do not."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        above = function(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2
