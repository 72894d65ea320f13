"""Which trial wins, how sure that is, and its recipe, retrained and tested once."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import record
from bench.errors import BenchError, RecipeError
from bench.progress import Progress
from bench.recipe import changed, parse
from bench.search.known import find_study, find_trial
from bench.search.noise import noise
from bench.search.recipe_command import recipe as recipe_command
from bench.search.winner import by_first_metric, choose, retrain, retrained, run_of, trial_run, winning_recipe
from bench.statistics import mcnemar

Builder = Callable[..., Any]

TWO = ("val_accuracy", "size_mb")
_PARAMS = {"optimizer.lr": 0.02, "data.size": 9, "optimizer.name": "sgd"}


def _comparison(made: Any) -> Any:
    ranked = by_first_metric(made.study)
    runs = {one.number: run for one in ranked if (run := trial_run(one))}
    return noise(ranked, runs)


def test_best_knee_and_fastest_are_three_different_trials(new_study: Builder) -> None:
    made = new_study(("val_accuracy", "latency_ms"))
    for values in ((0.99, 9.0), (0.985, 1.0), (0.90, 0.5), (0.80, 4.0)):
        made.add(*values)
    assert [choose(made.study, which).number for which in ("best", "knee", "fastest")] == [0, 1, 2]


def test_best_goes_by_the_first_metric_that_is_no_cost(new_study: Builder) -> None:
    made = new_study(("size_mb", "val_accuracy"))
    made.add(0.1, 0.8)
    made.add(9.0, 0.99)
    assert choose(made.study).number == 1


def test_macs_stand_in_for_a_missing_latency_and_sizes_do_not(new_study: Builder) -> None:
    made = new_study(("val_accuracy", "macs"))
    made.add(0.9, 1e6)
    made.add(0.95, 1e7)
    assert choose(made.study, "fastest").number == 0
    sized = new_study(TWO, name="sized")
    sized.add(0.9, 1.0)
    with pytest.raises(BenchError, match="speed is no objective of this study") as caught:
        choose(sized.study, "fastest")
    assert "latency_ms" in str(caught.value.hint)


def test_ties_go_to_the_lower_validation_loss_then_to_the_earlier_trial(new_study: Builder) -> None:
    made = new_study()
    for loss in (0.4, 0.2, 0.2):
        number = made.add(0.9, epochs=1)
        run = trial_run(find_trial(made.study, number))
        assert run is not None
        run.update(metrics={"val_accuracy": 0.9, "val_loss": loss})
    assert [one.number for one in by_first_metric(made.study)] == [1, 2, 0]
    assert choose(made.study).number == 1
    assert choose(made.study, "knee").number == 1


def test_a_study_without_an_ended_trial_says_so(new_study: Builder) -> None:
    made = new_study()
    made.add(state="RUNNING")
    with pytest.raises(BenchError, match="no trial has come to its end yet"):
        choose(made.study)


def test_where_nothing_satisfies_the_constraints_the_nearest_is_named(new_study: Builder) -> None:
    made = new_study()
    made.add(state="PRUNED", constraints={"latency_ms <= 5": 3.0})
    made.add(state="PRUNED", constraints={"latency_ms <= 5": 0.5})
    with pytest.raises(BenchError, match=r"trial 1 comes nearest and misses latency_ms <= 5 with 5\.5") as caught:
        choose(made.study)
    assert "constraints" in str(caught.value.hint)


def test_a_second_best_within_the_noise_is_called_so(new_study: Builder) -> None:
    made = new_study()
    made.add(0.9, epochs=2, right=[True] * 90 + [False] * 10)
    made.add(0.89, epochs=2, right=[True] * 88 + [False] * 11 + [True])
    found = _comparison(made)
    assert (found.best, found.second, found.gained, found.lost, found.samples) == (0, 1, 2, 1, 100)
    assert found.p_value == mcnemar(2, 1)
    assert found.within
    assert "Trial 1, the second best, is within the noise of trial 0: 2 and 1 of 100" in found.text


def test_a_clear_winner_is_called_so_and_the_indistinct_ones_are_counted(new_study: Builder) -> None:
    made = new_study()
    made.add(0.95, epochs=2, right=[True] * 95 + [False] * 5)
    made.add(0.80, epochs=2, right=[True] * 80 + [False] * 20)
    made.add(0.70, epochs=2, right=[True] * 70 + [False] * 30)
    found = _comparison(made)
    assert not found.within
    assert found.text.startswith("Trial 0 is better than trial 1")
    assert "0 of 2 other trials cannot be told from it" in found.text
    assert found.adjusted == pytest.approx(mcnemar(15, 0))


def test_fewer_right_answers_are_never_called_better(new_study: Builder) -> None:
    made = new_study(("val_loss",))  # by which the first one is the best
    made.add(0.1, epochs=2, right=[True] * 70 + [False] * 30)
    made.add(0.2, epochs=2, right=[True] * 95 + [False] * 5)
    found = _comparison(made)
    assert (found.best, found.gained, found.lost, found.within) == (0, 0, 25, False)
    assert found.text.startswith("Trial 1, the second best, has more right answers than trial 0")


def test_a_study_whose_trials_all_failed_does_not_promise_more_of_them(new_study: Builder) -> None:
    made = new_study()
    for _ in range(2):
        made.add(state="FAIL", error="no room")
    with pytest.raises(BenchError, match="no trial has come to its end: 2 failed"):
        choose(made.study)


def test_predictions_on_other_images_are_not_compared(new_study: Builder) -> None:
    made = new_study()
    made.add(0.95, epochs=2, right=[True] * 95 + [False] * 5)
    made.add(0.80, epochs=2, right=[True] * 50)
    made.add(0.70, epochs=2)
    assert _comparison(made) is None
    made.add(0.60, epochs=2, right=[False] * 100)
    assert _comparison(made).second == 3


def test_without_predictions_of_the_best_nothing_is_compared(new_study: Builder) -> None:
    made = new_study()
    made.add(0.95)
    made.add(0.90, epochs=1, right=[True])
    assert _comparison(made) is None
    assert noise([], {}) is None


def test_the_winning_recipe_runs_by_itself(new_study: Builder) -> None:
    made = new_study(TWO)
    number = made.add(0.9, 1.0, epochs=1, params=_PARAMS)
    found = winning_recipe(made.study, find_trial(made.study, number))
    values = tomllib.loads(found.text)
    assert "search" not in values
    assert values["seeds"] == [0, 1]
    assert (values["optimizer"]["lr"], values["optimizer"]["name"], values["data"]["size"]) == (0.02, "sgd", 9)
    assert found.experiment == "toy"
    assert "# what people write stays" in found.text


def test_a_trial_without_a_run_has_a_recipe_as_long_as_any_other_has_one(new_study: Builder) -> None:
    made = new_study(TWO)
    bare = made.add(state="PRUNED", constraints={"latency_ms <= 5": 1.0}, params=_PARAMS)
    with pytest.raises(BenchError, match="no run of this study"):
        winning_recipe(made.study, find_trial(made.study, bare))
    made.add(0.9, 1.0, epochs=1)
    values = tomllib.loads(winning_recipe(made.study, find_trial(made.study, bare)).text)
    assert (values["optimizer"]["lr"], values["data"]["size"]) == (0.02, 9)


def test_the_winner_is_trained_with_its_seeds_and_tested_once_however_often_it_is_asked_for(
    new_study: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = new_study()
    trial = find_trial(made.study, made.add(0.9, epochs=1, params=_PARAMS))
    base = parse((_folder() / "recipe.toml").read_text(encoding="utf-8"), path=Path("toy.toml"))
    assert run_of(made.study).info()["trial"] == 0
    runs = retrain(base, made.study, trial, Progress())
    infos = [run.info() for run in runs]
    assert [info["seed"] for info in infos] == [0, 1]
    assert all("test_accuracy" in info["metrics"] for info in infos)
    assert all((info["winner"], info["study"], info["parent"]) == (0, "toy", made.identity) for info in infos)
    assert [run.name for run in retrained(made.study, trial)] == [run.name for run in runs]
    before = {run.name for run in record.list_runs()}
    assert [run.name for run in retrain(base, made.study, trial, Progress())] == [run.name for run in runs]
    made.study.set_user_attr("retrained", {})  # as after a kill between training and noting
    assert [run.name for run in retrain(base, made.study, trial, Progress())] == [run.name for run in runs]
    assert {run.name for run in record.list_runs()} == before

    best = max(infos, key=lambda info: info["metrics"]["val_accuracy"])
    assert run_of(made.study).info()["metrics"]["val_accuracy"] == best["metrics"]["val_accuracy"]


def test_other_seeds_than_before_are_trained(new_study: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = new_study()
    trial = find_trial(made.study, made.add(0.9, epochs=1, params=_PARAMS))
    base = parse((_folder() / "recipe.toml").read_text(encoding="utf-8"), path=Path("toy.toml"))
    assert [run.info()["seed"] for run in retrain(base, made.study, trial, Progress())] == [0, 1]
    more = changed(base, {"search.seeds": [3]})
    assert [run.info()["seed"] for run in retrain(more, made.study, trial, Progress())] == [3]
    assert [run.info()["seed"] for run in retrained(made.study, trial)] == [3]


def test_a_retraining_that_was_stopped_is_finished_not_repeated(new_study: Builder) -> None:
    made = new_study()
    trial = find_trial(made.study, made.add(0.9, epochs=1, params=_PARAMS))
    base = parse((_folder() / "recipe.toml").read_text(encoding="utf-8"), path=Path("toy.toml"))
    first = retrain(base, made.study, trial, Progress())
    made.study.set_user_attr("retrained", {})
    for run, status in zip(first, ("finished", "interrupted"), strict=True):  # a stopped one was never noted
        info = {key: value for key, value in run.info().items() if key not in {"study", "parent", "winner"}}
        (run.folder / "run.json").write_text(json.dumps({**info, "status": status}), encoding="utf-8")
    again = retrain(base, made.study, trial, Progress())
    assert [run.name for run in again] == [run.name for run in first]
    assert again[1].status() == "finished"


def test_a_winner_whose_run_is_gone_says_where_it_was_looked_for(new_study: Builder) -> None:
    made = new_study()
    made.add(0.9, run="20261126-040000-ab12-t0000-s7")
    with pytest.raises(BenchError, match="the run of trial 0 is not in") as caught:
        run_of(made.study)
    assert "BENCH_RUNS" in str(caught.value.hint)


def test_studies_are_found_by_name_and_the_latest_without_one(new_study: Builder, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    for name, created in (("signs", "2026-11-26T05:00:00"), ("faces", "2026-11-25T05:00:00")):
        new_study(storage=url, name=name).study.set_user_attr("created", created)
    assert find_study(storage_url=url).study_name == "signs"
    assert find_study("faces", storage_url=url).study_name == "faces"
    with pytest.raises(RecipeError, match=r"no study 'sign'.*signs"):
        find_study("sign", storage_url=url)


def test_where_nothing_was_searched_yet_no_storage_is_made(tmp_path: Path) -> None:
    for url in (None, f"sqlite:///{tmp_path}/typo.db"):
        with pytest.raises(BenchError, match="no search has been started yet"):
            find_study(storage_url=url)
    assert list(tmp_path.rglob("*.db*")) == []


def test_bench_recipe_writes_what_bench_run_takes(new_study: Builder, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    made = new_study(TWO, storage=url)
    made.add(0.9, 1.0, epochs=1, params=_PARAMS)
    made.add(0.8, 2.0, epochs=1)
    shown = CliRunner().invoke(recipe_command, ["--from-trial", "best", "--storage", url])
    assert shown.output.startswith("# Trial 0 of the study toy: validation accuracy 90.00%, size, MB 1\n")
    assert tomllib.loads(shown.output)["optimizer"]["lr"] == 0.02
    target = tmp_path / "winner.toml"
    options = ["--from-trial", "0", "--study", "toy", "--storage", url, "--output", str(target)]
    assert CliRunner().invoke(recipe_command, options).exit_code == 0
    assert target.read_text(encoding="utf-8") == shown.output
    assert parse(shown.output, path=target).experiment == "toy"


@pytest.mark.parametrize(("which", "words"), [("7", "no trial 7; its last is 0"), ("worst", "best, knee or fastest")])
def test_bench_recipe_refuses_what_is_no_trial(new_study: Builder, tmp_path: Path, which: str, words: str) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    new_study(storage=url).add(0.9, epochs=1)
    result = CliRunner().invoke(recipe_command, ["--from-trial", which, "--storage", url])
    assert isinstance(result.exception, RecipeError)
    assert words in str(result.exception)


def test_bench_recipe_says_where_a_file_cannot_be_written(new_study: Builder, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    new_study(storage=url).add(0.9, epochs=1)
    (tmp_path / "file").write_text("")
    options = ["--from-trial", "0", "--storage", url, "--output", str(tmp_path / "file" / "winner.toml")]
    result = CliRunner().invoke(recipe_command, options)
    assert isinstance(result.exception, BenchError)
    assert "cannot be written" in str(result.exception)


def _folder() -> Path:
    return next(iter(record.list_runs("toy"))).folder
