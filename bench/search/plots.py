"""The plots of a study's page: history, front, importances and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from bench.search.wording import is_share, name_of
from bench.svg import INK, QUIET, hue, svg
from bench.words import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = [
    "Summary",
    "all_keys",
    "curves_plot",
    "front_plot",
    "history_plot",
    "importances_plot",
    "spans_decades",
    "valued",
]

_DECADES = 1.5  # an axis that spans more than this is logarithmic
MOST_PARAMETERS = 10
_MOST_CURVES = 200
_NAME = 26

Summary = Mapping[str, Any]


def history_plot(summary: Summary, index: int = 0) -> str | None:
    """An objective by trial, and the best one so far."""
    shown = valued(summary)
    if not shown:
        return None
    objective = summary["objectives"][index]

    def draw(axes: Axes) -> None:
        for state, marker, number in (("complete", "o", 0), ("infeasible", "x", 1)):
            own = [row for row in shown if row["state"] == state]
            if own:
                axes.scatter([r["number"] for r in own], [r["values"][index] for r in own], s=18, marker=marker,
                             color=hue(number), label=state, alpha=0.75)  # fmt: skip
        course = summary["history"]
        last = max(row["number"] for row in summary["trials"])
        if course:
            places = [one["number"] for one in course] + [last]
            axes.step(places, [one["best"][index] for one in [*course, course[-1]]], where="post", color=hue(2),
                      label="best so far")  # fmt: skip
        axes.set(xlabel="trial", ylabel=name_of(objective["metric"]))
        _scale(axes, "y", [row["values"][index] for row in shown], objective["metric"])
        _whole_numbers(axes)
        _legend(axes)

    return svg(draw, f"history-{index}")


def front_plot(summary: Summary, across: int, up: int = 0) -> str | None:
    """Two objectives of all trials, with the front as a line and the knee as a diamond."""
    shown = valued(summary)
    if not shown or not summary["front"]:
        return None
    names = [one["metric"] for one in summary["objectives"]]
    members = set(summary["front"])

    def draw(axes: Axes) -> None:
        groups = (
            ("dominated", [r for r in shown if r["state"] == "complete" and r["number"] not in members], "o", QUIET),
            ("infeasible", [r for r in shown if r["state"] == "infeasible"], "x", hue(1)),
            ("front", [r for r in shown if r["number"] in members], "o", hue(0)),
        )
        for label, rows, marker, colour in groups:
            if rows:
                axes.scatter([r["values"][across] for r in rows], [r["values"][up] for r in rows], s=22, marker=marker,
                             color=colour, label=label, alpha=0.5 if label == "dominated" else 0.95)  # fmt: skip
        if len(names) == 2:  # noqa: PLR2004  # a front of more is a surface
            line = sorted((r["values"][across], r["values"][up]) for r in groups[2][1])
            axes.step([x for x, _ in line], [y for _, y in line], where=_corner(summary, across), color=hue(0), lw=1.2)
        for row in groups[2][1]:
            if row["number"] == summary["knee"]:
                axes.scatter([row["values"][across]], [row["values"][up]], s=110, marker="D", facecolor="none",
                             edgecolor=hue(3), linewidth=1.8, label=f"knee (trial {row['number']})")  # fmt: skip
        axes.set(xlabel=name_of(names[across]), ylabel=name_of(names[up]))
        _scale(axes, "x", [row["values"][across] for row in shown], names[across])
        _scale(axes, "y", [row["values"][up] for row in shown], names[up])
        _legend(axes)

    return svg(draw, f"front-{across}-{up}")


def importances_plot(summary: Summary) -> str | None:
    """The share of each parameter in each objective, the most important at the top."""
    found: Mapping[str, Mapping[str, float]] = summary["importances"]
    if not found:
        return None
    total = {key: sum(shares.get(key, 0.0) for shares in found.values()) for key in all_keys(found)}
    keys = sorted(total, key=lambda key: total[key])[-MOST_PARAMETERS:]
    thickness = 0.8 / len(found)

    def draw(axes: Axes) -> None:
        for number, (metric, shares) in enumerate(found.items()):
            offset = 0.4 - thickness * (number + 0.5)
            axes.barh([place + offset for place in range(len(keys))], [100 * shares.get(key, 0.0) for key in keys],
                      height=0.9 * thickness, color=hue(number), label=name_of(metric))  # fmt: skip
        axes.set_yticks(range(len(keys)), [shorten(key, _NAME) for key in keys])
        axes.set(xlabel="importance, %")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", labelcolor=INK)
        if len(found) > 1:
            _legend(axes)

    return svg(draw, "importances", height_in=max(1.8, 0.9 + len(keys) * max(0.27, 0.2 * len(found))))


def curves_plot(summary: Summary) -> str | None:
    """What each trial reported epoch by epoch; pruned ones end early."""
    shown = [row for row in summary["trials"] if len(row["curve"]) > 1][-_MOST_CURVES:]
    if not shown:
        return None

    def draw(axes: Axes) -> None:
        labelled: set[str] = set()
        for row in shown:
            pruned, best = row["state"] == "pruned", row["number"] == summary["best"]
            label = f"trial {row['number']}, the best" if best else "pruned" if pruned else "trained to the end"
            points = sorted((int(step), value) for step, value in row["curve"].items())
            axes.plot([s for s, _ in points], [v for _, v in points], color=hue(2 if best else 1 if pruned else 0),
                      lw=2.2 if best else 1.0, alpha=1.0 if best else 0.55, zorder=3 if best else 2,
                      label=None if label in labelled else label)  # fmt: skip
            labelled.add(label)
        metric = summary["objectives"][0]["metric"]
        by_runs = any("0" in row["curve"] for row in shown)  # epochs are counted from 1
        axes.set(xlabel="seeds and folds" if by_runs else "epoch", ylabel=name_of(metric))
        _scale(axes, "y", [v for row in shown for v in row["curve"].values()], metric)
        _whole_numbers(axes)
        _legend(axes)

    return svg(draw, "curves")


def spans_decades(values: Sequence[float]) -> bool:
    """Whether values are better told apart on a logarithmic axis."""
    return min(values) > 0 and math.log10(max(values) / min(values)) > _DECADES


def valued(summary: Summary) -> list[Mapping[str, Any]]:
    """The trials that have a value for every objective, feasible or not."""
    states = {"complete", "infeasible"}
    return [
        row
        for row in summary["trials"]
        if row["state"] in states and row["values"] and all(map(math.isfinite, row["values"]))
    ]


def all_keys(tables: Mapping[str, Mapping[str, Any]] | Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of all tables, in the order in which they first occur."""
    values = tables.values() if isinstance(tables, Mapping) else tables
    return list(dict.fromkeys(key for table in values for key in table))


def _corner(summary: Summary, across: int) -> Literal["post", "pre"]:
    """Which way the front's steps go, so that the line is what a trial would have to beat."""
    return "post" if summary["objectives"][across]["direction"] == "minimize" else "pre"


def _scale(axes: Axes, which: str, values: Sequence[float], metric: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    if spans_decades(values) and not is_share(metric):
        axes.set(**{f"{which}scale": "log"})
        axis.set_major_locator(LogLocator(base=10, numticks=9))
        axis.set_minor_formatter(NullFormatter())
    scale, unit = (100.0, " %") if is_share(metric) else (1.0, "")
    axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(scale * value) + unit))


def _plain(value: float) -> str:
    """0.05, 2.5, 1,000, 2.5M."""
    for limit, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004  # no powers of ten


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
