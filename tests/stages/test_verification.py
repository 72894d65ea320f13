"""Thresholds, curves and intervals, against values worked out by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from bench.stages.evaluate import Predictions
from bench.stages.verification import (
    at_threshold,
    best_threshold,
    cross_fitted,
    evaluate_pairs,
    roc,
    score_pairs,
)


def predictions(scores: np.ndarray, labels: np.ndarray) -> Predictions:
    scores = np.asarray(scores, dtype=np.float32)
    table = np.stack([1 - scores, scores], 1)
    return Predictions(table, np.asarray(labels), tuple(map(str, range(len(labels)))), 0.5)


def overlapping(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return 1 / (1 + np.exp(-random.normal(labels * 1.5 - 0.75, 1))), labels


def test_the_threshold_lies_in_the_middle_of_the_gap() -> None:
    assert best_threshold(np.array([0.1, 0.2, 0.6, 0.9]), np.array([0, 0, 1, 1])) == pytest.approx(0.4)


def test_the_threshold_is_the_best_of_all() -> None:
    scores, labels = overlapping()
    chosen = best_threshold(scores, labels)
    every = [np.mean((scores >= t) == labels) for t in np.append(scores, 2.0)]
    assert np.mean((scores >= chosen) == labels) == max(every)


@pytest.mark.parametrize(("labels", "all_same"), [([1, 1, 1], True), ([0, 0, 0], False)])
def test_one_label_alone_has_a_threshold_too(labels: list[int], all_same: bool) -> None:
    scores = np.array([0.2, 0.5, 0.9], dtype=np.float32)
    assert ((scores >= best_threshold(scores, np.array(labels))) == all_same).all()


def test_equal_scores_are_never_divided() -> None:
    scores, labels = np.array([0.3, 0.5, 0.5, 0.5, 0.8]), np.array([0, 0, 1, 1, 1])
    chosen = best_threshold(scores, labels)
    assert chosen == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("scores", "labels", "accuracy"),
    [
        ([1.0, 1.0, 1.0, 1.0], [0, 0, 0, 1], 0.75),  # a saturated sigmoid: all are different
        ([0.5, np.nextafter(np.float32(0.5), np.float32(1))], [0, 1], 1.0),  # neighbours in float32
    ],
)
def test_a_threshold_judges_as_it_promised_in_either_precision(
    scores: list[float], labels: list[int], accuracy: float
) -> None:
    given = predictions(np.array(scores, dtype=np.float32), np.array(labels))
    chosen = best_threshold(given.probabilities[:, 1], given.labels)
    assert (at_threshold(given, chosen).guesses == given.labels).mean() == accuracy
    assert ((given.probabilities[:, 1].astype(np.float64) >= chosen) == given.labels).mean() == accuracy
    assert float(np.float32(chosen)) == chosen


def test_the_curve_is_scikit_learns() -> None:
    scores, labels = overlapping()
    scores = scores.round(2)  # ties
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    curve = roc(scores, labels)
    assert np.allclose(curve.false_accepts, false)
    assert np.allclose(curve.true_accepts, true)
    assert score_pairs(predictions(scores, labels))["auroc"] == pytest.approx(
        roc_auc_score(labels, scores.astype(np.float32))
    )


def test_weights_count_pairs_as_often() -> None:
    scores, labels = overlapping(40)
    counts = np.random.default_rng(0).integers(0, 3, 40)
    repeated = roc(np.repeat(scores, counts), np.repeat(labels, counts))
    weighted = roc(scores, labels, counts.astype(float))
    at = np.unique(repeated.false_accepts)
    expected = [repeated.true_accepts[repeated.false_accepts <= x].max() for x in at]
    assert [weighted.true_accepts[weighted.false_accepts <= x + 1e-12].max() for x in at] == pytest.approx(expected)


def test_eer_and_tar_of_ten_pairs_by_hand() -> None:
    # From the top: same, same, different, same, different, same, different, different, same, different.
    labels = np.array([1, 1, 0, 1, 0, 1, 0, 0, 1, 0])
    metrics = score_pairs(predictions(np.linspace(0.95, 0.05, 10), labels))
    assert metrics["eer"] == pytest.approx(0.4)  # two of five falsely accepted, two falsely rejected
    assert metrics["tar_at_far_0.01"] == metrics["tar_at_far_0.001"] == pytest.approx(0.4)  # before the first error


def test_a_perfect_score_and_a_reversed_one() -> None:
    labels = np.array([0, 0, 1, 1])
    good = score_pairs(predictions(np.array([0.1, 0.2, 0.8, 0.9]), labels))
    bad = score_pairs(predictions(np.array([0.9, 0.8, 0.2, 0.1]), labels))
    assert (good["auroc"], good["eer"], good["tar_at_far_0.001"]) == (1, 0, 1)
    assert (bad["auroc"], bad["eer"], bad["tar_at_far_0.001"]) == (0, 1, 0)


def test_cross_fitting_does_not_let_a_pair_choose_its_own_threshold() -> None:
    random = np.random.default_rng(1)
    labels = np.arange(60) % 2
    noise = [predictions(random.random(60), labels) for _ in range(200)]
    own = [at_threshold(p, best_threshold(p.probabilities[:, 1], p.labels)).guesses == labels for p in noise]
    fitted = [cross_fitted(p).guesses == labels for p in noise]
    assert np.mean(own) > 0.55  # what choosing on the very same pairs pretends
    assert 0.4 < np.mean(fitted) < 0.51


def test_the_intervals_cover_the_true_value() -> None:
    # Normal scores 1.5 deviations apart: the area under the curve is Phi(1.5 / sqrt(2)) = 0.8556.
    inside = 0
    for seed in range(20):
        low, high = evaluate_pairs(predictions(*overlapping(seed=seed)), ("different", "same"))["intervals"]["auroc"]
        inside += low <= 0.8556 <= high
    assert inside >= 16


def test_the_evaluation_says_what_false_accept_rate_it_can_resolve() -> None:
    values = evaluate_pairs(predictions(*overlapping(100)), ("different", "same"))
    assert values["far_step"] == 1 / 50
    assert values["images"] == 100
    assert [entry["name"] for entry in values["classes"]] == ["different", "same"]
    assert values["roc"]["false_accepts"][0] == 0
    assert values["roc"]["true_accepts"][-1] == 1
