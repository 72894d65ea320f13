"""Fronts, knees and volumes, against values worked out by hand."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from bench import record
from bench.errors import BenchError
from bench.search.front import feasible, front, hypervolume, knee, metric_names, nearest, reference_point, usable
from bench.search.winner import choose

Builder = Callable[..., Any]

TWO = ("val_accuracy", "size_mb")


def test_the_front_holds_what_nothing_beats_in_everything(new_study: Builder) -> None:
    made = new_study(TWO)
    for values in ((0.99, 10.0), (0.98, 1.0), (0.97, 2.0), (0.90, 0.1), (0.85, 0.1), (0.99, 12.0)):
        made.add(*values)
    assert [trial.number for trial in front(made.study)] == [0, 1, 3]


def test_of_trials_with_the_same_values_the_first_stands_for_all(new_study: Builder) -> None:
    made = new_study(TWO)
    for _ in range(3):
        made.add(0.9, 1.0)
    assert [trial.number for trial in front(made.study)] == [0]


def test_of_trials_with_the_same_values_the_front_has_the_one_that_wins(new_study: Builder) -> None:
    made = new_study(("val_accuracy", "size_mb"))
    for _ in range(2):
        made.add(0.9, 1.0, epochs=1)
    run = next(run for run in record.list_runs() if run.info()["trial"] == 1)
    run.update(metrics={**run.info()["metrics"], "val_loss": 0.01})
    assert [trial.number for trial in front(made.study)] == [1]
    assert choose(made.study).number == choose(made.study, "knee").number == 1


def test_with_one_objective_the_front_is_the_best_trial(new_study: Builder) -> None:
    made = new_study()
    for value in (0.8, 0.9, 0.7):
        made.add(value)
    assert [trial.number for trial in front(made.study)] == [1]


def test_infeasible_pruned_failed_and_endless_trials_are_on_no_front(new_study: Builder) -> None:
    made = new_study(TWO)
    made.add(0.99, 0.1, constraints={"latency_ms <= 5": 0.5, "size_mb <= 9": -8.9})
    made.add(0.98, float("inf"))
    made.add(state="PRUNED", constraints={"latency_ms <= 5": -1.0})
    made.add(state="FAIL")
    made.add(state="RUNNING")
    kept = made.add(0.9, 1.0, constraints={"latency_ms <= 5": 0.0})
    assert [trial.number for trial in front(made.study)] == [kept]
    assert [trial.number for trial in usable(made.study)] == [kept]
    assert [feasible(trial) for trial in made.study.trials] == [False, True, True, True, True, True]


def test_the_knee_is_nearest_to_the_ideal_in_units_of_the_front(new_study: Builder) -> None:
    made = new_study(TWO)
    for values in ((0.995, 128.0), (0.994, 10.0), (0.990, 1.0), (0.970, 0.3), (0.900, 0.1)):
        made.add(*values)
    # Distances: 1; hypot(1/95, 9.9/127.9) = 0.078; hypot(5/95, 0.9/127.9) = 0.053; 0.263; 1.
    assert knee(made.study).number == 2


def test_a_front_that_bends_the_wrong_way_has_its_knee_in_the_middle(new_study: Builder) -> None:
    made = new_study(TWO)
    for values in ((1.0, 10.0), (0.65, 6.5), (0.0, 0.0)):
        made.add(*values)
    assert knee(made.study).number == 1


def test_an_axis_on_which_all_are_alike_does_not_count(new_study: Builder) -> None:
    made = new_study(("val_accuracy", "latency_ms", "size_mb"))
    for values in ((0.99, 3.0, 7.0), (0.985, 1.2, 7.0), (0.9, 1.0, 7.0)):
        made.add(*values)
    assert knee(made.study).number == 1


def test_without_a_usable_trial_there_is_no_knee(new_study: Builder) -> None:
    made = new_study(TWO)
    made.add(state="PRUNED")
    assert front(made.study) == []
    with pytest.raises(BenchError, match="no trial has come to its end"):
        knee(made.study)


def test_the_volume_of_two_boxes_is_counted_once(new_study: Builder) -> None:
    made = new_study(TWO)
    made.add(0.9, 3.0)  # 0.4 x 1 up to (0.5, 4)
    made.add(0.7, 1.0)  # 0.2 x 3, of which 0.2 x 1 is in both
    made.add(0.6, 2.0)  # dominated
    assert hypervolume(made.study, (0.5, 4.0)) == pytest.approx(0.4 * 1 + 0.2 * 3 - 0.2 * 1)


def test_trials_beyond_the_reference_point_count_nothing(new_study: Builder) -> None:
    made = new_study(TWO)
    made.add(0.9, 3.0)
    made.add(0.4, 0.1)
    assert hypervolume(made.study, (0.5, 4.0)) == pytest.approx(0.4)
    assert hypervolume(made.study, (0.95, 4.0)) == 0.0


@pytest.mark.parametrize("axes", [2, 3, 4])
def test_volumes_equal_those_of_counted_cells(new_study: Builder, axes: int) -> None:
    draw, side = random.Random(axes), 6
    made = new_study(tuple(f"cost {number}" for number in range(axes)))
    points = [tuple(draw.randint(0, side) for _ in range(axes)) for _ in range(12)]
    for point in points:
        made.add(*map(float, point))
    cells = itertools.product(range(side), repeat=axes)
    covered = sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells)
    assert covered > 0
    assert hypervolume(made.study, (float(side),) * axes) == pytest.approx(covered)


def test_the_reference_point_is_the_worst_of_all_studies_and_serves_both(new_study: Builder) -> None:
    first, second = new_study(TWO), new_study(TWO, name="other")
    first.add(0.9, 3.0)
    first.add(0.8, 1.0)
    second.add(0.5, 2.0)
    second.add(0.95, 8.0)
    assert reference_point(first.study, second.study) == (0.5, 8.0)
    assert hypervolume(first.study, (0.5, 8.0)) == pytest.approx(0.4 * 5 + 0.3 * 7 - 0.3 * 5)
    assert hypervolume(second.study, (0.5, 8.0)) == 0.0


def test_an_empty_study_has_no_reference_point_and_no_volume(new_study: Builder) -> None:
    made = new_study(TWO)
    assert hypervolume(made.study) == 0.0
    with pytest.raises(BenchError, match="no trial"):
        reference_point(made.study)


def test_the_nearest_trial_misses_least_whatever_the_units(new_study: Builder) -> None:
    made = new_study(TWO)
    assert nearest(made.study) is None
    made.add(0.9, 1.0, constraints={"latency_ms <= 5": 4.0, "macs <= 1e9": -1.0})
    close = made.add(state="PRUNED", constraints={"latency_ms <= 5": 1.0, "macs <= 1e9": 0.0})
    made.add(state="PRUNED", constraints={"latency_ms <= 5": -1.0, "macs <= 1e9": 5e8})
    made.add(state="PRUNED", constraints={"latency_ms <= 5": float("inf"), "macs <= 1e9": -1.0})
    found = nearest(made.study)
    assert found is not None
    assert found.number == close


def test_objectives_are_named_by_the_study(new_study: Builder) -> None:
    assert metric_names(new_study(TWO).study) == TWO
