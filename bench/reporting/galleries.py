"""Which samples are worth looking at: the worst mistakes, the least certain, and those of each confusion cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.predictions import SavedPredictions
    from bench.reporting.judged import Judged
    from bench.reporting.pictures import Album, Picture

__all__ = ["BUDGET", "Gallery", "Shown", "cells", "galleries"]

#: Bytes of pictures that a report's cells may take together, and those of the galleries come on top.
BUDGET = 2_900_000

_A_GALLERY = 24
_A_CELL = 96
_NAMED = 6000  # samples in all cells


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample with what was said of it."""

    name: str
    label: str
    guess: str
    right: bool
    chance: float
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Samples under a heading; `total` counts those that are not shown as well."""

    title: str
    text: str
    total: int
    shown: tuple[Shown, ...]


def galleries(judged: Judged, album: Album | None, *, most: int = _A_GALLERY) -> list[Gallery]:
    """The worst mistakes and the least certain samples; of pairs, worst false accepts and false rejects."""
    predictions = judged.predictions
    if predictions is None:
        return []
    confidence, margin, wrong = judged.confidences(), judged.margins(), ~predictions.right
    found: list[tuple[str, str, NDArray[np.bool_], NDArray[np.float64]]] = []
    if judged.pairs:
        different = predictions.labels == 0
        text = "Different, but taken for the same: the highest scores first."
        found.append(("Worst false accepts", text, wrong & different, -confidence))
        text = "The same, but taken for different: the lowest scores first."
        found.append(("Worst false rejects", text, wrong & ~different, confidence))
        text = "Scores nearest to the threshold, right or wrong."
    else:
        text = "Wrong with the highest probability."
        found.append(("Worst mistakes", text, wrong, -confidence))
        text = "The smallest distance between the two most probable classes, right or wrong."
    found.append(("Least certain", text, np.ones(len(predictions), dtype=bool), margin))
    made = []
    for title, line, chosen, key in found:
        own = np.flatnonzero(chosen)
        own = own[np.argsort(key[own], kind="stable")]
        shown = tuple(shown_sample(judged, predictions, sample, album) for sample in own[:most].tolist())
        made.append(Gallery(title, line, len(own), shown))
    return made


def shown_sample(judged: Judged, predictions: SavedPredictions, sample: int, album: Album | None) -> Shown:
    """One sample with its pictures, where they are here."""
    label, guess = int(predictions.labels[sample]), int(predictions.guesses[sample])
    chance = float(predictions.probabilities[sample, 1 if judged.pairs else guess])
    pictures = () if album is None else album.of(sample)
    return Shown(
        str(predictions.ids[sample]), judged.classes[label], judged.classes[guess], label == guess, chance, pictures
    )


def cells(judged: Judged, album: Album | None) -> dict[str, list[list[Any]]]:
    """Of each cell "LABEL,GUESS" the samples [name, probability, keys of pictures], as many as the file has room for.

    Mistakes come before right ones, and each cell gets its next sample before any gets the one after.
    """
    predictions = judged.predictions
    if predictions is None:
        return {}
    chances = judged.confidences()
    certainty = judged.margins() if judged.pairs else chances  # of what is shown beside each sample
    queue = [turn for turn in _turns(predictions, certainty) if turn[1] < _A_CELL][:_NAMED]
    found: dict[str, list[list[Any]]] = {}
    for _, _, sample in queue:
        full = album is not None and album.num_bytes > BUDGET
        if full:
            break
        keys = [] if album is None else [picture.key for picture in album.of(sample)]
        cell = f"{int(predictions.labels[sample])},{int(predictions.guesses[sample])}"
        found.setdefault(cell, []).append([str(predictions.ids[sample]), round(float(chances[sample]), 4), keys])
    return found


def _turns(predictions: SavedPredictions, certainty: NDArray[np.float64]) -> list[tuple[bool, int, int]]:
    """(right, rank within its cell, sample) in the order in which samples get their place."""
    right = predictions.right
    order = np.argsort(np.where(right, certainty, -certainty), kind="stable")  # clear mistakes, and doubtful right ones
    counts: dict[tuple[int, int], int] = {}
    turns = []
    for sample in order.tolist():
        cell = (int(predictions.labels[sample]), int(predictions.guesses[sample]))
        rank = counts.get(cell, 0)
        counts[cell] = rank + 1
        turns.append((bool(right[sample]), rank, sample))
    return sorted(turns, key=lambda turn: turn[:2])
