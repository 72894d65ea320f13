"""Intervals and tests. Every accuracy that is shown carries its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["mean_and_standard_error", "mean_interval", "wilson_interval"]

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
    from scipy.stats import t

    mean, error = mean_and_standard_error(values)
    half = float(t.ppf(0.975, len(values) - 1)) * error
    return mean, mean - half, mean + half


def mean_and_standard_error(values: Sequence[float]) -> tuple[float, float]:
    """(mean, standard error of the mean): what LFW's protocol reports over its folds; needs at least two values."""
    count = len(values)
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return mean, deviation / math.sqrt(count)
