"""The confusion matrix as a table whose cells can be opened, of as many classes as a page can show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.words import shorten

if TYPE_CHECKING:
    from bench.reporting.judged import Judged

__all__ = ["MOST_CLASSES", "Cell", "Matrix", "matrix"]

#: With more classes, the matrix shows those that are confused most.
MOST_CLASSES = 60

_MOST_CONFUSIONS = 30
_NAME = 24
_SHADES = 9


@dataclass(frozen=True, slots=True)
class Cell:
    """`count` samples of class `label` were taken for class `guess`; `shade` is 0 to 9, by the share of the class."""

    label: int
    guess: int
    count: int
    shade: int


@dataclass(frozen=True, slots=True)
class Matrix:
    """`rows` are the shown classes' cells, `names` their short and whole names, `confusions` the fullest wrong cells."""

    names: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]
    hidden: int
    confusions: tuple[Cell, ...]
    unlisted: int


def matrix(judged: Judged) -> Matrix:
    """The cells of the classes that take part in most confusions, in label order."""
    counts = judged.confusion
    wrong = counts - np.diag(np.diag(counts))
    chosen = np.arange(len(counts))
    if len(counts) > MOST_CLASSES:
        chosen = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MOST_CLASSES])
    totals = counts.sum(1)
    rows = tuple(
        tuple(_cell(label, guess, int(counts[label, guess]), int(totals[label])) for guess in chosen.tolist())
        for label in chosen.tolist()
    )
    places = [(int(a), int(b)) for a, b in np.argwhere(wrong)]
    places.sort(key=lambda place: (-int(wrong[place]), place))
    listed = tuple(_cell(a, b, int(wrong[a, b]), int(totals[a])) for a, b in places[:_MOST_CONFUSIONS])
    names = tuple((shorten(judged.classes[label], _NAME), judged.classes[label]) for label in chosen.tolist())
    return Matrix(names, rows, len(counts) - len(chosen), listed, len(places) - len(listed))


def _cell(label: int, guess: int, count: int, total: int) -> Cell:
    """Shades grow with the root of the share, so that one image in a hundred is seen."""
    shade = math.ceil(_SHADES * math.sqrt(count / total)) if total else 0
    return Cell(label, guess, count, shade)
