"""Metrics against scikit-learn's."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from bench.stages.calibrate import autocast
from bench.stages.evaluate import Predictions, evaluate, predict, score, tracked
from bench.stages.optim import make_loss
from bench.tables import Train


def predictions(classes: int, count: int = 300, *, seed: int = 0, without: tuple[int, ...] = ()) -> Predictions:
    """Somewhat right guesses; no image of the classes in `without`, though they are guessed."""
    random = np.random.default_rng(seed)
    labels = random.choice([label for label in range(classes) if label not in without], count)
    scores = random.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    probability = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return Predictions(probability.astype(np.float32), labels, tuple(map(str, range(count))), 0.5)


def calibration_error(probability: NDArray[np.float32], labels: NDArray[np.int64], bins: int = 15) -> float:
    confidence, right = probability.max(1), probability.argmax(1) == labels
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    return sum(
        abs(right[places == b].mean() - confidence[places == b].mean()) * (places == b).mean() for b in set(places)
    )


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_are_scikit_learns(classes: int, seed: int) -> None:
    given = predictions(classes, seed=seed)
    probability, labels, guesses = given.probabilities, given.labels, given.probabilities.argmax(1)
    # Scikit-learn wants rows that sum to 1 in float64.
    exact = probability.astype(np.float64) / probability.sum(1, dtype=np.float64, keepdims=True)
    ranked = exact[:, 1] if classes == 2 else exact
    expected = {
        "accuracy": sk.accuracy_score(labels, guesses),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, guesses),
        "macro_f1": sk.f1_score(labels, guesses, average="macro"),
        "auroc": sk.roc_auc_score(labels, ranked, multi_class="ovr", average="macro"),
        "log_loss": sk.log_loss(labels, exact),
        "ece": calibration_error(probability, labels),
        "loss": 0.5,
    }
    assert score(given) == pytest.approx(expected, abs=2e-6)
    other = multiclass_calibration_error(
        torch.from_numpy(probability), torch.from_numpy(labels), num_classes=classes, n_bins=15
    )
    assert score(given)["ece"] == pytest.approx(other.item())


def test_classes_without_images_are_left_out_of_averages() -> None:
    given = predictions(5, without=(1, 4))
    present, guesses = [0, 2, 3], given.probabilities.argmax(1)
    found = score(given)
    assert set(guesses) == {0, 1, 2, 3, 4}
    recalls = sk.recall_score(given.labels, guesses, labels=present, average=None)
    assert found["balanced_accuracy"] == pytest.approx(recalls.mean())
    assert found["macro_f1"] == pytest.approx(sk.f1_score(given.labels, guesses, labels=present, average="macro"))
    areas = [sk.roc_auc_score(given.labels == label, given.probabilities[:, label]) for label in present]
    assert found["auroc"] == pytest.approx(np.mean(areas), abs=1e-6)


def test_a_single_class_has_no_auroc() -> None:
    found = score(predictions(3, without=(0, 2)))
    assert math.isnan(found["auroc"])
    assert all(math.isfinite(value) for name, value in found.items() if name != "auroc")


@pytest.mark.parametrize("certain", [True, False])
def test_extreme_probabilities(certain: bool) -> None:
    labels = np.arange(20) % 2
    given = np.eye(2, dtype=np.float32)[labels if certain else 1 - labels]
    found = score(Predictions(given, labels, tuple("abcdefghijklmnopqrst"), 0.0))
    assert found["accuracy"] == found["auroc"] == found["macro_f1"] == float(certain)
    assert found["log_loss"] == pytest.approx(0.0 if certain else -math.log(1e-12))
    assert found["ece"] == float(not certain)


def test_the_whole_evaluation() -> None:
    given = predictions(4, without=(3,))
    guesses = given.probabilities.argmax(1)
    found = evaluate(given, ("a", "b", "c", "d"))
    assert found["images"] == 300
    assert found["metrics"] == score(given)
    assert found["confusion"] == sk.confusion_matrix(given.labels, guesses, labels=range(4)).tolist()
    right = int((guesses == given.labels).sum())
    interval = stats.binomtest(right, 300).proportion_ci(method="wilson")
    assert found["accuracy_interval"] == pytest.approx((interval.low, interval.high))
    columns = sk.precision_recall_fscore_support(given.labels, guesses, labels=range(4), zero_division=0)
    for row, precision, recall, f1, support in zip(found["classes"], *columns, strict=True):
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((precision, recall, f1))
        assert row["images"] == support
        assert row["recall_interval"][0] <= row["recall"] <= row["recall_interval"][1]
    assert found["classes"][3]["recall_interval"] == (0.0, 1.0)
    assert [row["name"] for row in found["classes"]] == ["a", "b", "c", "d"]


def test_predictions_are_saved_without_pickle(tmp_path: Path) -> None:
    given = Predictions(np.eye(2, dtype=np.float32), np.array([0, 1]), ("a/ñ 1.png", "b/日本.png"), 0.1)
    given.save(tmp_path / "predictions" / "test.npz")
    with np.load(tmp_path / "predictions" / "test.npz", allow_pickle=False) as stored:
        assert tuple(stored["ids"].tolist()) == given.ids
        assert stored["labels"].tolist() == [0, 1]
        assert np.array_equal(stored["probabilities"], given.probabilities)


@pytest.mark.parametrize("batch_size", [1, 3, 10])
@pytest.mark.parametrize("loss_name", ["cross_entropy", "bce"])
def test_predict_keeps_the_order_and_the_mean_loss(batch_size: int, loss_name: str) -> None:
    images, labels = torch.randn(10, 4), torch.arange(10) % 3
    targets = torch.eye(3)[labels]
    model = torch.nn.Linear(4, 3)
    source: Any = SimpleNamespace(
        images=SimpleNamespace(labels=labels.numpy(), ids=tuple("abcdefghij")),
        ordered=lambda: zip(images.split(batch_size), targets.split(batch_size), strict=True),
    )
    loss = make_loss(Train(loss=loss_name), (4, 3, 3), torch.device("cpu"))  # type: ignore[arg-type]
    found = predict(
        model,
        source,
        loss=loss,
        loss_name=loss_name,
        autocast=autocast(torch.device("cpu"), "fp32"),
    )
    logits = model(images).detach()
    chances = logits.softmax(1) if loss_name == "cross_entropy" else logits.sigmoid() / logits.sigmoid().sum(1, True)
    assert found.probabilities == pytest.approx(chances.numpy(), abs=1e-6)
    assert (found.labels.tolist(), found.ids) == (labels.tolist(), tuple("abcdefghij"))
    assert found.loss == pytest.approx(loss(logits, targets).mean().item(), rel=1e-6)


def test_tracked_names() -> None:
    assert tracked("val", {"accuracy": 0.5, "loss": 1.0}) == {"val_accuracy": 0.5, "val_loss": 1.0}
