"""A dataset in numbers: splits, classes, groups, pairs, sizes, formats, colours. Plain values, ready for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bench.exploration.survey import Look, Survey
    from bench.kinds import Split

__all__ = ["summarise"]

_MOST_SIZES = 8
_GREY = 1e-9  # channels that differ by less are one


def summarise(survey: Survey, divided: Mapping[str, Mapping[str, int]] | None) -> dict[str, Any]:
    """Everything that terminal and page show as numbers.

    `divided` is split -> class -> samples after the core has held out what the dataset does not bring. Sizes are in
    pixels, colours in 0..1; means and deviations weigh every image alike, as images are resized to one size.
    """
    looks = [survey.looks[index] for index in survey.readable.tolist()]
    return {
        "task": survey.dataset.task,
        "classes": list(survey.dataset.classes),
        "root": str(survey.root),
        "splits": {name: _split(survey, split) for name, split in survey.dataset.splits.items()},
        "divided": divided,
        "images": {
            "count": len(survey),
            "readable": len(looks),
            "width": _spread([look.width for look in looks]),
            "height": _spread([look.height for look in looks]),
            "sizes": _common(f"{look.width} x {look.height}" for look in looks),
            "formats": _common(look.format for look in looks),
            "modes": _common(look.mode for look in looks),
            "boxes": any(split.boxes is not None for split in survey.dataset.splits.values()),
        },
        "colours": _colours(looks),
        "brightness": _brightness(survey),
    }


def _split(survey: Survey, split: Split) -> dict[str, Any]:
    counts = np.bincount(np.asarray(split.labels), minlength=len(survey.dataset.classes)).tolist()
    values: dict[str, Any] = {
        "images": len(split.images),
        "pairs": None if split.pairs is None else len(split.pairs),
        "classes": dict(zip(survey.dataset.classes, counts, strict=True)),
        "groups": None,
        "folds": None,
    }
    if split.groups is not None:
        sizes = np.unique(np.asarray(split.groups), return_counts=True)[1]
        shown = Counter(sizes.tolist())
        values["groups"] = {"count": len(sizes), "images": _spread(sizes.tolist()), "histogram": _bins(shown)}
    if split.folds is not None:
        numbers, sizes = np.unique(np.asarray(split.folds), return_counts=True)
        values["folds"] = {str(number): int(size) for number, size in zip(numbers, sizes, strict=True)}
    return values


def _spread(values: Sequence[int]) -> dict[str, float] | None:
    if not values:
        return None
    quantiles = np.quantile(values, (0, 0.05, 0.5, 0.95, 1)).tolist()
    return dict(zip(("min", "p5", "median", "p95", "max"), quantiles, strict=True))


def _common(values: Iterable[str]) -> dict[str, int]:
    """The most frequent values with their counts, the rest together."""
    counts = Counter(values).most_common()
    rest = sum(count for _, count in counts[_MOST_SIZES:])
    kinds = len(counts) - _MOST_SIZES
    return {**dict(counts[:_MOST_SIZES]), **({f"{kinds:,} others": rest} if rest else {})}


def _bins(sizes: Mapping[int, int]) -> dict[str, int]:
    """How many groups have 1, 2, 3, 4, 5 to 8, 9 to 16 ... images."""
    edges = [1, 2, 3, 4, 5, 9, 17, 33, 65, 129, 257, 513, 10**9]
    found = {}
    for low, high in pairwise(edges):
        count = sum(number for size, number in sizes.items() if low <= size < high)
        name = str(low) if high == low + 1 else f"{low} or more" if high == edges[-1] else f"{low} to {high - 1}"
        if count:
            found[name] = count
    return found


def _colours(looks: Sequence[Look]) -> dict[str, list[float]] | None:
    """Mean and standard deviation of each channel over all readable images; one channel where all are grey."""
    if not looks:
        return None
    mean = np.mean([look.mean for look in looks], axis=0)
    square = np.mean([look.square for look in looks], axis=0)
    if np.ptp(mean) < _GREY and np.ptp(square) < _GREY:
        mean, square = mean[:1], square[:1]
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return {"mean": mean.round(4).tolist(), "std": deviation.round(4).tolist()}


def _brightness(survey: Survey) -> dict[str, dict[str, float]]:
    """Class -> brightness of its images (the mean over channels and pixels): mean, 5 % and 95 % quantile."""
    of_class: dict[str, list[float]] = {}
    for index in survey.readable.tolist():
        if survey.labels[index] >= 0:
            of_class.setdefault(survey.label(index), []).append(float(np.mean(survey.looks[index].mean)))
    ordered = [name for name in survey.dataset.classes if name in of_class]
    return {
        name: {
            "mean": round(float(np.mean(of_class[name])), 4),
            "p5": round(float(np.quantile(of_class[name], 0.05)), 4),
            "p95": round(float(np.quantile(of_class[name], 0.95)), 4),
        }
        for name in ordered
    }
