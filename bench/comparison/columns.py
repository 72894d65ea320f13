"""The columns of a comparison: one definition for the terminal, for CSV, for the page and for sorting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bench.comparison.model import Comparison, Entry
from bench.console import duration
from bench.errors import RecipeError
from bench.registry import near_miss

__all__ = ["COLUMNS", "FIGURES", "Column", "accuracy_text", "column_of", "figures_of", "sorted_by"]

Value: TypeAlias = "float | str | None"

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of an entry. `keep` says how long it stays where room is short: 0 goes first."""

    name: str
    head: str
    meaning: str
    value: Callable[[Entry], Value]
    show: Callable[[float], str]
    larger_is_better: bool = False
    keep: int = 5

    def text(self, entry: Entry) -> str:
        """The figure for people; '' where there is none."""
        value = self.value(entry)
        if value is None:
            return ""
        return value if isinstance(value, str) else self.show(value)


def column_of(name: str) -> Column:
    """The column of that name, with or without a - before it. Raises RecipeError where there is none."""
    known = {column.name: column for column in COLUMNS}
    asked = name.removeprefix("-")
    if asked not in known:
        raise RecipeError(
            f"--sort {name}: there is no such column{near_miss(asked, known)}", hint=f"columns: {', '.join(known)}"
        )
    return known[asked]


def sorted_by(comparison: Comparison, column: Column, *, reverse: bool = False) -> Comparison:
    """The comparison with the best entries in a column first, or last; what has no figure comes last."""
    values = dict(enumerate(map(column.value, comparison.entries)))
    present = [place for place, value in values.items() if value is not None]
    present.sort(key=lambda place: _sortable(values[place]), reverse=column.larger_is_better ^ reverse)
    missing = [place for place, value in values.items() if value is None]
    return comparison.reordered([*present, *missing])


def accuracy_text(entry: Entry) -> str:
    """94.73% [93.88, 95.48]; over folds 90.20% ± 0.41."""
    low, high = (100 * end for end in entry.interval)
    if entry.kind == "folds":
        return f"{entry.accuracy:.2%} ± {(high - low) / 2:.2f}"
    return f"{entry.accuracy:.2%} [{low:.2f}, {high:.2f}]"


def figures_of(entries: Sequence[Entry]) -> list[Column]:
    """The columns that hold anything for these entries."""
    pairs = any("eer" in entry.metrics for entry in entries)
    wanted = [one for one in FIGURES if one.name != "f1" or not pairs]
    return [one for one in wanted if any(one.value(entry) is not None for entry in entries)]


def _sortable(value: Value) -> tuple[int, float | str]:
    return (0, value.casefold()) if isinstance(value, str) else (1, value or 0.0)


def _metric(name: str) -> Callable[[Entry], Value]:
    return lambda entry: entry.metrics.get(name)


def _pair_metric(name: str) -> Callable[[Entry], Value]:
    return lambda entry: entry.metrics.get(name) if "eer" in entry.metrics else None


def _cost(name: str) -> Callable[[Entry], Value]:
    def found(entry: Entry) -> Value:
        value: Value = getattr(entry.costs, name)
        return value

    return found


def _share(value: float) -> str:
    return f"{value:.2%}"


def _count(value: float) -> str:
    """47.5k, 1.18M."""
    for unit, letter in _UNITS:
        if value >= unit:
            return f"{_digits(value / unit)}{letter}"
    return f"{value:.0f}"


def _digits(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 1 else _digits(value)


#: What stands beside the accuracy.
FIGURES: tuple[Column, ...] = (
    Column("f1", "F1", "macro F1", _metric("macro_f1"), _share, larger_is_better=True, keep=6),
    Column("auroc", "AUROC", "area under the ROC curve", _pair_metric("auroc"), lambda v: f"{v:.4f}",
           larger_is_better=True, keep=6),
    Column("eer", "EER", "equal error rate", _pair_metric("eer"), _share, keep=6),
    Column("parameters", "params", "parameters", _cost("parameters"), _count, keep=9),
    Column("macs", "MACs", "multiply-accumulates of an image", _cost("macs"), _count, keep=7),
    Column("train", "train", "training time of a run", _cost("train_seconds"), duration, keep=5),
    Column("speed", "img/s", "images a second in training", _cost("images_per_second"), lambda v: f"{v:,.0f}",
           larger_is_better=True, keep=2),
    Column("size", "ONNX MB", "size of the exported file", _cost("onnx_mb"), _digits, keep=8),
    Column("precision", "as", "precision of the exported file", _cost("precision"), str, keep=3),
    Column("p50", "p50 ms", "median latency of an image, end to end", _cost("p50_ms"), _ms, keep=8),
    Column("p90", "p90 ms", "latency that 9 of 10 images stay below", _cost("p90_ms"), _ms, keep=4),
)  # fmt: skip

#: All that an entry can be sorted by.
COLUMNS: tuple[Column, ...] = (
    Column("accuracy", "accuracy", "accuracy", lambda entry: entry.accuracy, _share, larger_is_better=True),
    Column("recipe", "recipe", "recipe", lambda entry: entry.label, str),
    Column("run", "run", "run or group", lambda entry: entry.name, str),
    Column("experiment", "experiment", "experiment", lambda entry: entry.experiment, str),
    *FIGURES,
)
