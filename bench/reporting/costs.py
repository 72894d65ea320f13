"""What a run's model costs: exported files with the gate's verdicts, measured latencies, and what they buy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.reporting.plots import SIZE, Plot, legend_above
from bench.svg import hue, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench.reporting.judged import Judged
    from bench.reporting.reading import Recorded

__all__ = ["costs"]

_MEASURES = {"end_to_end": "end to end", "compute": "compute only"}
_LEVELS = ("50", "90", "99")


def costs(recorded: Recorded, judged: Judged | None, *, prefix: str) -> dict[str, Any] | None:
    """Tables and plots of exports and latency; None where the run has neither."""
    exports = list(_exports(recorded))
    rows = list(_latencies(recorded.latency))
    if not exports and not rows:
        return None
    plots = [_latency_plot(rows, prefix), _pareto_plot(recorded, judged, rows, prefix)]
    settings = recorded.latency.get("settings") or {}
    machine = (recorded.latency.get("conditions") or {}).get("machine") or {}
    about = [
        f"scenario {recorded.latency['scenario']}" if recorded.latency.get("scenario") else "",
        f"batch {settings['batch']}" if settings.get("batch") else "",
        str(machine.get("cpu") or ""),
        str(recorded.latency.get("created") or "")[:10],
    ]
    return {
        "exports": exports,
        "rows": rows,
        "levels": _LEVELS,
        "about": ", ".join(part for part in about if part),
        "caveats": [str(reason) for reason in recorded.latency.get("why_not") or ()],
        "plots": [plot for plot in plots if plot],
    }


def _exports(recorded: Recorded) -> Iterator[dict[str, Any]]:
    folder = recorded.run.folder / "export"
    for name, gate in recorded.exports.items():
        if not gate:
            continue
        file = folder / str(gate.get("file") or f"{name}.onnx")
        size = file.stat().st_size / 1e6 if file.is_file() else None
        yield {
            "file": file.name,
            "precision": str(gate.get("precision") or ""),
            "size_mb": size,
            "passed": bool(gate.get("passed")),
            "summary": str(gate.get("summary") or ""),
            "reasons": [str(reason) for reason in gate.get("reasons") or ()],
        }


def _latencies(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row a candidate and measure; a percentile is (value, low, high) in ms, or None where it was refused."""
    for number, one in enumerate(record.get("candidates") or ()):
        for key, values in (one.get("measures") or {}).items():
            levels = {level: _percentile(values, level) for level in _LEVELS}
            yield {
                "number": number,
                "name": str(one.get("name")),
                "precision": str(one.get("precision") or ""),
                "measure": _MEASURES.get(key, key),
                "key": key,
                "levels": levels,
                "speed": values.get("samples_per_second"),
                "size_mb": one.get("size_mb"),
                "memory_mb": one.get("peak_memory_mb"),
            }


def _percentile(values: Mapping[str, Any], level: str) -> tuple[float, float, float] | None:
    found = (values.get("percentiles") or {}).get(level) or {}
    if "value_ms" not in found:
        return None
    value = float(found["value_ms"])
    return value, float(found.get("low_ms", value)), float(found.get("high_ms", value))


def _latency_plot(rows: Sequence[Mapping[str, Any]], prefix: str) -> Plot | None:
    """p50, p90 and p99 of each candidate on a line, with their intervals."""
    shown = [row for row in rows if row["levels"]["50"]]
    if not shown:
        return None

    def draw(axes: Axes) -> None:
        for place, row in enumerate(reversed(shown)):
            points = [(level, found) for level, found in row["levels"].items() if found]
            axes.plot([p[0] for _, p in points], [place] * len(points), color=hue(row["number"]), lw=1.2)
            for (level, (value, low, high)), marker in zip(points, "osD", strict=False):
                axes.errorbar([value], [place], xerr=[[max(0, value - low)], [max(0, high - value)]], fmt=marker,
                              ms=5, capsize=3, color=hue(row["number"]),
                              label=f"p{level}" if place == len(shown) - 1 else None)  # fmt: skip
        axes.set_yticks(range(len(shown)), [f"{row['name']}, {row['measure']}" for row in reversed(shown)])
        axes.set(xlabel="ms a query", xlim=(0, None), ylim=(-0.6, len(shown) - 0.4))
        axes.grid(visible=False, axis="y")
        legend_above(axes, columns=3)

    height = max(2.2, 1.0 + 0.36 * len(shown))
    text = "Percentiles with their 95 % intervals; further left is faster."
    return Plot("Latency", text, svg(draw, f"{prefix}-latency", width_in=SIZE["width_in"], height_in=height))


def _pareto_plot(
    recorded: Recorded, judged: Judged | None, rows: Sequence[Mapping[str, Any]], prefix: str
) -> Plot | None:
    """Accuracy against the median latency of each candidate; the area of a point is the file's size."""
    points = list(_pareto_points(recorded, judged, rows))
    if len(points) < 2:  # noqa: PLR2004  # nothing to choose between
        return None

    def draw(axes: Axes) -> None:
        largest = max(point["size_mb"] or 0.0 for point in points) or 1.0
        for point in points:
            value, low, high = point["accuracy"]
            bars = [[100 * max(0, value - low)], [100 * max(0, high - value)]]
            colour = hue(point["number"])
            axes.errorbar([point["ms"]], [100 * value], yerr=bars, fmt="none", capsize=3, color=colour, elinewidth=1)
            size = 30 + 220 * (point["size_mb"] or 0.0) / largest
            axes.scatter([point["ms"]], [100 * value], s=size, color=colour, alpha=0.75)
            axes.plot([], [], "o", ms=6, color=colour, label=point["label"])  # for the legend alone
        axes.set(xlabel=f"median latency, {points[0]['measure']}, ms", ylabel="accuracy, %", xlim=(0, None))
        legend_above(axes, columns=2)

    text = "Up and left is better. Areas are file sizes, bars 95 % intervals of the accuracy: where they overlap, only the latency decides."
    return Plot("Accuracy, latency and size", text, svg(draw, f"{prefix}-pareto", **SIZE))


def _pareto_points(
    recorded: Recorded, judged: Judged | None, rows: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The candidates whose accuracy on the split shown is known: the trained model, and what the gate has judged."""
    if judged is None:
        return
    key = next((key for key in _MEASURES if any(row["key"] == key for row in rows)), None)
    for row in rows:
        accuracy = _accuracy_of(recorded, judged, row)
        if row["key"] != key or accuracy is None or row["levels"]["50"] is None:
            continue
        size = "" if row["size_mb"] is None else f", {row['size_mb']:.3g} MB"
        yield {**row, "accuracy": accuracy, "ms": row["levels"]["50"][0], "label": f"{row['name']}{size}"}


def _accuracy_of(recorded: Recorded, judged: Judged, row: Mapping[str, Any]) -> tuple[float, float, float] | None:
    from bench.statistics import wilson_interval

    if row["name"].startswith("torch"):
        return judged.accuracy, *wilson_interval(judged.num_right, judged.num_samples)
    for gate in recorded.exports.values():
        found = gate.get("accuracy") or {}
        if gate.get("precision") == row["precision"] and gate.get("split") == judged.split and "exported" in found:
            low, high = found.get("exported_interval") or (found["exported"], found["exported"])
            return float(found["exported"]), float(low), float(high)
    return None
