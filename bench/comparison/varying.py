"""Where seeds or folds vary: is the difference larger than their noise, and larger than that of the test images?

Both have to be so. Three seeds can agree to the last digit on thirty images and still say nothing about the next thirty,
and a difference that is certain on these images can be that of one lucky seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.comparison.model import Part
from bench.statistics import mean_and_standard_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.comparison.answers import Evidence

__all__ = ["over_folds", "over_images", "over_seeds", "parts_of", "sign_flip_p"]

#: The 97.5 % quantile of the normal distribution.
_Z = 1.959963984540054

_FEWEST = 2  # values that have a spread


def parts_of(a: Evidence, b: Evidence) -> tuple[Part, ...]:
    """What decides about two entries of one test set, at least one of which is no single run."""
    if a.kind == "folds":
        return (over_folds(a, b),)
    return over_seeds(a, b), over_images(a, b)


def over_seeds(a: Evidence, b: Evidence) -> Part:
    """The difference against the spread of seeds.

    Two groups with the same seeds are paired by seed; otherwise Welch's test (1947). A single run has no spread of its
    own: it is lent that of the group, with which it is compared as one case with a sample (Crawford and Howell, The
    Clinical Neuropsychologist 12, 1998).
    """
    first, second = list(a.accuracies.values()), list(b.accuracies.values())
    if min(len(first), len(second)) < _FEWEST:
        group = max(first, second, key=len)
        mean, error = mean_and_standard_error(group)
        sign = 1 if group is second else -1
        case = (first if group is second else second)[0]
        spread = error * math.sqrt(len(group) + 1)
        return _t("t, one run against seeds", sign * (case - mean), spread, len(group) - 1)
    if a.accuracies.keys() == b.accuracies.keys():
        mean, error = mean_and_standard_error([a.accuracies[seed] - b.accuracies[seed] for seed in a.accuracies])
        return _t("paired t over seeds", mean, error, len(first) - 1)
    return _welch(first, second)


def over_folds(a: Evidence, b: Evidence) -> Part:
    """The difference paired by fold.

    Folds share most of their training images, so that the plain paired t test finds differences that are none: its
    variance is corrected by the ratio of test to training images (Nadeau and Bengio, Machine Learning 52, 2003).
    """
    mean, error = mean_and_standard_error([a.accuracies[fold] - b.accuracies[fold] for fold in a.accuracies])
    folds = len(a.accuracies)
    return _t("paired t over folds, corrected", mean, error * math.sqrt(1 + folds / (folds - 1)), folds - 1)


def over_images(a: Evidence, b: Evidence) -> Part:
    """The difference against the chance that decides which images are tested.

    Fisher's randomisation test: under the null hypothesis each image's difference, the share of runs that get it right,
    has its sign by chance. Exact; for two single runs it is McNemar's test. The interval is the normal one.
    """
    assert a.right is not None and b.right is not None  # noqa: S101, PT018  # only folds have none
    first, second = len(a.accuracies), len(b.accuracies)
    differences = a.right * second - b.right * first
    shares = differences / (first * second)
    half = _Z * float(shares.std(ddof=1)) / math.sqrt(len(shares)) if len(shares) >= _FEWEST else 1.0
    mean = float(shares.mean())
    p = sign_flip_p(differences // math.gcd(first, second))
    return Part("sign flips over images", p, max(-1.0, mean - half), min(1.0, mean + half))


def sign_flip_p(differences: NDArray[np.int64]) -> float:
    """The two-sided p-value of a sum of integers, where each sign is as likely as the other.

    The sum's distribution is the Fourier transform of a product of cosines.
    """
    sizes = np.bincount(np.abs(differences))
    sizes[0] = 0
    values = np.flatnonzero(sizes)
    total, observed = int(values @ sizes[values]), abs(int(differences.sum()))
    if not observed:
        return 1.0
    length = 2 * total + 2  # even: nothing wraps around
    angles = 2 * np.pi * np.arange(length // 2 + 1) / length
    characteristic = np.ones_like(angles)
    for value in values:
        characteristic *= np.cos(value * angles) ** sizes[value]
    chances = np.fft.irfft(characteristic, length)
    least = 2.0 ** (1 - int(sizes.sum()))  # of as many signs, all alike
    return float(min(1.0, max(2 * chances[observed : total + 1].sum(), least)))


def _welch(first: Sequence[float], second: Sequence[float]) -> Part:
    (mean, error), (other, beside) = mean_and_standard_error(first), mean_and_standard_error(second)
    squares = error**2, beside**2
    both = sum(squares)
    # Without any spread the degrees of freedom decide nothing.
    parts = squares[0] ** 2 / (len(first) - 1) + squares[1] ** 2 / (len(second) - 1)
    freedom = both**2 / parts if parts else 1.0
    return _t("Welch's t over seeds", mean - other, math.sqrt(both), freedom)


def _t(test: str, difference: float, error: float, freedom: float) -> Part:
    """Student's test of a difference with its standard error."""
    from scipy.special import stdtr, stdtrit

    if not error:
        return Part(test, 0.0 if difference else 1.0, difference, difference)
    half = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return Part(test, p, max(-1.0, difference - half), min(1.0, difference + half))
