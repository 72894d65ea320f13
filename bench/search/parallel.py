"""Parallel coordinates: a line a trial, through its parameters to its objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.search.plots import Summary, all_keys, spans_decades, valued
from bench.search.wording import name_of, value_text
from bench.svg import INK, LINE, QUIET, hue, svg
from bench.words import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["parallel_plot"]

_MOST_COLUMNS = 10


def parallel_plot(summary: Summary) -> str | None:
    """A line a trial through its parameters to its objectives; the darker, the better; the best ones coloured."""
    shown = [row for row in valued(summary) if row["state"] == "complete"]
    names = [one["metric"] for one in summary["objectives"]]
    keys = _parameters(summary, shown)
    if len(shown) < 2 or not keys:  # noqa: PLR2004  # a line alone shows nothing
        return None
    columns = [_Column(key, [row["params"].get(key) for row in shown]) for key in keys]
    columns += [_Column(name, [row["values"][index] for row in shown]) for index, name in enumerate(names)]
    best = set(summary["front"] or [summary["best"]])
    ranks = _ranks(summary, shown)

    def draw(axes: Axes) -> None:
        for row, rank in sorted(zip(shown, ranks, strict=True), key=lambda one: (one[0]["number"] in best, -one[1])):
            places = [columns[i].place(v) for i, v in enumerate(_through(row, keys))]
            chosen = row["number"] in best
            axes.plot(range(len(columns)), places, color=hue(1) if chosen else hue(0),
                      alpha=0.9 if chosen else 0.12 + 0.45 * (1 - rank), lw=2.0 if chosen else 1.0)  # fmt: skip
        for number, column in enumerate(columns):
            axes.axvline(number, color=LINE, lw=1, zorder=0)
            for at, text in column.ticks():
                axes.text(number + 0.03, at, text, fontsize=7.5, color=QUIET, va="center", clip_on=False)
        labels = [shorten(name_of(column.name), 20, head=0.3) for column in columns]
        axes.set_xticks(range(len(columns)), labels, rotation=25, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", labelcolor=INK)
        axes.set_xlim(-0.05, len(columns) - 0.55)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    return svg(draw, "parallel", width_in=11.0, height_in=4.2)


class _Column:
    """An axis of the parallel coordinates: numbers, logarithmic where they span decades, or words."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.name = name
        known = [value for value in values if value is not None]
        self._numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
        self._words = sorted({str(value) for value in known})
        ends: tuple[float, float] = (min(known), max(known)) if self._numeric else (0, len(self._words) - 1)
        self._low, self._high = ends
        self._log = self._numeric and spans_decades(known)

    def place(self, value: Any) -> float:
        """Where a value stands, 0..1; NaN (a gap) where the trial has no such parameter."""
        if value is None:
            return math.nan
        low, high = self._low, self._high
        at = value if self._numeric else self._words.index(str(value))
        if self._log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return 0.5 if high <= low else float((at - low) / (high - low))

    def ticks(self) -> list[tuple[float, str]]:
        """(place, text): the ends of numbers, every word."""
        if not self._numeric:
            return [(self.place(word), shorten(word, 16)) for word in self._words[:12]]
        texts = [value_text(self.name, v) for v in (self._low, self._high)]
        return [(0.5, texts[0])] if self._low == self._high else [(0.0, texts[0]), (1.0, texts[1])]


def _through(row: Mapping[str, Any], keys: Sequence[str]) -> list[Any]:
    return [*(row["params"].get(key) for key in keys), *row["values"]]


def _parameters(summary: Summary, shown: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parameters that vary, the most important ones where there are many, in the order of the space."""
    keys = [k for k in all_keys([r["params"] for r in shown]) if len({str(r["params"].get(k)) for r in shown}) > 1]
    weight = {key: sum(shares.get(key, 0.0) for shares in summary["importances"].values()) for key in keys}
    kept = sorted(keys, key=lambda key: -weight[key])[: _MOST_COLUMNS - len(summary["objectives"])]
    return [key for key in keys if key in kept]


def _ranks(summary: Summary, shown: Sequence[Mapping[str, Any]]) -> list[float]:
    """0 for the best trial by the first objective, 1 for the worst."""
    sign = -1 if summary["objectives"][0]["direction"] == "maximize" else 1
    ordered = sorted(sign * row["values"][0] for row in shown)
    return [ordered.index(sign * row["values"][0]) / max(1, len(ordered) - 1) for row in shown]
