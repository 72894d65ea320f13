"""What a search may optimise and constrain, and how wrong metrics and constraints are told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.errors import RecipeError
from bench.recipe import Recipe, parse
from bench.search.objectives import COSTS, Constraint, Objective, constraints, objectives, parse_constraint
from bench.tables import METRICS_OF


def recipe(metrics: Sequence[str] = (), limits: Sequence[str] = (), monitor: str = "val_accuracy") -> Recipe:
    text = f"""
[dataset]
name = "digits"
[model]
name = "cnn"
[train]
monitor = "{monitor}"
[search]
metrics = {list(metrics)}
constraints = {list(limits)}
"""
    return parse(text, path=Path("toy.toml"))


def test_without_metrics_the_monitor_is_optimised() -> None:
    assert objectives(recipe()) == (Objective("val_accuracy", "maximize", is_cost=False),)
    assert objectives(recipe(monitor="val_loss")) == (Objective("val_loss", "minimize", is_cost=False),)


def test_accuracies_rise_and_errors_and_costs_fall() -> None:
    names = ("val_macro_f1", "val_auroc", "val_ece", "val_log_loss", "val_eer", *COSTS)
    found = {one.metric: one.direction for one in objectives(recipe(names))}
    assert list(found) == list(names)
    assert [name for name, direction in found.items() if direction == "maximize"] == ["val_macro_f1", "val_auroc"]
    assert [one.metric for one in objectives(recipe(names)) if one.is_cost] == list(COSTS)


@pytest.mark.parametrize("task", ["classification", "verification"])
def test_every_validation_metric_of_a_task_may_be_optimised(task: str) -> None:
    names = tuple(f"val_{name}" for name in METRICS_OF[task])
    assert tuple(one.metric for one in objectives(recipe(names), task=task)) == names  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("test_accuracy", "'test_accuracy': a search must not see the test set; 'val_accuracy' is what it may see"),
        ("test_speed", "'test_speed': a search must not see the test set"),
        ("train_loss", "'train_loss': the training images say nothing about others"),
        ("val_acuracy", "there is no 'val_acuracy'; did you mean \"val_accuracy\"?"),
        ("accuracy", "there is no 'accuracy'; did you mean \"val_accuracy\"?"),
        ("latency", "there is no 'latency'; did you mean \"latency_ms\"?"),
        ("qqq", "there is no 'qqq'; known: val_accuracy"),
    ],
)
def test_metrics_that_a_search_cannot_go_by_are_refused_with_the_reason(metric: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        objectives(recipe(["val_accuracy", metric]))
    assert f"search.metrics: {told}" in str(caught.value)
    with pytest.raises(RecipeError) as caught:
        constraints(recipe(limits=[f"{metric} <= 0.5"]))
    assert f"search.constraints: '{metric} <= 0.5': {told}" in str(caught.value)


def test_a_metric_of_another_task_is_refused_once_the_task_is_known() -> None:
    pairs = recipe(["val_eer"])
    assert [one.metric for one in objectives(pairs)] == ["val_eer"]
    with pytest.raises(RecipeError, match="'val_eer' is not measured for classification; known: val_accuracy"):
        objectives(pairs, task="classification")


def test_a_monitor_that_is_no_objective_is_named_as_the_monitor() -> None:
    with pytest.raises(RecipeError, match=r"train\.monitor, which search\.metrics is by default: 'train_loss'"):
        objectives(recipe(monitor="train_loss"))


def test_a_metric_stands_there_once() -> None:
    with pytest.raises(RecipeError, match="'val_accuracy' stands there twice"):
        objectives(recipe(["val_accuracy", "val_accuracy"]))


def test_costs_alone_are_no_search_unless_the_accuracy_is_constrained() -> None:
    with pytest.raises(RecipeError, match="latency_ms and size_mb alone would choose the smallest model"):
        objectives(recipe(["latency_ms", "size_mb"], ["macs <= 1e6"]))
    found = objectives(recipe(["latency_ms"], ["val_accuracy >= 0.97"]))
    assert found == (Objective("latency_ms", "minimize", is_cost=True),)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(RecipeError, match=r"toy\.toml: 4 problems") as caught:
        objectives(recipe(["test_auroc", "val_f1"], ["latency <= 5", "size_mb <= small"]))
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latency_ms <= 5", Constraint("latency_ms", "<=", 5.0)),
        ("size_mb<0.25", Constraint("size_mb", "<", 0.25)),
        ("  val_accuracy   >= 0.97 ", Constraint("val_accuracy", ">=", 0.97)),
        ("val_loss > 1e-3", Constraint("val_loss", ">", 0.001)),
        ("parameters <= 1_000_000", Constraint("parameters", "<=", 1e6)),
    ],
)
def test_constraints_are_read(text: str, expected: Constraint) -> None:
    assert parse_constraint(text) == expected
    assert parse_constraint(str(expected)) == expected
    assert constraints(recipe(limits=[text])) == (expected,)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("latency_ms", "is not of the form METRIC SIGN NUMBER"),
        ("", "is not of the form METRIC SIGN NUMBER"),
        ("latency_ms <=", "is not of the form METRIC SIGN NUMBER"),
        ("latency_ms = 5", "the sign '=' is none of <=, >=, < and >"),
        ("latency_ms =< 5", "the sign '=<' is none of"),
        ("latency_ms <= 5 ms", "'5 ms' is not a number; units stand in the metric's name"),
        ("latency_ms <= nan", "'nan' is not a number"),
        ("latency_ms <= inf", "'inf' is not a number"),
        ("1 <= latency_ms <= 5", "the metric stands first, then the number"),
        ("5 >= latency_ms", "the metric stands first, then the number"),
        ("latency_ms <= -1", "no trial can hold this, as latency_ms is at least 0"),
        ("size_mb < 0", "no trial can hold this, as size_mb is at least 0"),
        ("val_accuracy >= 97", "no trial can hold this, as val_accuracy is from 0 to 1"),
        ("val_auroc > 1", "no trial can hold this, as val_auroc is from 0 to 1"),
    ],
)
def test_constraints_that_cannot_be_read_or_held_are_told_in_words(text: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_constraint(text)
    assert told in str(caught.value)
    assert caught.value.hint == 'search.constraints = ["latency_ms <= 5"]'


@pytest.mark.parametrize(
    ("limits", "contradict"),
    [
        (["latency_ms <= 5", "latency_ms >= 6"], True),
        (["latency_ms < 5", "latency_ms > 5"], True),
        (["latency_ms <= 5", "latency_ms >= 5"], False),
        (["latency_ms <= 5", "size_mb >= 6"], False),
    ],
)
def test_constraints_that_contradict_each_other_are_refused(limits: list[str], contradict: bool) -> None:
    if contradict:
        with pytest.raises(RecipeError, match="contradict each other"):
            constraints(recipe(limits=limits))
    else:
        assert len(constraints(recipe(limits=limits))) == 2


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("latency_ms <= 5", 7.0, 2.0),
        ("latency_ms <= 5", 5.0, 0.0),
        ("latency_ms <= 5", 3.0, -2.0),
        ("val_accuracy >= 0.75", 0.5, 0.25),
        ("val_accuracy >= 0.75", 1.0, -0.25),
        ("macs <= 10", math.inf, math.inf),
        ("val_loss <= 1", math.nan, math.inf),
    ],
)
def test_a_violation_is_how_far_a_value_is_off(text: str, value: float, expected: float) -> None:
    assert parse_constraint(text).violation(value) == expected


@pytest.mark.parametrize("text", ["latency_ms < 5", "latency_ms > 5"])
def test_a_strict_limit_itself_is_a_violation(text: str) -> None:
    assert parse_constraint(text).violation(5.0) > 0


def test_which_constraints_are_known_before_training() -> None:
    found = constraints(recipe(limits=["macs <= 1e9", "val_accuracy >= 0.5"]))
    assert [one.is_cost for one in found] == [True, False]
