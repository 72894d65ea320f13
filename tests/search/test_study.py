"""Studies: found again, refused where they are others', and none of their trials lost or there twice, whoever dies."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from bench.errors import BenchError, RecipeError
from bench.recipe import Recipe, parse
from bench.record import this_process
from bench.search.claim import claim
from bench.search.objectives import objectives
from bench.search.space import parse_space
from bench.search.storage import open_storage
from bench.search.study import finished, open_study
from bench.search.sweeping import MOST_DEATHS, sweep

RECIPE = """
experiment = "toy"
[dataset]
name = "digits"
[model]
name = "cnn"
[train]
epochs = 3
[search]
sampler = "random"
[search.space]
"optimizer.lr" = {float = [1e-4, 1e-1], log = true}
"train.batch" = {choice = [16, 32]}
"""

#: A worker of a study: claims trials, takes a while over each, and tells them, until so many are finished.
WORKER = """
import sys, time
from pathlib import Path
from bench.recipe import load
from bench.search.claim import Heartbeat, claim, is_mine
from bench.search.locking import exclusive
from bench.search.objectives import objectives
from bench.search.space import parse_space
from bench.search.patience import patiently
from bench.search.storage import open_storage
from bench.search.study import finished, open_study, sweep

url, path, total, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
recipe = load(path)
space = parse_space(recipe)
study = patiently(lambda: open_study(open_storage(url), recipe, space, objectives(recipe)))
print("ready", flush=True)

def tell(trial, value):
    with exclusive(study):
        if is_mine(study, trial):
            study.tell(trial, value)

while True:
    trial = patiently(lambda: claim(study, total))
    if trial is None:
        if patiently(lambda: finished(study)) >= total:
            break
        time.sleep(0.2)
        patiently(lambda: sweep(study))
        continue
    print("trial", trial.number, flush=True)
    with Heartbeat(study, trial):
        patiently(lambda: trial.set_user_attr("run", trial.user_attrs.get("run", f"run-{trial.number}")))
        values = patiently(lambda: space.suggest(trial))
        time.sleep(seconds)
    patiently(lambda: tell(trial, float(values["optimizer.lr"])))
"""


def recipe_of(text: str = RECIPE) -> Recipe:
    return parse(text, path=Path("toy.toml"))


def opened(url: str, text: str = RECIPE, *, new: bool = False) -> optuna.Study:
    recipe = recipe_of(text)
    return open_study(open_storage(url), recipe, parse_space(recipe), objectives(recipe), new=new)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/search.db"


def running(study: optuna.Study) -> optuna.Trial:
    """A trial that this process has claimed."""
    trial = claim(study, 100)
    assert trial is not None
    return trial


def frozen(study: optuna.Study, number: int) -> FrozenTrial:
    return study.get_trials()[number]


def orphan(study: optuna.Study, **process: object) -> optuna.Trial:
    """A running trial of another process."""
    trial = running(study)
    trial.set_user_attr("process", {**this_process(), **process})
    trial.set_user_attr("run", "its-run")
    parse_space(recipe_of()).suggest(trial)
    if not frozen(study, trial.number).intermediate_values:
        trial.report(0.5, 1)
    return trial


def start_worker(url: str, recipe: Path, *, total: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", WORKER, url, str(recipe), str(total), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish_all(workers: Sequence[subprocess.Popen[str]]) -> None:
    for worker in workers:
        output, _ = worker.communicate(timeout=240)
        assert worker.returncode == 0, output


def assert_whole(study: optuna.Study, total: int) -> None:
    """Exactly so many trials, all complete, each with one run and the values of its own parameters."""
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * total
    assert finished(study) == total
    assert [trial.user_attrs["run"] for trial in trials] == [f"run-{number}" for number in range(total)]
    assert [trial.value for trial in trials] == [trial.params["optimizer.lr"] for trial in trials]


def test_the_same_recipe_goes_on_with_its_study(url: str) -> None:
    first = opened(url)
    first.add_trial(optuna.create_trial(value=0.5))
    again = opened(url, RECIPE.replace("[search]", "[compute]\nthreads = 1\n[search]\ntrials = 99"))
    assert again.study_name == first.study_name == "toy"
    assert len(again.trials) == 1
    assert again.user_attrs == first.user_attrs


def test_a_study_carries_what_it_is_about(url: str) -> None:
    study = opened(url)
    facts = study.user_attrs
    assert facts["experiment"] == "toy"
    assert facts["metrics"] == [{"metric": "val_accuracy", "direction": "maximize"}]
    assert facts["recipe"] == {"dataset.name": "digits", "model.name": "cnn", "train.epochs": 3}
    assert set(facts["space"]) == {"optimizer.lr", "train.batch"}
    assert len(facts["id"]) == 16
    assert facts["group"]
    assert len(facts["digest"]) == 64
    assert study.directions == [optuna.study.StudyDirection.MAXIMIZE]
    assert isinstance(study.pruner, optuna.pruners.MedianPruner)


def test_a_study_samples_as_the_recipe_says(url: str) -> None:
    grid = RECIPE.replace('"random"', '"grid"').replace("{float = [1e-4, 1e-1], log = true}", "{choice = [0.1, 0.2]}")
    study = opened(url, grid)
    values = []
    for _ in range(4):
        trial = running(study)
        values.append(tuple(sorted(parse_space(recipe_of(grid)).suggest(trial).items())))
        trial.set_user_attr("process", None)
    assert len(set(values)) == 4


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("[1e-4, 1e-1]", "[1e-5, 1e-1]", "space optimizer.lr: "),
        ("choice = [16, 32]", "choice = [16, 64]", "space train.batch: "),
        ("[search]", '[search]\nmetrics = ["val_loss"]', "metrics: val_loss (minimize), was val_accuracy (maximize)"),
        ("epochs = 3", "epochs = 4", "train.epochs: 4, was 3"),
        ('name = "cnn"', 'name = "lenet"', 'model.name: "lenet", was "cnn"'),
        ("[search]", '[search]\nconstraints = ["size_mb <= 2"]', 'search.constraints: ["size_mb <= 2"], was []'),
        ("[search]", '[search]\npruner = "wilcoxon"', 'a trial is: "the mean over seeds 0 and folds", was "one run"'),
        ('name = "cnn"', 'name = "cnn"\n[[augment]]\nname = "affine"', 'augment.0.name: "affine", was not given'),
    ],
)
def test_another_space_metric_or_recipe_is_refused_with_what_differs(
    url: str, before: str, after: str, said: str
) -> None:
    opened(url)
    assert before in RECIPE
    with pytest.raises(RecipeError) as caught:
        opened(url, RECIPE.replace(before, after))
    assert "'toy'" in str(caught.value)
    assert len(caught.value.problems) == 1
    assert said in caught.value.problems[0]
    assert "--new" in str(caught.value.hint)


def test_a_latency_that_counts_is_measured_in_one_way_and_one_that_does_not_may_change(url: str) -> None:
    slower = "\n[search.latency]\nbatch = 8\n[search.space]"
    opened(url)
    assert opened(url, RECIPE.replace("[search.space]", slower)).study_name == "toy"
    timed = RECIPE.replace("[search]", '[search]\nmetrics = ["val_accuracy", "latency_ms"]').replace('"toy"', '"timed"')
    opened(url, timed)
    with pytest.raises(RecipeError) as caught:
        opened(url, timed.replace("[search.space]", slower))
    assert caught.value.problems == ("search.latency.batch: 8, was 1",)


def test_a_study_that_did_not_note_its_constraints_yet_goes_on(url: str) -> None:
    opened(url).set_user_attr("judged", None)
    assert opened(url, RECIPE.replace("[search]", '[search]\nconstraints = ["size_mb <= 2"]')).study_name == "toy"


def test_a_value_that_the_space_overrides_may_change(url: str) -> None:
    opened(url)
    assert opened(url, RECIPE.replace("[search]", "[optimizer]\nlr = 0.5\n[search]")).study_name == "toy"


def test_new_begins_another_study_and_each_recipe_finds_its_own(url: str) -> None:
    other = RECIPE.replace("epochs = 3", "epochs = 4")
    opened(url)
    assert opened(url, other, new=True).study_name == "toy-2"
    assert opened(url).study_name == "toy"
    assert opened(url, other).study_name == "toy-2"
    assert opened(url, new=True).study_name == "toy-3"
    assert opened(url).study_name == "toy-3"
    with pytest.raises(RecipeError, match="'toy-3'"):
        opened(url, RECIPE.replace("epochs = 3", "epochs = 5"))


def test_a_study_of_someone_elses_with_that_name_is_left_alone(url: str) -> None:
    optuna.create_study(storage=open_storage(url), study_name="toy")
    assert opened(url).study_name == "toy-2"


def test_a_study_of_a_newer_version_is_refused(url: str) -> None:
    opened(url).set_user_attr("schema", 99)
    with pytest.raises(RecipeError, match="version 99"):
        opened(url)


def test_the_trial_of_a_dead_process_is_queued_again_as_it_was(url: str) -> None:
    study = opened(url)
    dead = orphan(study, id=2**22 + 1)
    before = frozen(study, 0)
    assert sweep(study) == 1
    waiting = frozen(study, 0)
    assert waiting.state == TrialState.WAITING
    taken = running(study)
    assert (taken.number, taken.params, taken.user_attrs["run"]) == (dead.number, before.params, "its-run")
    assert frozen(study, 0).intermediate_values == {1: 0.5}
    assert frozen(study, 0).user_attrs["process"] == this_process()
    assert len(study.trials) == 1


def test_the_trials_of_live_processes_are_left_alone(url: str) -> None:
    study = opened(url)
    running(study)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        import psutil

        orphan(study, id=other.pid, started=psutil.Process(other.pid).create_time())
        assert sweep(study) == 0
        other.kill()
        while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert sweep(study) == 1  # nobody has waited for it, yet it is dead
    finally:
        other.kill()
        other.communicate()


def test_a_trial_of_another_machine_is_queued_again_only_without_heartbeat(url: str) -> None:
    study = opened(url)
    orphan(study, host="elsewhere")
    assert sweep(study) == 0
    age_heartbeats(study, seconds=50)
    assert sweep(study) == 0
    age_heartbeats(study, seconds=50)
    assert sweep(study) == 1
    running(study)
    assert sweep(study) == 0  # taken over a moment ago, and its heartbeat is a new one


def age_heartbeats(study: optuna.Study, *, seconds: int) -> None:
    from sqlalchemy import text

    with study._storage._backend.engine.begin() as connection:  # type: ignore[attr-defined]  # Optuna's cache hides it
        earlier = "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, :by) || '.000000'"
        connection.execute(text(earlier), {"by": f"-{seconds} seconds"})


def test_a_trial_that_was_never_marked_is_queued_again_after_a_while(url: str) -> None:
    from sqlalchemy import text

    study = opened(url)
    study.add_trial(optuna.create_trial(state=TrialState.WAITING))
    assert study._storage.set_trial_state_values(frozen(study, 0)._trial_id, TrialState.RUNNING)
    assert sweep(study) == 0
    with study._storage._backend.engine.begin() as connection:  # type: ignore[attr-defined]  # Optuna's cache hides it
        connection.execute(text("UPDATE trials SET datetime_start = '2026-01-01 00:00:00.000000'"))
    assert sweep(study) == 1
    assert frozen(study, 0).state == TrialState.WAITING


def test_a_trial_that_kills_every_process_is_given_up(url: str) -> None:
    study = opened(url)
    for death in range(MOST_DEATHS + 2):
        trial = orphan(study, id=2**22 + 1)
        assert trial.number == 0
        if death == 2:
            trial.report(0.6, 2)  # it got on, so the two deaths before do not count
        assert sweep(study) == 1
    given_up = frozen(study, 0)
    assert given_up.state == TrialState.FAIL
    assert f"died {MOST_DEATHS} times" in given_up.user_attrs["error"]
    assert finished(study) == 1
    assert sweep(study) == 0


_SWEEP = """
import sys
from bench.search.storage import open_storage
from bench.search.sweeping import sweep
import optuna
study = optuna.load_study(storage=open_storage(sys.argv[1]), study_name="toy")
print("ready", flush=True)
input()
print(sweep(study))
"""


def test_processes_that_sweep_at_once_queue_a_trial_once(url: str) -> None:
    study = opened(url)
    for _ in range(5):
        orphan(study, id=2**22 + 1)
    sweepers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SWEEP, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for sweeper in sweepers:
        assert sweeper.stdout is not None
        assert sweeper.stdout.readline() == "ready\n"
    for sweeper in sweepers:
        assert sweeper.stdin is not None
        sweeper.stdin.write("\n")
        sweeper.stdin.flush()
    counts = [int(sweeper.communicate(timeout=60)[0]) for sweeper in sweepers]
    assert sum(counts) == 5
    assert [trial.state for trial in study.trials] == [TrialState.WAITING] * 5


def test_a_failed_trial_that_optuna_itself_queued_again_counts_once(url: str) -> None:
    study = opened(url)
    orphan(study, host="elsewhere")
    age_heartbeats(study, seconds=100)
    study.optimize(lambda trial: trial.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True), n_trials=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[1].user_attrs["run"] == "its-run"
    assert finished(study) == 1


def test_a_locked_storage_is_an_error_with_a_remedy(url: str, tmp_path: Path) -> None:
    import sqlite3

    storage = open_storage(url, locked_s=0.2)
    recipe = recipe_of()
    connection = sqlite3.connect(tmp_path / "search.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(BenchError, match="another program holds it"):
            open_study(storage, recipe, parse_space(recipe), objectives(recipe))
    finally:
        connection.close()


def kill_and_restart(url: str, folder: Path, *, kills: int, total: int, seconds: float) -> None:
    """Kill a worker of two again and again, at random moments, and start it anew with the same command."""
    recipe = folder / "toy.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    moments = random.Random(7)
    workers = [start_worker(url, recipe, total=total, seconds=seconds) for _ in range(2)]
    for number in range(kills):
        victim = workers[number % 2]
        assert victim.stdout is not None
        if victim.stdout.readline() == "ready\n":
            time.sleep(moments.uniform(0.0, 2.5 * seconds))
        os.kill(victim.pid, signal.SIGKILL)
        victim.communicate()
        workers[number % 2] = start_worker(url, recipe, total=total, seconds=seconds)
    finish_all(workers)
    assert_whole(opened(url), total)


def test_a_killed_worker_loses_no_trial_and_repeats_none(url: str, tmp_path: Path) -> None:
    kill_and_restart(url, tmp_path, kills=1, total=6, seconds=0.3)


@pytest.mark.soak
@pytest.mark.slow
def test_fifty_kills_lose_no_trial_and_repeat_none(url: str, tmp_path: Path) -> None:
    kill_and_restart(url, tmp_path, kills=50, total=150, seconds=0.5)


@pytest.mark.parametrize("processes", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_that_begin_at_once_share_one_new_study(url: str, tmp_path: Path, processes: int) -> None:
    recipe = tmp_path / "toy.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    finish_all([start_worker(url, recipe, total=12, seconds=0.05) for _ in range(processes)])
    study = opened(url)
    assert study.study_name == "toy"
    assert_whole(study, 12)
