"""Pruning with several objectives decides as Optuna does with one."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import optuna
import pytest
from optuna import pruners
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from bench.search.objectives import Objective
from bench.search.pruning import CURVE, Curve, curve_of, reduced

ACCURACY = Objective("val_accuracy", "maximize", is_cost=False)
LOSS = Objective("val_loss", "minimize", is_cost=False)
SIZE = Objective("size_mb", "minimize", is_cost=True)

EPOCHS = 12

PRUNERS: dict[str, Callable[[], pruners.BasePruner]] = {
    "median": lambda: pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2),
    "percentile": lambda: pruners.PercentilePruner(30.0, n_startup_trials=2),
    "hyperband": lambda: pruners.HyperbandPruner(min_resource=1, max_resource=EPOCHS, reduction_factor=3),
    "hyperband, its budget from the trials": pruners.HyperbandPruner,
    "successive halving": lambda: pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    "successive halving, its budget from the trials": pruners.SuccessiveHalvingPruner,
    "wilcoxon": lambda: pruners.WilcoxonPruner(p_threshold=0.2),
    "patient": lambda: pruners.PatientPruner(pruners.MedianPruner(n_startup_trials=2), patience=2),
    "none": pruners.NopPruner,
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
    optuna.logging.set_verbosity(before)


def _study(
    objectives: Sequence[Objective], pruner: pruners.BasePruner | None = None, url: str | None = None
) -> optuna.Study:
    directions = [one.direction for one in objectives]
    # Hyperband draws a trial's bracket from the study's name: the same name, the same brackets.
    return optuna.create_study(study_name="curves", directions=directions, pruner=pruner, storage=url)


def _curves(*, rising: bool) -> list[list[float]]:
    chance = random.Random(3)
    curves = []
    for _ in range(40):
        height, speed = chance.uniform(0.4, 1.0), chance.uniform(0.1, 1.0)
        curve = [height * (1 - math.exp(-speed * step)) + chance.gauss(0, 0.02) for step in range(1, EPOCHS + 1)]
        curves.append(curve if rising else [1.5 - value for value in curve])
    return curves


def _search(study: optuna.Study, objectives: Sequence[Objective], curves: list[list[float]]) -> list[tuple[str, int]]:
    """How each trial ended, and after how many epochs."""
    place = next(number for number, one in enumerate(objectives) if not one.is_cost)
    ended = []
    for values in curves:
        trial = study.ask()
        curve = Curve(study, trial, objectives)
        for epoch, value in enumerate(values, start=1):
            curve.report(epoch, value)
            if curve.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                ended.append(("pruned", epoch))
                break
        else:
            final: list[float] = [0.0] * len(objectives)
            final[place] = values[-1]
            study.tell(trial, final)
            ended.append(("complete", EPOCHS))
    return ended


def _by_optuna(study: optuna.Study, curves: list[list[float]]) -> list[tuple[str, int]]:
    ended = []
    for values in curves:
        trial = study.ask()
        for epoch, value in enumerate(values, start=1):
            trial.report(value, epoch)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                ended.append(("pruned", epoch))
                break
        else:
            study.tell(trial, values[-1])
            ended.append(("complete", EPOCHS))
    return ended


@pytest.mark.parametrize("objective", [ACCURACY, LOSS], ids=lambda one: str(one.metric))
@pytest.mark.parametrize("pruner", list(PRUNERS))
def test_several_objectives_are_pruned_exactly_as_optuna_prunes_one(pruner: str, objective: Objective) -> None:
    curves = _curves(rising=objective is ACCURACY)
    expected = _by_optuna(_study([objective], PRUNERS[pruner]()), curves)
    one = _search(_study([objective], PRUNERS[pruner]()), [objective], curves)
    both = _search(_study([SIZE, objective], PRUNERS[pruner]()), [SIZE, objective], curves)
    assert one == both == expected
    assert len({how for how, _ in expected}) == (1 if pruner == "none" else 2)


def test_two_processes_see_each_others_curves(tmp_path: Path) -> None:
    url, objectives = f"sqlite:///{tmp_path}/search.db", [ACCURACY, SIZE]
    mine = _study(objectives, pruners.MedianPruner(n_startup_trials=1), url)
    _search(mine, objectives, [[0.5, 0.6, 0.7]])
    other = optuna.load_study(study_name="curves", storage=url, pruner=pruners.MedianPruner(n_startup_trials=1))
    curve = Curve(other, other.ask(), objectives)
    curve.report(1, 0.4)
    assert curve.should_prune()
    assert [curve_of(trial) for trial in mine.get_trials()] == [{1: 0.5, 2: 0.6, 3: 0.7}, {1: 0.4}]


def test_the_curve_is_that_of_the_first_metric_which_is_no_cost() -> None:
    objectives = [SIZE, LOSS, ACCURACY]
    study = _study(objectives, pruners.MedianPruner(n_startup_trials=1))
    curve = Curve(study, study.ask(), objectives)
    assert curve.metric == "val_loss"
    assert reduced(study, 1).direction == optuna.study.StudyDirection.MINIMIZE
    assert reduced(study, 2).direction == optuna.study.StudyDirection.MAXIMIZE


@pytest.mark.parametrize(("size_mb", "hopeless"), [(0.5, False), (5.0, True), (9.0, True)])
def test_a_trial_is_judged_only_by_those_that_cost_no_more(size_mb: float, hopeless: bool) -> None:
    """A small model belongs on the front, however much better the large ones are."""
    study = _study([ACCURACY, SIZE], pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1))
    for _ in range(4):
        trial = study.ask()
        trial.set_user_attr("costs", {"size_mb": 5.0})
        curve = Curve(study, trial, [ACCURACY, SIZE])
        for epoch in range(1, 5):
            curve.report(epoch, 0.9)
        study.tell(trial, [0.9, 5.0])
    trial = study.ask()
    trial.set_user_attr("costs", {"size_mb": size_mb})
    curve = Curve(study, trial, [ACCURACY, SIZE])
    curve.report(2, 0.5)
    assert curve.should_prune() is hopeless


def test_costs_alone_are_never_pruned() -> None:
    study = _study([SIZE], pruners.MedianPruner(n_startup_trials=0))
    curve = Curve(study, study.ask(), [SIZE])
    curve.report(1, 0.1)
    assert curve.metric is None
    assert not curve.should_prune()
    assert study.trials[0].intermediate_values == {}


@pytest.mark.parametrize("objectives", [[ACCURACY], [ACCURACY, SIZE]], ids=["one", "several"])
def test_a_trial_taken_up_again_reports_no_epoch_twice(objectives: list[Objective]) -> None:
    study = _study(objectives)
    trial = study.ask()
    Curve(study, trial, objectives).report(1, 0.5)
    study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    again = study.ask()
    assert again.number == trial.number
    curve = Curve(study, again, objectives)
    for epoch, value in ((1, 0.1), (2, 0.6)):
        curve.report(epoch, value)
    assert curve_of(study.trials[0]) == {1: 0.5, 2: 0.6}


def test_a_metric_that_is_no_number_is_pruned_like_optunas() -> None:
    objectives = [ACCURACY, SIZE]
    study = _study(objectives, pruners.MedianPruner(n_startup_trials=1))
    _search(study, objectives, [[0.5, 0.6]])
    curve = Curve(study, study.ask(), objectives)
    curve.report(1, math.nan)
    assert curve.should_prune()


@pytest.mark.parametrize("objectives", [[ACCURACY], [ACCURACY, SIZE]], ids=["one", "several"])
def test_a_storage_that_is_away_for_a_while_ends_no_training_and_hears_everything_later(
    objectives: list[Objective], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _study(objectives, pruners.MedianPruner(n_startup_trials=0))
    curve = Curve(study, study.ask(), objectives)

    def away(*_: object) -> None:
        raise OperationalError("insert", None, ConnectionError("connection refused"))

    with monkeypatch.context() as broken:
        for name in ("set_trial_intermediate_value", "set_trial_user_attr", "get_all_trials", "get_trial"):
            broken.setattr(study._storage, name, away)
        curve.report(1, 0.5)
        assert not curve.should_prune()
    curve.report(2, 0.6)
    assert curve_of(study.trials[0]) == {1: 0.5, 2: 0.6}


def test_curves_do_not_confuse_the_samplers_of_several_objectives() -> None:
    objectives = [ACCURACY, SIZE]
    study = _study(objectives, pruners.MedianPruner(n_startup_trials=2))
    study.sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=3)
    for values in _curves(rising=True)[:12]:
        trial = study.ask()
        height = trial.suggest_float("height", 0, 1)
        curve = Curve(study, trial, objectives)
        pruned = False
        for epoch, value in enumerate(values, start=1):
            curve.report(epoch, value * height)
            if pruned := curve.should_prune():
                break
        if pruned:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [values[-1] * height, height])
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.PRUNED) >= 3
    assert all(trial.intermediate_values == {} and trial.user_attrs[CURVE] for trial in study.trials)
