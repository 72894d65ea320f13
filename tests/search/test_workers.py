"""Several worker processes: what they are dealt, that they share the trials, and what becomes of a dead one's."""

from __future__ import annotations

import os
import signal
import threading
import time
from io import StringIO
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import TrialState
from rich.console import Console

from bench.errors import BenchError
from bench.recipe import Recipe, parse
from bench.record import list_runs
from bench.search.board import Board
from bench.search.dealing import environments
from bench.search.objectives import objectives
from bench.search.space import parse_space
from bench.search.storage import open_storage
from bench.search.study import finished, open_study
from bench.search.workers import run_workers

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
epochs = {epochs}
batch_size = 16
[compute]
precision = "fp32"
memory_format = "contiguous"
[search]
trials = {trials}
pruner = "none"
sampler = "random"
[search.space]
"optimizer.lr" = {{float = [1e-3, 1e-1], log = true}}
"""


def recipe_of(trials: int, epochs: int = 2) -> Recipe:
    return parse(RECIPE.format(trials=trials, epochs=epochs), path=Path("toy.toml"))


def study_of(recipe: Recipe) -> optuna.Study:
    return open_study(open_storage(), recipe, parse_space(recipe), objectives(recipe))


def run(recipe: Recipe, study: optuna.Study, workers: int) -> tuple[str, str]:
    """(why it ended, what was shown)."""
    console = Console(file=StringIO(), width=80)
    with Board(study.study_name, objectives(recipe), total=recipe.search.trials, console=console) as board:
        end = run_workers(recipe, study=study, storage_url=None, workers=workers, deadline=None, board=board)
    assert isinstance(console.file, StringIO)
    return end, console.file.getvalue()


def children() -> list[psutil.Process]:
    """The workers, without multiprocessing's own helper."""
    found = psutil.Process().children()
    return [child for child in found if "resource_tracker" not in " ".join(child.cmdline())]


def test_cores_are_divided_and_gpus_dealt_out() -> None:
    settings = environments(3, cores=8, gpus=["0", "GPU-7"])
    assert [one["OMP_NUM_THREADS"] for one in settings] == ["2", "2", "2"]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in settings] == ["0", "GPU-7", "0"]
    assert all("CUDA_VISIBLE_DEVICES" not in one for one in environments(2, cores=2, gpus=[]))
    assert environments(4, cores=2, gpus=[])[0]["MKL_NUM_THREADS"] == "1"


def test_two_workers_share_the_trials_and_the_log_has_a_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    recipe = recipe_of(6)
    study = study_of(recipe)
    end, shown = run(recipe, study, 2)
    assert (end, finished(study)) == ("complete", 6)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert len({trial.params["optimizer.lr"] for trial in study.trials}) == 6
    assert len(list(list_runs("toy"))) == 6
    assert all(f"trial {number} complete" in shown for number in range(6))
    assert os.environ["OMP_NUM_THREADS"] == "7"
    plan = (next(list_runs("toy")).folder / "plan.json").read_text(encoding="utf-8")
    assert "the cores, divided among the workers" in plan


@pytest.mark.slow
def test_a_killed_worker_is_reported_and_another_one_takes_its_trial_over() -> None:
    recipe = recipe_of(4, epochs=80)
    study = study_of(recipe)

    def kill() -> None:
        while not any(trial.user_attrs.get("run") for trial in study.get_trials(deepcopy=False)):
            time.sleep(0.1)
        running = next(trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("run"))
        os.kill(running.user_attrs["process"]["id"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    end, shown = run(recipe, study, 2)
    killer.join()
    assert (end, finished(study)) == ("complete", 4)
    assert "was killed by signal 9 (SIGKILL); its trial is taken over" in " ".join(shown.split())
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    assert len(list(list_runs("toy"))) == 4


def test_a_ctrl_c_that_reaches_the_workers_too_is_left_to_their_parent() -> None:
    recipe = recipe_of(4)
    study = study_of(recipe)
    told = 0

    def interrupt() -> None:
        nonlocal told
        while told < 2 or not any(trial.user_attrs.get("run") for trial in study.get_trials(deepcopy=False)):
            for child in children():
                child.send_signal(signal.SIGINT)
                told += 1
            time.sleep(0.02)

    sender = threading.Thread(target=interrupt)
    sender.start()
    end, shown = run(recipe, study, 2)
    sender.join()
    assert (end, finished(study)) == ("complete", 4)
    assert "killed" not in shown


@pytest.mark.slow
def test_where_all_workers_die_it_says_so_and_leaves_their_trials_waiting() -> None:
    recipe = recipe_of(4, epochs=100_000)
    study = study_of(recipe)

    def kill() -> None:
        while not any(trial.user_attrs.get("run") for trial in study.get_trials(deepcopy=False)):
            time.sleep(0.1)
        for child in children():
            child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(BenchError, match="all 2 workers have died"):
        run(recipe, study, 2)
    killer.join()
    assert {trial.state for trial in study_of(recipe).trials} == {TrialState.WAITING}
    assert children() == []
