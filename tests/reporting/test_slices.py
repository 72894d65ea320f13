"""A weakness that is there is found, and noise is not taken for one."""

from __future__ import annotations

import numpy as np
from scipy.stats import fisher_exact

from bench.predictions import SavedPredictions
from bench.reporting.confusion import MOST_CLASSES, matrix
from bench.reporting.judged import Judged
from bench.reporting.slices import Slice, slices


def _judged(labels: np.ndarray, guesses: np.ndarray, num_classes: int) -> Judged:
    chances = np.full((len(labels), num_classes), 1 / num_classes, dtype=np.float32)
    predictions = SavedPredictions("test", np.arange(len(labels)).astype(str), labels, guesses, chances)
    counts = np.bincount(labels * num_classes + guesses, minlength=num_classes**2).reshape(num_classes, -1)
    names = tuple(f"class {number}" for number in range(num_classes))
    return Judged("test", False, names, counts, predictions, {}, None)


def _found(judged: Judged) -> dict[str, Slice]:
    return {one.name: one for one in slices(judged, None, None)}


def test_a_weak_class_is_marked_and_comes_first() -> None:
    labels = np.repeat(np.arange(5), 100)
    guesses = labels.copy()
    guesses[200:230] = 0  # thirty of class 2
    guesses[0] = 1
    found = slices(_judged(labels, guesses, 5), None, None)
    assert found[0].name == "class 2"
    assert [one.name for one in found if one.below] == ["class 2"]
    assert found[0].accuracy == 0.7


def test_one_mistake_in_a_class_is_no_weakness() -> None:
    labels = np.repeat(np.arange(10), 36)
    guesses = labels.copy()
    guesses[0] = 1
    guesses[40] = 0
    assert not any(one.below for one in slices(_judged(labels, guesses, 10), None, None))


def test_the_mark_is_fisher_s_test_corrected_by_holm() -> None:
    labels = np.repeat(np.arange(4), 50)
    for wrong in range(15):
        guesses = labels.copy()
        guesses[:wrong] = 1
        guesses[[60, 61, 110, 160]] = 0
        table = [[wrong, 50 - wrong], [4, 146]]
        p = 4 * fisher_exact(table, alternative="greater").pvalue
        assert _found(_judged(labels, guesses, 4))["class 0"].below == (p < 0.05), wrong


def test_small_slices_are_marked_and_come_last() -> None:
    labels = np.array([0] * 100 + [1] * 3)
    guesses = np.array([0] * 90 + [1] * 10 + [0] * 3)
    found = slices(_judged(labels, guesses, 2), None, None)
    assert [one.name for one in found] == ["class 0", "class 1"]
    assert [one.small for one in found] == [False, True]
    assert not found[1].below  # three of three wrong prove little


def test_a_class_without_samples_is_no_slice() -> None:
    labels = np.zeros(40, dtype=np.int64)
    assert list(_found(_judged(labels, labels, 3))) == ["class 0"]


def test_of_many_classes_the_matrix_shows_those_that_are_confused() -> None:
    labels = np.repeat(np.arange(200), 2)
    guesses = labels.copy()
    guesses[300] = 199
    found = matrix(_judged(labels, guesses, 200))
    assert len(found.rows) == MOST_CLASSES
    assert found.hidden == 200 - MOST_CLASSES
    assert {"class 150", "class 199"} <= {whole for _, whole in found.names}
    assert [(cell.label, cell.guess, cell.count) for cell in found.confusions] == [(150, 199, 1)]
