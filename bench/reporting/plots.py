"""The plots of a run: learning curves, confidences, reliability, and of pairs ROC and scores. Inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.statistics import wilson_interval
from bench.svg import INK, QUIET, hue, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from bench.reporting.calibration import Bin, Calibration

__all__ = [
    "SIZE",
    "Plot",
    "confidence_plot",
    "curve_plots",
    "legend_above",
    "reliability_plot",
    "roc_plot",
    "scores_plot",
]

_BINS = 40
SIZE = {"width_in": 4.5, "height_in": 3.2}  # so small that its letters can be read on a phone
_FEW_EPOCHS = 40  # that many still get a marker each

#: Panel -> (title, series in metrics.jsonl -> label, axis).
_CURVES: Mapping[str, tuple[str, Mapping[str, str], str]] = {
    "loss": ("Loss", {"train_loss": "training", "val_loss": "validation"}, "loss an image"),
    "accuracy": ("Accuracy", {"train_accuracy": "training", "val_accuracy": "validation"}, "right"),
    "lr": ("Learning rate", {"lr": "learning rate"}, "learning rate"),
}


class Plot(NamedTuple):
    """A plot with its title and a sentence about it."""

    title: str
    text: str
    svg: str


def curve_plots(epochs: Sequence[Mapping[str, Any]], *, result_epoch: int | None, prefix: str) -> list[Plot]:
    """Loss, accuracy and learning rate over the epochs, with the one whose weights are the result; what was not tracked
    is left out.
    """
    plots = []
    for panel, (title, series, label) in _CURVES.items():
        curves = {name: _series(epochs, key) for key, name in series.items()}
        curves = {name: points for name, points in curves.items() if points}
        if not curves:
            continue
        marked = result_epoch if panel != "lr" else None
        draw = partial(_draw_curves, curves=curves, marked=marked, label=label)
        drawn = svg(draw, f"{prefix}-{panel}", **SIZE)
        plots.append(Plot(title, f"The result is that of epoch {marked}." if marked else "", drawn))
    return plots


def confidence_plot(confidence: NDArray[np.float64], right: NDArray[np.bool_], *, prefix: str) -> Plot:
    """How sure the run was of its right and of its wrong guesses."""

    def draw(axes: Axes) -> None:
        bins = np.linspace(0, 1, _BINS + 1).tolist()
        for number, (name, own) in enumerate((("right", right), ("wrong", ~right))):
            if own.any():
                label = f"{name} ({int(own.sum()):,})"
                axes.hist(confidence[own], bins=bins, color=hue(number), alpha=0.6, label=label)
        _counts(axes)
        axes.set(xlabel="probability of the guess", ylabel="samples")
        axes.xaxis.set_major_formatter(_percent())
        legend_above(axes)

    text = "How probable the model took its guesses for; the counts are on a logarithmic axis."
    return Plot("Confidence", text, svg(draw, f"{prefix}-confidence", **SIZE))


def scores_plot(
    scores: NDArray[np.float64], labels: NDArray[np.int64], threshold: float | None, *, prefix: str
) -> Plot:
    """How the scores of same and of different pairs lie, with the threshold."""

    def draw(axes: Axes) -> None:
        low, high = float(scores.min()), float(scores.max())
        bins = np.linspace(low, max(high, low + 1e-3), _BINS + 1).tolist()
        for number, (label, name) in enumerate(((1, "same"), (0, "different"))):
            own = scores[labels == label]
            axes.hist(own, bins=bins, color=hue(number), alpha=0.55, label=f"{name} ({len(own):,})")
        if threshold is not None:
            axes.axvline(threshold, color=INK, linestyle=":", label=f"threshold {threshold:.4f}")
        axes.set(xlabel="score", ylabel="pairs")
        axes.ticklabel_format(axis="x", useOffset=False)
        legend_above(axes, columns=3)

    return Plot("Scores", "From the threshold on, a pair is taken for the same.", svg(draw, f"{prefix}-scores", **SIZE))


def roc_plot(scores: NDArray[np.float64], labels: NDArray[np.int64], eer: float | None, *, prefix: str) -> Plot:
    """True against false accepts over all thresholds, false accepts on a logarithmic axis."""
    from bench.stages.verification import roc

    false, true = roc(scores, labels)
    least = min(0.5 / max(int((labels == 0).sum()), 1), 0.05)  # stands for no false accept

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        kept = np.unique(np.linspace(0, len(false) - 1, 400).astype(int))
        axes.step(np.maximum(false[kept], least), true[kept], where="post", color=hue(0))
        chance = np.geomspace(least, 1, 60)
        axes.plot(chance, chance, color=QUIET, linestyle=":", linewidth=1.2, label="chance")
        if eer is not None and math.isfinite(eer):
            axes.plot([max(eer, least)], [1 - eer], "o", color=hue(1), label=f"equal error rate {eer:.2%}")
        axes.set(xscale="log", xlim=(least, 1), ylim=(0, 1.02), xlabel="false accept rate", ylabel="true accept rate")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g}%"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(_percent())
        legend_above(axes)

    return Plot("ROC", "The left end stands for no false accept at all.", svg(draw, f"{prefix}-roc", **SIZE))


def reliability_plot(found: Calibration, *, prefix: str) -> Plot:
    """Accuracy against confidence before and after temperature scaling, with Wilson intervals."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1.2)
        both = (("as it is", found.bins, found.error), ("temperature scaled", found.bins_scaled, found.error_scaled))
        for number, (name, bins, error) in enumerate(both):
            _draw_bins(axes, bins, number, f"{name}: ECE {error:.4f}")
        axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="mean confidence", ylabel="right")
        axes.xaxis.set_major_formatter(_percent())
        axes.yaxis.set_major_formatter(_percent())
        legend_above(axes)

    text = "On the dotted line, a confidence of 80 % is right in 80 % of the cases. Bars are 95 % intervals."
    return Plot("Reliability", text, svg(draw, f"{prefix}-reliability", **SIZE))


def _draw_bins(axes: Axes, bins: Sequence[Bin], number: int, label: str) -> None:
    filled = [one for one in bins if one.samples]
    shares = [one.right / one.samples for one in filled]
    ends = [wilson_interval(one.right, one.samples) for one in filled]
    bars = [
        [max(0.0, share - low) for share, (low, _) in zip(shares, ends, strict=True)],
        [max(0.0, high - share) for share, (_, high) in zip(shares, ends, strict=True)],
    ]
    style: dict[str, Any] = {"marker": "os"[number], "ms": 4, "lw": 0.8, "elinewidth": 0.9, "capsize": 2}
    axes.errorbar([one.confidence for one in filled], shares, yerr=bars, color=hue(number), label=label, **style)


def _draw_curves(
    axes: Axes, *, curves: Mapping[str, Sequence[tuple[int, float]]], marked: int | None, label: str
) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, (name, points) in enumerate(curves.items()):
        marker = "o" if len(points) <= _FEW_EPOCHS else None
        axes.plot([x for x, _ in points], [y for _, y in points], color=hue(number), label=name, marker=marker, ms=3)
    if marked:
        axes.axvline(marked, color=QUIET, linestyle=":", linewidth=1.2)
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if label == "right":
        axes.yaxis.set_major_formatter(_percent())
    if len(curves) > 1:
        legend_above(axes)


def legend_above(axes: Axes, *, columns: int = 2) -> None:
    """A legend that covers nothing of the plot."""
    figure = axes.get_figure()
    assert figure is not None  # noqa: S101  # these axes were made on one
    figure.legend(
        frameon=False, loc="outside upper left", ncols=columns, fontsize=9, columnspacing=1.2, handlelength=1.6
    )


def _series(epochs: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """The finite values of one metric, by epoch."""
    points = [(line["epoch"], line["values"].get(key)) for line in epochs]
    return [(x, float(y)) for x, y in points if isinstance(y, int | float) and math.isfinite(y)]


def _counts(axes: Axes) -> None:
    """A logarithmic axis of counts in plain digits."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set(yscale="log", ylim=(0.7, None))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _percent() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda share, _: f"{100 * share:g}%")
