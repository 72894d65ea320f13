"""A comparison as a table of plain numbers."""

from __future__ import annotations

import csv
import sys
from typing import Any

from bench.comparison.columns import FIGURES
from bench.comparison.model import Comparison
from bench.comparison.wording import value_text

__all__ = ["write_csv"]

_HEADS = ("number", "label", "run", "runs", "experiment", "dataset", "test_set", "tie", "accuracy", "low", "high")


def write_csv(comparison: Comparison) -> None:
    """A line an entry on stdout: every figure as a plain number, then the recipe keys that differ."""
    sets = comparison.test_sets
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow([*_HEADS, "tested", *(column.name for column in FIGURES), *comparison.differences])
    for place, entry in enumerate(comparison.entries):
        figures: list[Any] = [entry.number, entry.label, entry.name, len(entry.runs), entry.experiment, entry.dataset]
        figures += [entry.test_set, entry.letters, entry.accuracy, *entry.interval]
        figures.append(sets[entry.test_set].samples if entry.tested else "")
        figures += [column.value(entry) for column in FIGURES]
        values = [
            "" if one[place] is None else value_text(one[place], exact=True) for one in comparison.differences.values()
        ]
        rows.writerow(["" if one is None else one for one in [*figures, *values]])
