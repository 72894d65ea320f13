"""How far probabilities can be trusted: reliability, expected calibration error, and temperature scaling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.predictions import SavedPredictions

__all__ = [
    "BINS",
    "Bin",
    "Calibration",
    "calibrate",
    "expected_error",
    "fit_temperature",
    "halves",
    "reliability",
    "scaled",
]

#: Bins of the expected calibration error, as in the run's own evaluation.
BINS = 15

_LEAST = 1e-12
_STEEPEST = 20.0  # temperatures between 1/20 and 20
_SEED = 0


@dataclass(frozen=True, slots=True)
class Bin:
    """Samples of like confidence: how many, how many of them right, and their mean confidence."""

    samples: int
    right: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Reliability as recorded and after temperature scaling; one temperature, or one a half of the split.

    `undetermined` says that a temperature could not be fitted, as nothing that it would be fitted on is wrong.
    """

    temperatures: tuple[float, ...]
    fitted_on: str
    undetermined: bool
    error: float
    error_scaled: float
    bins: tuple[Bin, ...]
    bins_scaled: tuple[Bin, ...]


def calibrate(judged: SavedPredictions, validation: SavedPredictions | None) -> Calibration:
    """Temperature scaling (Guo et al., arXiv:1706.04599), never fitted on the samples that it is judged on.

    It is fitted on the validation predictions. Where there are none, or they are what is judged, each half of the
    split gets the temperature of the other half.
    """
    before = judged.probabilities.astype(np.float64)
    if validation is not None and validation.split != judged.split:
        temperatures: tuple[float | None, ...] = (fit_temperature(validation.probabilities, validation.labels),)
        after = scaled(before, temperatures[0] or 1.0)
        source = f"the {len(validation):,} validation predictions"
    else:
        first = halves(judged.labels)
        temperatures = tuple(
            fit_temperature(before[half], judged.labels[half]) for half in (first, ~first) if half.any()
        )
        after = before.copy()
        for half, temperature in zip((~first, first), temperatures, strict=False):
            after[half] = scaled(before[half], temperature or 1.0)
        source = f"the other half of the {judged.split} split (cross-fitted), as there are no other predictions"
    bins, bins_scaled = reliability(before, judged.labels), reliability(after, judged.labels)
    errors = expected_error(bins), expected_error(bins_scaled)
    shown = tuple(1.0 if value is None else value for value in temperatures)
    return Calibration(shown, source, None in temperatures, *errors, bins, bins_scaled)


def halves(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which samples are in the first half; each class is divided as evenly as it can be."""
    random = np.random.default_rng(_SEED)
    order = random.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    first = np.zeros(len(labels), dtype=bool)
    first[order[::2]] = True
    return first


def fit_temperature(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> float | None:
    """The temperature of the least log loss, in 1/20..20. The loss is convex in its inverse, so bisection finds it.

    None where all most probable classes are right: the lower the temperature, the better would be all that can be said.
    """
    if (probabilities.argmax(1) == labels).all():
        return None
    logits = np.log(np.maximum(probabilities.astype(np.float64), _LEAST))
    own = logits[np.arange(len(labels)), labels].mean()
    low, high = -math.log(_STEEPEST), math.log(_STEEPEST)
    for _ in range(40):
        middle = (low + high) / 2
        chances = _softmax(logits * math.exp(middle))
        if (chances * logits).sum(1).mean() < own:  # the loss still falls
            low = middle
        else:
            high = middle
    return math.exp(-(low + high) / 2)


def scaled(probabilities: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Probabilities N,num_classes whose logits are divided by a temperature; the most probable class stays."""
    return _softmax(np.log(np.maximum(probabilities.astype(np.float64), _LEAST)) / temperature)


def reliability(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> tuple[Bin, ...]:
    """Samples by the probability of their most probable class, in bins of equal width (the upper edge belongs in)."""
    confidence, guesses = probabilities.max(1), probabilities.argmax(1)
    edges = np.linspace(0, 1, BINS + 1)
    places = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    return tuple(
        Bin(
            int(own.sum()),
            int((guesses[own] == labels[own]).sum()),
            float(confidence[own].mean()) if own.any() else math.nan,
        )
        for own in (places == number for number in range(BINS))
    )


def expected_error(bins: tuple[Bin, ...]) -> float:
    """The expected calibration error: the mean distance of confidence and accuracy over all samples."""
    total = sum(one.samples for one in bins)
    gaps = (one.samples * abs(one.right / one.samples - one.confidence) for one in bins if one.samples)
    return sum(gaps) / max(total, 1)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    chances = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(chances / chances.sum(1, keepdims=True), dtype=np.float64)
