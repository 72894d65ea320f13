"""The plots of the latency page: inline SVG whose colours are the page's, so that they follow its light or dark scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.svg import HUES, hue, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HUES", "batches_plot", "distribution_plot", "drift_plot"]

_DASHES = ("-", "--", ":")
_TICKS = ("0", "50", "90", "99", "99.9")
_LAST_OF_GRID = 99.0
_MANY_DECADES, _FEW_DECADES = 2.0, 0.5


def distribution_plot(candidates: Sequence[Mapping[str, Any]], measure: str) -> str | None:
    """Latency by percentile, stretched towards the slow end; bars are the percentiles' 95 % intervals."""
    shown = [(number, one["measures"][measure]) for number, one in _measured(candidates, measure, "grid_ms")]
    if not shown:
        return None

    def draw(axes: Axes) -> None:
        for number, values in shown:
            levels = {level: found for level, found in values["percentiles"].items() if "value_ms" in found}
            curve = {100 * k / (len(values["grid_ms"]) - 1): at for k, at in enumerate(values["grid_ms"][:-1])}
            highest = max((float(level) for level in levels), default=_LAST_OF_GRID)
            curve = {level: at for level, at in curve.items() if level <= highest}
            curve |= {float(level): found["value_ms"] for level, found in levels.items()}
            axes.plot(
                [_stretched(level) for level in sorted(curve)], [curve[k] for k in sorted(curve)], **_line(number)
            )
            ends = [(found["value_ms"], found["low_ms"], found["high_ms"]) for found in levels.values()]
            bars = [
                [max(0.0, middle - low) for middle, low, _ in ends],
                [max(0.0, high - middle) for middle, _, high in ends],
            ]
            places = [_stretched(float(level)) for level in levels]
            axes.errorbar(places, [at for at, *_ in ends], yerr=bars, fmt="o", ms=4, capsize=3, color=hue(number))
        axes.set(yscale="log", ylabel="ms a query", xlabel="percentile")
        axes.set_xticks([_stretched(float(level)) for level in _TICKS], [f"p{level}" for level in _TICKS])
        _plain_ticks(axes, "y")

    return svg(draw, f"distribution-{measure}")


def drift_plot(candidates: Sequence[Mapping[str, Any]], measure: str) -> str | None:
    """The median of each block, relative to the candidate's own: a level line, or the machine has changed meanwhile."""
    shown = [(number, one["measures"][measure]["blocks"]) for number, one in _measured(candidates, measure, "blocks")]
    if not shown or max(len(blocks) for _, blocks in shown) < 2:  # noqa: PLR2004  # a point is no course
        return None
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        for number, blocks in shown:
            medians = [block["p50_ms"] for block in blocks]
            middle = sorted(medians)[len(medians) // 2]
            axes.plot(
                range(1, len(medians) + 1), [100 * (m / middle - 1) for m in medians], marker="o", ms=4, **_line(number)
            )
        axes.set(xlabel="block, in order of time", ylabel="p50 against its median, %")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -5), max(high, 5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return svg(draw, f"drift-{measure}")


def batches_plot(entries: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str | None:
    """Images a second against the batch size, both logarithmic, with 95 % intervals, cut at a tenth of the value."""
    if len({entry["batch"] for entry in entries}) < 2:  # noqa: PLR2004
        return None

    def draw(axes: Axes) -> None:
        for number, name in enumerate(names):
            own = sorted((entry for entry in entries if entry["candidate"] == name), key=lambda entry: entry["batch"])
            if own:
                speeds = [entry["samples_per_second"] for entry in own]
                ends = [
                    [
                        min(max(0.0, speed - entry["low"]), 0.9 * speed)
                        for speed, entry in zip(speeds, own, strict=True)
                    ],
                    [max(0.0, entry["high"] - speed) for speed, entry in zip(speeds, own, strict=True)],
                ]
                axes.errorbar(
                    [e["batch"] for e in own], speeds, yerr=ends, marker="o", ms=4, capsize=3, **_line(number)
                )
        sizes = sorted({entry["batch"] for entry in entries})
        axes.set(xscale="log", yscale="log", xlabel="batch", ylabel="images a second")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.xaxis.minorticks_off()
        _plain_ticks(axes, "y")

    return svg(draw, "batches")


def _measured(candidates: Sequence[Mapping[str, Any]], measure: str, key: str) -> list[tuple[int, Mapping[str, Any]]]:
    return [(number, one) for number, one in enumerate(candidates) if one["measures"].get(measure, {}).get(key)]


def _stretched(level: float) -> float:
    """Where a percentile stands on the axis: p90, p99 and p99.9 at equal distances."""
    return -math.log10(1 - level / 100)


def _line(number: int) -> dict[str, Any]:
    return {"color": hue(number), "linestyle": _DASHES[number // HUES % len(_DASHES)]}


def _plain_ticks(axes: Axes, which: str) -> None:
    """1, 2, 5, 10 in digits instead of powers of ten, few enough not to touch each other."""
    from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    places: Locator = LogLocator(base=10, subs=(1.0, 2.0, 5.0) if decades < _MANY_DECADES else (1.0,), numticks=12)
    if decades < _FEW_DECADES:
        places = MaxNLocator(6, steps=[1, 2, 5, 10])
    axis.set_major_locator(places)
    axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


def _plain(value: float) -> str:
    """0.05, 2.5, 1,000."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"  # noqa: PLR2004  # no powers of ten
