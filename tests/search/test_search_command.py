"""`bench search` as a person calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner, Result

from bench.errors import BenchError, RecipeError
from bench.record import create, list_runs
from bench.search.command import latest_recipe, search
from bench.search.run_search import prepare

RECIPE = """
experiment = "toy"
[dataset]
name = "digits"
[data]
size = 8
test = 0.2
[model]
name = "linear"
[train]
epochs = 2
batch_size = 256
[compute]
precision = "fp32"
memory_format = "contiguous"
threads = 1
[search]
seeds = [0]
pruner = "none"
"""
SPACE = """
[search.space]
"optimizer.lr" = {float = [1e-3, 1e-1], log = true}
"optimizer.weight_decay" = {choice = [0.0, 0.01]}
"""
#: `bench search`, as a program of its own.
PROGRAM = "from bench.cli import cli, main; from bench.search.command import search; cli.add_command(search); main()"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "toy.toml"
    path.write_text(RECIPE + SPACE, encoding="utf-8")
    return path


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(search, [str(argument) for argument in arguments])


def refused(*arguments: Any) -> BenchError:
    error = call(*arguments).exception
    assert isinstance(error, BenchError), error
    return error


def test_a_search_ends_in_a_winner_that_is_retrained_and_tested(recipe: Path) -> None:
    result = call(recipe, "--trials", 3, "--sampler", "random", "--json")
    assert result.exception is None, result.stderr
    found = json.loads(result.stdout)
    assert (found["study"], found["states"]["complete"]) == ("toy", 3)
    assert found["winners"][0]["trial"] == found["best"]
    assert "test" in found["winners"][0]["accuracy"]
    assert "search toy: 3 trials, random" in result.stderr
    assert "3/3  trial 2 complete  val_accuracy" in result.stderr
    again = call(recipe, "--trials", 3, "--sampler", "random", "--json")
    assert json.loads(again.stdout)["winners"] == found["winners"]
    assert "all of its 3 trials are finished" in again.stderr
    assert len(list(list_runs("toy"))) == 4
    more = call("--trials", 4, "--json")
    assert json.loads(more.stdout)["states"]["complete"] == 4
    fresh = call(recipe, "--trials", 1, "--new", "--json")
    assert json.loads(fresh.stdout)["study"] == "toy-2"
    shown = call("--show")
    assert "toy-2" in shown.stdout


def test_dry_run_prints_the_space_the_combinations_and_the_cost_and_records_nothing(recipe: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)  # as it is at first
    result = call(recipe, "--dry-run", "--trials", 20)
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
    assert result.exception is None, result.stderr
    assert "optimizer.weight_decay" in result.stdout
    assert "combinations: infinitely many" in result.stdout
    assert "20 trials: about" in result.stdout
    assert list(list_runs()) == []
    assert not Path(os.environ["BENCH_RUNS"]).exists()


def test_dry_run_as_json_counts_what_can_be_counted(recipe: Path) -> None:
    recipe.write_text(RECIPE + '[search.space]\n"train.epochs" = {int = [2, 4]}\n', encoding="utf-8")
    found = json.loads(call(recipe, "--dry-run", "--json", "--workers", 2).stdout)
    cost = found["cost"]
    assert (found["combinations"], found["trials"]) == (3, 50)
    assert 2 <= cost["epochs"] <= 4
    one = cost["setup_seconds"] + cost["epochs"] * cost["epoch_seconds"]
    assert cost["seconds"] == pytest.approx(50 * one / 2)


def test_a_grid_that_explodes_gives_its_size_and_asks_for_yes(recipe: Path) -> None:
    space = '[search.space]\n"train.batch_size" = {choice = [64, 128]}\n"train.epochs" = {int = [1, 1000]}\n'
    recipe.write_text(RECIPE + space, encoding="utf-8")
    error = refused(recipe, "--sampler", "grid")
    assert "the grid has 2,000 combinations" in str(error)
    assert "--yes" in str(error.hint)
    checked = latest_of(recipe)
    assert prepare(checked, sampler="grid", large=True).total == 2000
    assert prepare(checked, sampler="grid", large=True, trials=5).total == 5


def latest_of(path: Path) -> Any:
    from bench.recipe import load

    return load(path)


def test_a_grid_has_all_of_its_combinations_and_not_one_more(recipe: Path) -> None:
    recipe.write_text(RECIPE + '[search.space]\n"train.epochs" = {int = [1, 54]}\n', encoding="utf-8")
    checked = latest_of(recipe)
    assert prepare(checked, sampler="grid").total == 54
    assert prepare(checked, sampler="grid", trials=100).total == 54
    assert prepare(checked, sampler="random", trials=100).total == 100
    assert prepare(checked, trials=60).recipe.search.trials == 60


def test_a_grid_over_a_continuous_range_is_refused(recipe: Path) -> None:
    assert "optimizer.lr" in str(refused(recipe, "--sampler", "grid"))


def test_a_recipe_without_a_space_is_refused_with_an_example(recipe: Path) -> None:
    recipe.write_text(RECIPE, encoding="utf-8")
    error = refused(recipe)
    assert "there is no [search.space]" in str(error)
    assert "optimizer.lr" in str(error.hint)


def test_a_key_that_the_recipe_does_not_have_is_refused_before_the_first_trial(recipe: Path) -> None:
    recipe.write_text(RECIPE + '[search.space]\n"optimizer.ler" = {float = [0.1, 0.2]}\n', encoding="utf-8")
    assert "optimizer.ler" in str(refused(recipe))
    assert not Path(os.environ["BENCH_RUNS"]).exists()


def test_another_space_under_the_same_name_is_refused_and_new_begins_afresh(recipe: Path) -> None:
    assert call(recipe, "--trials", 1).exception is None
    recipe.write_text(RECIPE + SPACE.replace("1e-1", "1.0"), encoding="utf-8")
    error = refused(recipe, "--trials", 1)
    assert "optimizer.lr" in str(error)
    assert "--new" in str(error.hint)
    assert call(recipe, "--trials", 1, "--new").exception is None


def test_without_a_recipe_and_without_a_run_it_asks_for_one() -> None:
    with pytest.raises(RecipeError, match="no run whose recipe"):
        latest_recipe(())


def test_without_a_recipe_it_takes_that_of_the_latest_run_whose_record_is_whole() -> None:
    for number, content in enumerate((None, "{")):
        run = create(
            "toy", group=f"2026112{number}-000000-ab12", seed=0, recipe_text=RECIPE, plan={}, recipe="toy.toml"
        )
        if content is not None:
            (run.folder / "run.json").write_text(content, encoding="utf-8")
    assert latest_recipe(()).text == RECIPE


@pytest.mark.parametrize(
    ("given", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("1h30m", 5400), ("0.5h", 1800)]
)
def test_times_are_written_as_people_do(given: str, seconds: float) -> None:
    assert search.make_context("search", ["--timeout", given]).params["timeout_s"] == seconds


@pytest.mark.parametrize("given", ["soon", "0", "-5", "3 weeks"])
def test_a_time_that_is_none_is_refused(given: str) -> None:
    result = call("--timeout", given, "--show")
    assert result.exit_code == 2
    assert "--timeout" in result.stderr


def test_a_timeout_ends_the_search_and_the_same_command_goes_on(recipe: Path) -> None:
    result = call(recipe, "--trials", 500, "--timeout", 1)
    assert result.exception is None, result.stderr
    assert "time is up after" in result.stderr


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(recipe: Path, workers: int) -> None:
    recipe.write_text(RECIPE.replace("epochs = 2", "epochs = 120") + SPACE, encoding="utf-8")
    command = [sys.executable, "-c", PROGRAM, "search", str(recipe), "--trials", "50", "--workers", str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 60
    while not list(list_runs("toy")) and time.monotonic() < end:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130, shown
    assert "the same command goes on" in shown
    assert "Traceback" not in shown
    again = call(recipe, "--trials", 1)
    assert again.exception is None, again.stderr
    assert all(run.status() in {"finished", "interrupted"} for run in list_runs("toy"))
