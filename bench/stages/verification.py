"""What scores of pairs are worth: a threshold, accuracy at it, ROC, EER, and TAR at low FAR."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.stages.evaluate import evaluate as evaluate_classes
from bench.stages.evaluate import score as score_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.stages.evaluate import Predictions

__all__ = ["Roc", "at_threshold", "best_threshold", "cross_fitted", "evaluate_pairs", "roc", "score_pairs"]

#: False accept rates at which the true accept rate is reported.
FALSE_ACCEPT_RATES = (0.01, 0.001)

_FOLDS = 10
_RESAMPLES = 1000


class Roc(NamedTuple):
    """A curve over falling thresholds: false and true accept rates, from (0, 0) to (1, 1)."""

    false_accepts: NDArray[np.float64]
    true_accepts: NDArray[np.float64]


def best_threshold(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The score from which on most pairs are judged rightly as "same"; in the middle of a gap between two scores.

    Where several thresholds are equally good, the middle one of them. It is a float32, as the scores are, so that a
    comparison in either precision says the same.
    """
    order = np.argsort(scores, kind="stable")
    ordered, same = scores[order].astype(np.float32), labels[order] == 1
    # correct[i]: the first i pairs are "different", the rest "same".
    correct = np.concatenate([[0], np.cumsum(~same)]) + same.sum() - np.concatenate([[0], np.cumsum(same)])
    borders = np.concatenate([[True], np.diff(ordered) > 0, [True]])
    middles = (ordered[1:] + ordered[:-1]) / 2
    middles = np.where(middles > ordered[:-1], middles, ordered[1:])  # between neighbours, float32 has no middle
    edges = np.concatenate([ordered[:1], middles, np.nextafter(ordered[-1:], np.float32(np.inf))])
    best = np.flatnonzero(borders & (correct == correct[borders].max()))
    return float(edges[best[(len(best) - 1) // 2]])


def at_threshold(predictions: Predictions, threshold: float) -> Predictions:
    """Each pair judged at one threshold."""
    return replace(predictions, decided=(predictions.probabilities[:, 1] >= threshold).astype(np.int64))


def cross_fitted(predictions: Predictions) -> Predictions:
    """Each tenth of the pairs judged at the threshold of the other nine, so that none is judged by its own label."""
    scores, labels = predictions.probabilities[:, 1], predictions.labels
    folds = np.empty(len(labels), dtype=np.int64)  # as many of each label in each
    for label in (0, 1):
        own = np.flatnonzero(labels == label)
        folds[own] = np.random.default_rng(label).permutation(len(own)) % _FOLDS
    decided = np.zeros(len(labels), dtype=np.int64)
    for fold in np.unique(folds):
        own, others = folds == fold, folds != fold
        threshold = best_threshold(scores[others], labels[others]) if others.any() else 0.5
        decided[own] = scores[own] >= threshold
    return replace(predictions, decided=decided)


def roc(scores: NDArray[np.floating], labels: NDArray[np.int64], weights: NDArray[np.float64] | None = None) -> Roc:
    """The receiver operating characteristic; equal scores are one step. `weights` counts each pair."""
    order = np.argsort(-scores, kind="stable")
    weight = np.ones(len(scores)) if weights is None else weights[order]
    same = (labels[order] == 1) * weight
    different = weight - same
    last = np.append(np.diff(scores[order]) != 0, True)  # the last of equal scores
    curves = [np.concatenate([[0.0], np.cumsum(part)[last]]) for part in (different, same)]
    return Roc(*(curve / max(curve[-1], 1e-12) for curve in curves))


def score_pairs(predictions: Predictions) -> dict[str, float]:
    """The tracked metrics: accuracy of what was decided, AUROC, EER, TAR at FAR, log loss, ECE, loss."""
    classes = score_classes(predictions)
    kept = {name: classes[name] for name in ("accuracy", "auroc", "log_loss", "ece", "loss")}
    return {**kept, **_curve_metrics(roc(predictions.probabilities[:, 1], predictions.labels))}


def evaluate_pairs(predictions: Predictions, classes: tuple[str, ...]) -> dict[str, Any]:
    """The whole evaluation of a split of pairs: as for classes, and intervals of the curve's metrics.

    The 95 % intervals are percentiles of a bootstrap over pairs, drawn within each label. `far_step` is the smallest
    false accept rate above 0 that the pairs can show; a TAR at a lower FAR is that at no false accept at all.
    """
    whole = evaluate_classes(predictions, classes)
    scores, labels = predictions.probabilities[:, 1], predictions.labels
    whole["metrics"] = score_pairs(predictions)
    whole["intervals"] = _bootstrap(scores, labels)
    whole["far_step"] = 1 / max(int((labels == 0).sum()), 1)
    curve = roc(scores, labels)
    kept = np.unique(np.linspace(0, len(curve.false_accepts) - 1, 400).astype(int))  # enough to draw it
    whole["roc"] = {name: values[kept].round(6).tolist() for name, values in curve._asdict().items()}
    return whole


def _curve_metrics(curve: Roc) -> dict[str, float]:
    """AUROC by the trapezoid rule, EER where the curve meets false rejects = false accepts, TAR at or below each FAR."""
    false, true = curve
    gap = (1 - true) - false  # falls from 1 to -1
    after = int(np.argmax(gap <= 0))
    before = max(after - 1, 0)
    step = gap[before] - gap[after]
    share = gap[before] / step if step > 0 else 0.0
    eer = false[before] + share * (false[after] - false[before])
    tar = {f"tar_at_far_{far}": float(true[false <= far].max()) for far in FALSE_ACCEPT_RATES}
    return {"auroc": float(np.trapezoid(true, false)), "eer": float(eer), **tar}


def _bootstrap(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> dict[str, tuple[float, float]]:
    random = np.random.default_rng(0)
    groups = [np.flatnonzero(labels == label) for label in (0, 1)]
    if not all(len(group) for group in groups):
        return {}
    drawn: list[dict[str, float]] = []
    for _ in range(_RESAMPLES):
        counts = np.zeros(len(labels))
        for group in groups:
            counts[group] = np.bincount(random.integers(len(group), size=len(group)), minlength=len(group))
        drawn.append(_curve_metrics(roc(scores, labels, counts)))
    return {name: tuple(np.percentile([values[name] for values in drawn], [2.5, 97.5]).tolist()) for name in drawn[0]}
