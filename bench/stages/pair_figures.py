"""Pictures of a verification: the ROC curve, and how the scores of same and different pairs lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.stages.drawing import BEST, QUIET, TRAIN, VALIDATION, new_figure, save_figure

if TYPE_CHECKING:
    from bench.record import Run

__all__ = ["draw_roc", "draw_scores"]

_BINS = 40


def draw_roc(evaluation: Mapping[str, Any], path: Path) -> None:
    """The ROC curve with a logarithmic axis of false accepts, EER marked; `evaluation` is a split's evaluation."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

    false, true = (np.asarray(evaluation["roc"][name]) for name in ("false_accepts", "true_accepts"))
    metrics = evaluation["metrics"]
    least = min(evaluation["far_step"] / 2, 0.05)  # stands for no false accept, which a logarithm has no place for
    figure = new_figure(6, 4.5)
    axes = figure.add_subplot()
    axes.step(np.maximum(false, least), true, where="post", color=TRAIN, linewidth=1.8)
    chance = np.geomspace(least, 1, 100)
    axes.plot(chance, chance, color=QUIET, linestyle=":", label="chance")
    eer = metrics["eer"]
    axes.plot([max(eer, least)], [1 - eer], "o", color=VALIDATION, clip_on=False, label=f"equal error rate {eer:.2%}")
    axes.set(xscale="log", xlim=(least, 1), ylim=(0, 1.02))
    axes.set(title=f"AUROC {metrics['auroc']:.4f}", xlabel="false accept rate", ylabel="true accept rate")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g}%"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    save_figure(figure, path)


def draw_scores(run: Run, split: str, path: Path) -> None:
    """Histograms of the scores of same and different pairs, and the threshold of the run."""
    with np.load(run.folder / "predictions" / f"{split}.npz") as stored:
        scores, labels = stored["probabilities"][:, 1], stored["labels"]
    metrics = json.loads((run.folder / "evaluation.json").read_text(encoding="utf-8"))[split]
    bins = np.linspace(float(scores.min()), float(max(scores.max(), scores.min() + 1e-3)), _BINS + 1).tolist()
    figure = new_figure(6, 4.5)
    axes = figure.add_subplot()
    for label, name, color in ((0, "different", VALIDATION), (1, "same", TRAIN)):
        axes.hist(
            scores[labels == label], bins=bins, color=color, alpha=0.55, label=f"{name} ({(labels == label).sum():,})"
        )
    if "threshold" in metrics:
        axes.axvline(metrics["threshold"], color=BEST, linestyle=":", label=f"threshold {metrics['threshold']:.4f}")
    axes.set(
        title=f"{len(scores):,} pairs, {metrics['metrics']['accuracy']:.1%} correct", xlabel="score", ylabel="pairs"
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.ticklabel_format(axis="x", useOffset=False)
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    save_figure(figure, path)
