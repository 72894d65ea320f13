"""Temperatures are found where they are planted, and never on what they are judged on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from bench.predictions import SavedPredictions
from bench.reporting.calibration import calibrate, expected_error, fit_temperature, halves, reliability, scaled


def _planted(count: int, *, temperature: float, seed: int, split: str = "test") -> SavedPredictions:
    """Labels drawn from calibrated probabilities, which are then made too sure by a temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, 5))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (chances.cumsum(1) > random.random((count, 1))).argmax(1)
    said = scaled(chances, 1 / temperature).astype(np.float32)
    return SavedPredictions(split, np.arange(count).astype(str), labels, said.argmax(1), said)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_planted_temperature_is_found(temperature: float) -> None:
    planted = _planted(20_000, temperature=temperature, seed=0)
    assert fit_temperature(planted.probabilities, planted.labels) == pytest.approx(temperature, rel=0.05)


def test_the_error_is_that_of_the_run_s_own_evaluation() -> None:
    planted = _planted(3_000, temperature=3.0, seed=1)
    found = expected_error(reliability(planted.probabilities, planted.labels))
    tensors = torch.from_numpy(planted.probabilities), torch.from_numpy(planted.labels)
    assert found == pytest.approx(float(multiclass_calibration_error(*tensors, num_classes=5, n_bins=15)), abs=1e-5)


def test_scaling_by_the_validation_split_mends_the_test_split() -> None:
    test = _planted(5_000, temperature=3.0, seed=2)
    found = calibrate(test, _planted(5_000, temperature=3.0, seed=3, split="validation"))
    assert found.error > 0.1
    assert found.error_scaled < 0.03
    assert found.temperatures == (pytest.approx(3.0, rel=0.1),)
    assert "validation" in found.fitted_on


def test_without_other_predictions_no_half_sees_its_own_labels() -> None:
    test = _planted(2_000, temperature=3.0, seed=4)
    first = halves(test.labels)
    before = calibrate(test, None)
    assert len(before.temperatures) == 2
    changed = np.where(first, (test.labels + 1) % 5, test.labels)  # the first half's labels are now wrong
    own = fit_temperature(test.probabilities[~first], test.labels[~first])
    assert before.temperatures[1] == own
    assert fit_temperature(test.probabilities[~first], changed[~first]) == own
    assert "cross-fitted" in before.fitted_on


def test_the_validation_split_itself_is_cross_fitted() -> None:
    validation = _planted(500, temperature=2.0, seed=5, split="validation")
    assert len(calibrate(validation, validation).temperatures) == 2


def test_where_all_is_right_no_temperature_is_claimed() -> None:
    planted = _planted(200, temperature=1.0, seed=6, split="validation")
    right = SavedPredictions("validation", planted.ids, planted.guesses, planted.guesses, planted.probabilities)
    assert fit_temperature(right.probabilities, right.labels) is None
    found = calibrate(_planted(200, temperature=1.0, seed=7), right)
    assert found.undetermined
    assert found.temperatures == (1.0,)
    assert found.error == pytest.approx(found.error_scaled)


def test_a_single_sample_is_no_error() -> None:
    one = SavedPredictions("test", np.array(["a"]), np.array([0]), np.array([1]), np.array([[0.4, 0.6]], np.float32))
    assert calibrate(one, None).error == pytest.approx(0.6)
