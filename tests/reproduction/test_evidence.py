"""What is compared of two runs' predictions, against numbers worked out by hand and by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from bench.predictions import SavedPredictions
from bench.reproduction.evidence import Evidence, compare


def _predictions(ids: list[str], labels: list[int], guesses: list[int]) -> SavedPredictions:
    probabilities = np.eye(3, dtype=np.float32)[guesses]
    return SavedPredictions("test", np.array(ids), np.array(labels), np.array(guesses), probabilities)


def _evidence(predictions: SavedPredictions) -> Evidence:
    return Evidence({}, {"test": predictions}, {}, ended=True, lacking=())


def test_only_common_samples_with_the_same_label_are_paired() -> None:
    then = _predictions(["a", "b", "c", "d"], [0, 1, 2, 0], [0, 1, 1, 1])
    now = _predictions(["d", "c", "b", "x"], [0, 1, 1, 0], [0, 1, 1, 0])
    (paired,) = compare(_evidence(then), _evidence(now)).paired
    assert paired.samples == 2  # b and d; c has another label now
    assert (paired.right_then, paired.right_now) == (1, 2)
    assert (paired.gained, paired.lost, paired.differing) == (1, 0, 1)
    assert not paired.identical


def test_without_a_common_sample_nothing_is_tested() -> None:
    then, now = _predictions(["a"], [0], [0]), _predictions(["b"], [0], [0])
    found = compare(_evidence(then), _evidence(now))
    assert found.tested is None
    assert not found.identical
    assert found.difference() == "nothing could be compared"


def test_the_p_value_is_that_of_the_exact_binomial_test() -> None:
    ids = [str(number) for number in range(40)]
    then = _predictions(ids, [0] * 40, [1] * 12 + [0] * 28)
    now = _predictions(ids, [0] * 40, [0] * 12 + [1] * 3 + [0] * 25)
    (paired,) = compare(_evidence(then), _evidence(now)).paired
    assert (paired.gained, paired.lost) == (12, 3)
    assert paired.p_value == pytest.approx(binomtest(3, 15).pvalue)
    assert paired.interval[0] < 9 / 40 < paired.interval[1]


def test_other_probabilities_with_the_same_guesses_are_not_identical() -> None:
    then, now = _predictions(["a"], [0], [0]), _predictions(["a"], [0], [0])
    now.probabilities[0, 0] -= np.float32(1e-7)
    found = compare(_evidence(then), _evidence(now))
    assert not found.identical
    assert found.difference() == "the test probabilities differ, the guesses do not"


def test_epochs_that_are_no_numbers_in_both_are_the_same() -> None:
    one = Evidence({1: {"train_loss": float("nan")}}, {}, {}, ended=False, lacking=())
    assert compare(one, one).identical
    other = Evidence({1: {"train_loss": 0.5}}, {}, {}, ended=False, lacking=())
    assert compare(one, other).departs == "train_loss of epoch 1 was nan, now it is 0.5"


def test_a_rerun_of_fewer_epochs_is_not_identical() -> None:
    values = {"train_loss": 0.5}
    then = Evidence({1: values, 2: values}, {}, {}, ended=True, lacking=())
    now = Evidence({1: values}, {}, {}, ended=True, lacking=())
    assert compare(then, now).departs == "the record has 2 epochs, the rerun 1"
