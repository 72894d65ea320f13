"""Claims, the loop of one worker, and what a search says at its end; real trials of a linear model on digits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState

from bench.errors import BenchError, Interrupted
from bench.recipe import Recipe, parse
from bench.record import list_runs, runs_folder, this_process
from bench.search.claim import claim, counted, put_back
from bench.search.ending import common_cause, failing, judge
from bench.search.loop import work
from bench.search.objectives import constraints, objectives
from bench.search.patience import patiently
from bench.search.run_search import work_alone
from bench.search.shared import Shared
from bench.search.space import parse_space
from bench.search.storage import open_storage
from bench.search.study import finished, open_study, sweep

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
pruner = "none"
sampler = "random"
"""
SPACE = """
[search.space]
"optimizer.lr" = {float = [1e-3, 1e-1], log = true}
"optimizer.weight_decay" = {choice = [0.0, 0.01]}
"""
#: The weights are no numbers after the first step.
HOPELESS = """
[search.space]
"optimizer.lr" = {float = [1e38, 3e38]}
"""


class Notes:
    """A board that keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.shown: list[int] = []

    def show(self, trials: Sequence[FrozenTrial]) -> None:
        self.shown.append(sum(trial.state.is_finished() for trial in trials))

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def now() -> datetime:
    """As Optuna's times: of this place, without saying so."""
    return datetime.now()  # noqa: DTZ005


def recipe_of(space: str = SPACE, search: str = "") -> Recipe:
    return parse(RECIPE + search + space, path=Path("toy.toml"))


def study_of(recipe: Recipe) -> optuna.Study:
    return open_study(open_storage(), recipe, parse_space(recipe), objectives(recipe))


def run_loop(recipe: Recipe, study: optuna.Study, total: int, **changes: Any) -> tuple[str, Notes]:
    notes = Notes()
    settings: dict[str, Any] = {"deadline": None, "should_stop": lambda: False, "board": notes, **changes}
    shared = Shared(recipe, should_stop=settings["should_stop"])
    end = work(
        study,
        shared,
        space=parse_space(recipe),
        objectives=objectives(recipe),
        constraints=constraints(recipe),
        total=total,
        **settings,
    )
    return end, notes


def test_the_loop_runs_exactly_the_trials_that_are_asked_for_and_a_second_call_none() -> None:
    recipe = recipe_of()
    study = study_of(recipe)
    end, notes = run_loop(recipe, study, 3)
    assert (end, finished(study), notes.shown[-1]) == ("complete", 3, 3)
    assert [trial.number for trial in study.trials] == [0, 1, 2]
    assert len({trial.params["optimizer.lr"] for trial in study.trials}) == 3
    assert run_loop(recipe, study_of(recipe), 3)[0] == "complete"
    assert len(study.trials) == 3
    assert len(list(list_runs("toy"))) == 3


def test_more_trials_than_before_go_on_with_the_same_study() -> None:
    recipe = recipe_of()
    run_loop(recipe, study_of(recipe), 1)
    assert run_loop(recipe, study_of(recipe), 2)[0] == "complete"
    assert finished(study_of(recipe)) == 2


def test_claims_of_many_at_once_are_as_many_as_are_wanted_and_none_twice() -> None:
    recipe = recipe_of()
    study_of(recipe)
    claimed: list[int] = []

    def ask() -> None:
        study = study_of(recipe)
        while (trial := claim(study, 10)) is not None:
            claimed.append(trial.number)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(10))


def test_a_finished_trial_leaves_no_room_for_another_and_a_smaller_number_ends_at_once() -> None:
    recipe = recipe_of()
    study = study_of(recipe)
    first = claim(study, 2)
    assert first is not None
    study.tell(first, 0.5)
    assert claim(study, 2) is not None
    assert claim(study, 2) is None
    assert claim(study, 1) is None


def test_a_trial_that_is_put_back_keeps_its_number_and_parameters() -> None:
    recipe = recipe_of()
    study = study_of(recipe)
    trial = claim(study, 5)
    assert trial is not None
    value = trial.suggest_float("optimizer.lr", 1e-3, 1e-1, log=True)
    put_back(study, trial)
    assert study.trials[0].state == TrialState.WAITING
    again = claim(study, 5)
    assert again is not None
    assert (again.number, again.suggest_float("optimizer.lr", 1e-3, 1e-1, log=True)) == (0, value)
    assert again.user_attrs["process"] == this_process()


def test_a_trial_that_another_process_has_taken_over_is_not_put_back() -> None:
    recipe = recipe_of()
    study = study_of(recipe)
    trial = claim(study, 5)
    assert trial is not None
    trial.set_user_attr("process", {**this_process(), "id": 1})
    put_back(study, trial)
    assert study.trials[0].state == TrialState.RUNNING


def test_the_trial_of_a_dead_process_is_claimed_again_with_its_number() -> None:
    recipe = recipe_of()
    study = study_of(recipe)
    trial = claim(study, 1)
    assert trial is not None
    assert claim(study, 1) is None
    trial.set_user_attr("process", {**this_process(), "id": 2**22 + 1})
    assert sweep(study) == 1
    again = claim(study, 1)
    assert again is not None
    assert again.number == trial.number
    assert [one.number for one in counted(study)] == [0]


def test_a_worker_without_a_free_trial_takes_over_from_a_dead_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.search.loop._SWEEP_SECONDS", 0.5)
    recipe = recipe_of()
    study = study_of(recipe)
    trial = claim(study, 1)
    assert trial is not None
    trial.set_user_attr("process", {**this_process(), "id": 2**22 + 1})
    assert run_loop(recipe, study, 1)[0] == "complete"
    assert [one.state for one in study.trials] == [TrialState.COMPLETE]


def test_a_stop_leaves_the_running_trial_to_the_next_call_which_goes_on_with_its_run() -> None:
    recipe = recipe_of(search="", space=SPACE.replace("1e-3", "1e-2"))
    study = study_of(recipe)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4  # some steps into the training of the first trial

    end, _ = run_loop(recipe, study, 2, should_stop=should_stop)
    (trial,) = study.trials
    assert (end, trial.state) == ("stopped", TrialState.WAITING)
    with pytest.raises(Interrupted, match="stopped after 0 of 2 trials") as caught:
        judge(study, end, since=now(), total=2)
    assert "the same command goes on" in str(caught.value.hint)
    assert run_loop(recipe, study, 2)[0] == "complete"
    first = study.trials[0]
    assert (first.params, first.user_attrs["run"]) == (trial.params, trial.user_attrs["run"])
    assert len(list(list_runs("toy"))) == 2


def test_after_the_deadline_no_trial_is_started() -> None:
    recipe = recipe_of()
    study = study_of(recipe)
    assert run_loop(recipe, study, 2, deadline=time.time() - 1)[0] == "timeout"
    assert study.trials == []


def test_when_every_trial_fails_the_search_stops_after_five_and_names_the_cause() -> None:
    recipe = recipe_of(HOPELESS)
    study = study_of(recipe)
    since = now()
    end, _ = run_loop(recipe, study, 50)
    assert end == "failing"
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 5
    with pytest.raises(BenchError, match=r"the latest 5 trials failed: the loss is (nan|inf)"):
        judge(study, end, since=since, total=50)
    # Repeated, it tries anew instead of giving up at once.
    assert not failing(study.trials, now() + timedelta(seconds=1))
    run_loop(recipe, study, 6)
    assert len(study.trials) == 6


def test_causes_that_differ_in_numbers_only_are_one_cause() -> None:
    errors = ["the loss is nan at step 3", "no room", "the loss is nan at step 12"]
    failed = [optuna.create_trial(state=TrialState.FAIL, user_attrs={"error": text}) for text in errors]
    assert common_cause(failed) == "2 of them with: the loss is nan at step 3"


def test_a_constraint_that_nothing_satisfies_is_told_with_the_nearest_trial() -> None:
    recipe = recipe_of(search='constraints = ["parameters <= 100"]\n')
    study = study_of(recipe)
    end, _ = run_loop(recipe, study, 2)
    assert end == "complete"
    assert not list(list_runs("toy"))
    with pytest.raises(BenchError, match=r"nearest is trial \d \(parameters <= 100: 650\)") as caught:
        judge(study, end, since=now(), total=2, constraints=constraints(recipe))
    assert "loosen search.constraints" in str(caught.value.hint)


def test_a_grid_ends_after_its_last_combination() -> None:
    recipe = recipe_of('[search.space]\n"optimizer.lr" = {choice = [0.01, 0.1]}\n').text
    recipe_grid = parse(recipe.replace('sampler = "random"', 'sampler = "grid"'), path=Path("toy.toml"))
    study = study_of(recipe_grid)
    assert run_loop(recipe_grid, study, 2)[0] == "complete"
    assert sorted(trial.params["optimizer.lr"] for trial in study.trials) == [0.01, 0.1]


def test_a_storage_that_is_locked_for_a_moment_is_asked_again_and_said_once() -> None:
    failures = [StorageInternalError("database is locked")] * 2
    notes = Notes()

    def call() -> int:
        if failures:
            raise failures.pop()
        return 7

    assert patiently(call, warn=notes.warn) == 7
    assert len(notes.warnings) == 1
    failures = [StorageInternalError("database is locked")]
    with pytest.raises(BenchError, match="locked"):
        patiently(call, seconds=0.0)


def test_the_first_heartbeat_comes_with_the_claim() -> None:
    recipe = recipe_of()
    study = study_of(recipe)
    claim(study, 1)
    engine = open_storage().engine
    with engine.connect() as connection:
        beats = connection.exec_driver_sql("SELECT count(*) FROM trial_heartbeats").scalar()
    engine.dispose()
    assert beats == 1
    assert os.environ["BENCH_RUNS"] in str(engine.url)


def test_a_storage_that_is_deleted_meanwhile_ends_the_search_with_words() -> None:
    recipe = recipe_of()
    study = study_of(recipe)
    trial = claim(study, 2)
    assert trial is not None
    for file in runs_folder().glob("search.db*"):
        file.unlink()
    with pytest.raises(BenchError, match="deleted or moved while it was in use"):
        claim(study, 2)
    with pytest.raises(BenchError, match="deleted or moved while it was in use"):  # a worker that begins just now
        work_alone(recipe, storage_url=None, deadline=None, threads=1, board=Notes())


def test_trials_that_all_failed_and_are_as_many_as_wanted_need_more_of_them() -> None:
    study = study_of(recipe_of())
    for _ in range(2):
        trial = claim(study, 2)
        assert trial is not None
        study.tell(trial, state=TrialState.FAIL)
    with pytest.raises(BenchError) as caught:
        judge(study, "complete", since=now(), total=2)
    assert "more --trials" in str(caught.value.hint)
    with pytest.raises(BenchError) as caught:
        judge(study, "failing", since=now(), total=3)
    assert "repeat the command" in str(caught.value.hint)
