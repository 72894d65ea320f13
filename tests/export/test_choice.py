"""Which run is exported where none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import record
from bench.errors import BenchError
from bench_export.choice import Objective, best_run, objective_of


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))


def make(name: str, experiment: str = "pets", *, status: str = "finished", **metrics: float) -> None:
    run = record.create(experiment, group=name, seed=0, recipe_text="", plan={}, objective="val_accuracy")
    run.finish(status, metrics=metrics)


def test_the_best_run_of_the_latest_experiment_is_taken() -> None:
    make("20260101-1", "signs", val_accuracy=0.99)
    make("20260102-1", val_accuracy=0.7)
    make("20260102-2", val_accuracy=0.8)
    make("20260102-3", val_accuracy=0.75)
    choice = best_run()
    assert choice.run.name == "20260102-2-s0"
    assert "best val_accuracy (0.8000) of 3 finished runs of pets" in choice.reason


def test_unfinished_runs_do_not_count() -> None:
    make("20260102-1", val_accuracy=0.7)
    make("20260102-2", status="failed", val_accuracy=0.9)
    assert best_run().run.name == "20260102-1-s0"


def test_a_reproduction_is_no_candidate() -> None:
    make("20260102-1", val_accuracy=0.7)
    again = record.create("pets", group="20260102-2", seed=0, recipe_text="", plan={}, reproduces="20260102-1-s0")
    again.finish("finished", metrics={"val_accuracy": 0.9})
    choice = best_run()
    assert choice.run.name == "20260102-1-s0"
    assert "of 1 finished run of pets" in choice.reason


@pytest.mark.parametrize("content", ["{", "[]", "{}", "", '{"status": "finished"}'])
def test_a_damaged_run_is_in_nobodys_way_and_named(content: str) -> None:
    make("20260102-1", val_accuracy=0.7)
    make("20260102-2", "signs", val_accuracy=0.9)
    (record.runs_folder() / "signs" / "20260102-2-s0" / "run.json").write_text(content, encoding="utf-8")
    choice = best_run()
    assert choice.run.name == "20260102-1-s0"
    assert choice.reason.endswith("; left out, damaged run.json: signs/20260102-2-s0")
    (record.runs_folder() / "pets" / "20260102-1-s0" / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(
        BenchError, match=r"no finished run in .*; left out, damaged run\.json: pets/20260102-1-s0, signs"
    ):
        best_run()


def test_of_equal_runs_the_smaller_model_is_taken() -> None:
    make("20260102-1", val_accuracy=0.7, parameters=10.0)
    make("20260102-2", val_accuracy=0.7, parameters=20.0)
    assert best_run().run.name == "20260102-1-s0"


def test_runs_without_the_metric_are_left_out_and_counted() -> None:
    make("20260102-1", test_accuracy=0.99)
    make("20260102-2", val_accuracy=0.7, test_accuracy=0.7)
    choice = best_run()
    assert choice.run.name == "20260102-2-s0"
    assert "1 without that metric left out" in choice.reason


@pytest.mark.parametrize(
    ("info", "metric", "value"),
    [
        ({"objective": "val_auroc", "metrics": {"val_auroc": 0.9, "val_accuracy": 0.8}}, "val_auroc", 0.9),
        ({"objective": "train_loss", "metrics": {"val_accuracy": 0.8, "test_accuracy": 0.7}}, "val_accuracy", 0.8),
        ({"objective": "train_loss", "metrics": {"test_accuracy": 0.7}}, "test_accuracy", 0.7),
    ],
)
def test_the_objective_is_that_of_the_recipe_on_held_out_images(
    info: dict[str, Any], metric: str, value: float
) -> None:
    objective = objective_of(info)
    assert (objective.metric, objective.value) == (metric, value)


def test_a_choice_on_test_images_is_said_to_be_optimistic() -> None:
    make("20260102-1", test_accuracy=0.9)
    assert "optimistic" in best_run().reason


def test_a_loss_is_better_where_it_is_lower_and_no_number_is_worst() -> None:
    assert Objective("val_loss", 0.1).rank > Objective("val_loss", 0.2).rank > Objective("val_loss", float("nan")).rank
    assert Objective("val_accuracy", 0.2).rank > Objective("val_accuracy", 0.1).rank


def test_no_finished_run_says_what_to_do() -> None:
    with pytest.raises(BenchError, match="no finished run") as error:
        best_run()
    assert error.value.hint == "bench run RECIPE"
    make("20260102-1", status="interrupted")
    with pytest.raises(BenchError, match="1 are not finished") as error:
        best_run()
    assert "--resume" in str(error.value.hint)
