"""What counts as agreement, as a loss, and as the same answer in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from bench.images import Decoding
from bench.kinds import PAIR_CLASSES, Split
from bench.stages.image_set import ImageSet
from bench_export.gate.answers import Answers, InBatches, guesses
from bench_export.gate.judge import compare, judge
from bench_export.gate.report import LIMITS, GateReport
from bench_export.gate.samples import Samples
from bench_export.predictor import load


@dataclass(frozen=True)
class Labelled:
    """Samples of which only the labels are asked for."""

    labels: Any
    name: str = "validation"
    note: str = ""
    classes: tuple[str, ...] = ("a", "b")

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(f"image {position}" for position in range(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def originals(self, position: int) -> Any:
        raise NotImplementedError

    def batch(self, positions: Any) -> Any:
        raise NotImplementedError


def _report(
    expected: Sequence[float],
    found: Sequence[float],
    labels: Sequence[int],
    *,
    precision: str = "fp32",
    partial: bool = False,
    batches: dict[int, InBatches] | None = None,
) -> GateReport:
    """The report on two classes, by the probability of the second."""
    report = GateReport(precision, "validation", "", len(labels), dict(LIMITS), partial=partial)
    both = [np.array([[1 - p, p] for p in values], dtype=np.float32) for values in (expected, found)]
    compare(report, both[0], Answers(both[1], batches or {}), Labelled(np.array(labels)), threshold=None)
    return report


def test_a_difference_at_a_tie_counts_as_agreement() -> None:
    report = _report([0.5 - 1e-7, 0.9], [0.5 + 1e-7, 0.9 + 4e-7], [0, 1])
    assert (report.disagreements, report.ties, report.agreement) == (1, 1, 1.0)
    assert report.passed
    assert "1 differ at a tie" in report.summary


def test_a_difference_beyond_the_noise_is_no_tie_however_small() -> None:
    report = _report([0.5 - 1e-4, 0.9], [0.5 + 1e-4, 0.9], [0, 1])
    assert (report.disagreements, report.ties, report.agreement) == (1, 0, 0.5)
    assert report.reasons == [
        "another answer than the trained model's to 1 of 2 samples (agreement 50.00%; the limit is 100.00%)"
    ]


def test_noise_beyond_the_limit_makes_no_ties() -> None:
    report = _report([0.45, 0.9], [0.55, 0.6], [0, 1])
    assert report.tie_width == pytest.approx(2e-3)
    assert report.ties == 0


def test_a_loss_of_accuracy_is_told_with_its_interval_and_test() -> None:
    labels, expected = [1] * 200, [0.9] * 200
    found = [0.1] * 3 + [0.9] * 197
    report = _report(expected, found, labels, precision="int8")
    assert report.accuracy["lost"] == 3
    assert report.accuracy["difference_points"] == pytest.approx(-1.5)
    assert report.accuracy["p"] == pytest.approx(0.25)
    (reason,) = report.reasons
    assert reason.startswith("accuracy falls by 1.50 points [")
    assert "(McNemar's p = 0.25); the limit is 0.5" in reason


def test_a_gain_or_a_loss_within_the_limit_passes() -> None:
    labels = [1] * 200
    assert _report([0.9] * 199 + [0.1], [0.9] * 200, labels, precision="int8").passed
    assert _report([0.9] * 200, [0.1] + [0.9] * 199, labels, precision="int8").passed


def test_of_a_part_of_the_samples_only_a_certain_loss_counts() -> None:
    labels, expected = [1] * 200, [0.9] * 200
    assert _report(expected, [0.1] * 3 + [0.9] * 197, labels, precision="int8", partial=True).passed
    assert not _report(expected, [0.1] * 20 + [0.9] * 180, labels, precision="int8", partial=True).passed


def test_fp16_has_limits_of_its_own() -> None:
    labels, expected = [1] * 400, [0.9] * 400
    assert _report(expected, [0.8] * 400, labels, precision="fp16").passed
    # Two of 400 are 99.5 % agreement, but half a point of accuracy.
    (reason,) = _report(expected, [0.4] * 2 + [0.9] * 398, labels, precision="fp16").reasons
    assert reason.startswith("accuracy falls by 0.50 points")


def test_other_answers_in_batches_are_told_with_numbers() -> None:
    batches = {2: InBatches(2, images=10, max_difference=0.25, changed=3), 7: InBatches(7, images=7)}
    (reason,) = _report([0.9], [0.9], [1], batches=batches).reasons
    assert "in batches of 2" in reason
    assert "by up to 0.25 (3 of 10 change their class); the limit is 0.001" in reason


def test_recorded_answers_hold_only_the_best_classes() -> None:
    report = GateReport("fp32", "validation", "", 2, dict(LIMITS))
    expected = np.array([[0.7, 0.2, np.nan], [0.6, np.nan, 0.3]], dtype=np.float32)
    found = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]], dtype=np.float32)
    samples = Labelled(np.array([0, 0]), classes=("a", "b", "c"))
    compare(report, expected, Answers(found, {}), samples, threshold=None)
    assert report.agreement == 0.5  # the class that is not recorded has won
    assert report.max_difference == pytest.approx(0.4)


def _pairs(count: int = 12) -> Samples:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 1, 1, 3)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    rows = np.stack([np.arange(count), (np.arange(count) * 5 + 1) % count], axis=1)
    labels = np.arange(count) % 2
    fitted = ImageSet(images, rows, labels, tuple(f"pair {number}" for number in range(count)))
    return Samples("validation", "", PAIR_CLASSES, fitted, Split(images, labels, pairs=rows), Path(), Decoding((8, 8)))


def _score(first: Any, second: Any) -> Any:
    """What the toy verifier computes, in numpy."""
    means = [(side.astype(np.float32) / 255 - 0.5) / 0.5 for side in (first, second)]
    distance = np.abs(means[0].mean((1, 2)) - means[1].mean((1, 2))).mean(1)
    score = 1 / (1 + np.exp(-(4 - 8 * distance)))
    return np.stack([1 - score, score], axis=1).astype(np.float32)


def test_pairs_are_judged_at_the_trained_threshold(toy_models: ModuleType, tmp_path: Path) -> None:
    candidate = load(toy_models.verifier(tmp_path / "pairs.onnx", threshold=0.5))
    samples = _pairs()
    report = judge(_score, candidate, samples, precision="fp32", threshold=0.5)
    assert report.passed, report.reasons
    assert [batch["images"] for batch in report.batches] == [12, 7]
    scores = _score(*samples.batch(range(len(samples))))
    assert report.accuracy["trained"] == np.mean(guesses(scores, 0.5) == samples.labels)


def test_another_threshold_in_the_file_is_rejected(toy_models: ModuleType, tmp_path: Path) -> None:
    samples = _pairs()
    scores = np.sort(_score(*samples.batch(range(len(samples))))[:, 1])
    trained = float(np.float32((scores[5] + scores[6]) / 2))
    candidate = load(toy_models.verifier(tmp_path / "pairs.onnx", threshold=float(scores[8])))
    report = judge(_score, candidate, samples, precision="fp32", threshold=trained)
    assert report.reasons[0].startswith("its threshold is ")
    assert "decisions are not those at the trained threshold" in report.reasons[1]


def test_another_number_of_classes_is_told_before_anything_is_asked(toy_models: ModuleType, tmp_path: Path) -> None:
    candidate = load(toy_models.classifier(tmp_path / "four.onnx", classes=4))
    report = judge(_score, candidate, _pairs(), precision="fp32")
    assert report.reasons == ["its 4 classes are not the run's 2"]


def test_a_score_moves_alone_so_that_a_tie_with_the_threshold_is_half_as_wide() -> None:
    report = GateReport("fp32", "validation", "", 3, dict(LIMITS))
    expected, found = [0.5 - 15e-5, 0.5 - 5e-5, 0.9], [0.5 + 5e-5, 0.5 + 5e-5, 0.9 + 1e-4]
    both = [np.array([[1 - p, p] for p in values], dtype=np.float32) for values in (expected, found)]
    compare(report, both[0], Answers(both[1], {}), Labelled(np.array([0, 0, 1])), threshold=0.5)
    assert (report.disagreements, report.ties) == (2, 1)
    assert not report.passed


def test_a_trained_model_without_finite_answers_proves_nothing(toy_models: ModuleType, tmp_path: Path) -> None:
    candidate = load(toy_models.verifier(tmp_path / "pairs.onnx", threshold=0.5))

    different = int(_score(*_pairs().batch(range(12)))[:, 1].argmin())

    def reference(first: Any, second: Any) -> Any:
        scores = _score(first, second)
        scores[different] = np.nan
        return scores

    report = judge(reference, candidate, _pairs(), precision="fp32", threshold=0.5)
    (reason,) = report.reasons
    assert reason.endswith(f"own answers to 1 of 12 samples are not finite, the first for pair {different}")


@pytest.mark.parametrize("count", [1, 3])
def test_few_samples_are_asked_for_in_large_batches_all_the_same(
    toy_models: ModuleType, tmp_path: Path, count: int
) -> None:
    candidate = load(toy_models.verifier(tmp_path / "pairs.onnx", threshold=0.5))
    report = judge(_score, candidate, _pairs(count), precision="fp32", threshold=0.5)
    assert report.passed, report.reasons
    assert all(batch["images"] >= batch["size"] for batch in report.batches)


def test_a_file_for_pairs_without_a_decision_is_rejected(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.verifier(tmp_path / "pairs.onnx", threshold=0.5)
    proto = onnx.load(path)
    del proto.graph.output[1]
    onnx.save(proto, path)
    report = judge(_score, load(path), _pairs(), precision="fp32", threshold=0.5)
    assert report.reasons == ["it gives no decision"]
