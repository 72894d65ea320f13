"""Accuracy against what it costs, with the entries that none beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.comparison.columns import Column, column_of
from bench.comparison.model import Entry
from bench.svg import INK, QUIET, hue, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["front", "pareto_plots"]

#: Column -> the axis' label.
_ACROSS = {"p50": "median latency, ms", "size": "exported file, MB", "parameters": "parameters"}

_FEWEST = 2
_MOST_NUMBERS = 30
#: An axis whose ends differ more than so many times is logarithmic, or has a tick a decade only.
_SPREAD, _WIDE = 8.0, 300.0


def pareto_plots(entries: Sequence[Entry], name: str) -> list[tuple[str, str]]:
    """(title, SVG): accuracy against latency, size and parameters, as far as two entries have them."""
    found = []
    for key, label in _ACROSS.items():
        column = column_of(key)
        points = [(entry, value) for entry in entries if isinstance(value := column.value(entry), float)]
        if len({value for _, value in points}) >= _FEWEST:
            found.append((f"Accuracy against {column.meaning}", _plot(points, column, label, f"{name}-{key}")))
    return found


def front(points: Sequence[tuple[Entry, float]]) -> list[tuple[Entry, float]]:
    """The points that no other beats: less cost and at least the accuracy; cheapest first."""
    best: list[tuple[Entry, float]] = []
    for entry, cost in sorted(points, key=lambda point: (point[1], -point[0].accuracy)):
        if not best or entry.accuracy > best[-1][0].accuracy:
            best.append((entry, cost))
    return best


def _plot(points: Sequence[tuple[Entry, float]], column: Column, label: str, name: str) -> str:
    best = front(points)
    numbers = {entry.number for entry, _ in best}

    def draw(axes: Axes) -> None:
        for group, colour in (([p for p in points if p[0].number not in numbers], QUIET), (best, hue(0))):
            for entry, cost in group:
                centre = 100 * entry.accuracy
                low, high = (100 * end for end in entry.interval)
                axes.errorbar(
                    [cost], [centre], yerr=[[max(0.0, centre - low)], [max(0.0, high - centre)]],
                    fmt="o", ms=5, capsize=3, elinewidth=1.1, color=colour, alpha=0.9,
                )  # fmt: skip
        axes.step([cost for _, cost in best], [100 * e.accuracy for e, _ in best], where="post", color=hue(0), lw=1.2)
        if len(points) <= _MOST_NUMBERS:
            for entry, cost in points:
                axes.annotate(
                    str(entry.number), (cost, 100 * entry.accuracy), (6, 5), textcoords="offset points", color=INK
                )
        axes.set(xlabel=label, ylabel="accuracy, %")
        _scale(axes, [cost for _, cost in points], column)

    return svg(draw, name)


def _scale(axes: Axes, costs: Sequence[float], column: Column) -> None:
    """A logarithmic axis where the costs span much, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    span = max(costs) / min(costs) if min(costs) > 0 else 1.0
    if span > _SPREAD:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if span < _WIDE else (1.0,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, column) if value >= 0 else ""))
    axes.margins(x=0.12, y=0.12)


def _tick(value: float, column: Column) -> str:
    """10 and 1.5M; no zeros behind the point."""
    return f"{value:g}" if column.name != "parameters" else column.show(value).replace(".00", "").replace(".0", "")
