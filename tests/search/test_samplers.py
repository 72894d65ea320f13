"""Samplers and pruners by name: real trials of every one, on plain and conditional spaces."""

from __future__ import annotations

import json
import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from optuna.trial import TrialState

from bench.errors import RecipeError
from bench.recipe import Recipe, changed, parse
from bench.search.samplers import EXHAUSTIVE, make_pruner, make_sampler, planned_trials
from bench.search.space import Space, parse_space
from bench.search_tables import Search

BASE = """
[dataset]
name = "digits"

[model]
name = "cnn"

[search.space]
"""

PLAIN = """
"optimizer.lr" = {float = [1e-4, 1e-1], log = true}
"train.batch_size" = {choice = [16, 32, 64]}
"train.epochs" = {int = [2, 8], step = 2}
"""

CONDITIONAL = """
"optimizer.lr" = {float = [1e-4, 1e-1], log = true}

[search.space.model]
choice = [
  {name = "lenet", dropout = {float = [0.0, 0.5]}},
  {name = "cnn", channels = {choice = [[8, 16], [16, 32, 64]]}, convs_per_block = {int = [1, 3]}},
]
"""

GRID = """
"train.batch_size" = {choice = [16, 32]}
"train.ema" = {float = [0.0, 0.2], step = 0.1}

[search.space.model]
choice = [{name = "lenet"}, {name = "cnn", convs_per_block = {int = [1, 2]}}]
"""

#: The one whose package does not come with Optuna is tested where it is there.
SAMPLERS = [
    name
    for name in get_args(Search.model_fields["sampler"].annotation)
    if name not in EXHAUSTIVE and (name != "cmaes" or find_spec("cmaes"))
]
PRUNERS = get_args(Search.model_fields["pruner"].annotation)


def recipe_of(space: str) -> Recipe:
    return parse(BASE + space, path=Path("recipes/toy.toml"))


def table(**values: Any) -> Search:
    return Search(**{"trials": 12, **values})


def study_of(name: str, space: Space, num_metrics: int = 1, **values: Any) -> optuna.Study:
    sampler = make_sampler(table(sampler=name, **values), space, num_metrics)
    return optuna.create_study(sampler=sampler, directions=["minimize"] * num_metrics)


def cost(values: dict[str, Any]) -> float:
    return abs(math.log10(values["optimizer.lr"]) + 2) + (values.get("model", {}).get("name") == "lenet")


def run(study: optuna.Study, space: Space, number: int) -> list[dict[str, Any]]:
    drawn = []
    for _ in range(number):
        trial = study.ask()
        values = space.suggest(trial)
        drawn.append(values)
        study.tell(trial, [cost(values), *[float(len(str(values)))] * (len(study.directions) - 1)])
    return drawn


# Samplers


@pytest.mark.parametrize("text", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_recipes_from_the_space(name: str, text: str) -> None:
    recipe = recipe_of(text)
    space = parse_space(recipe)
    drawn = run(study_of(name, space), space, 14)
    for values in drawn:
        assert changed(recipe, values).optimizer.options["lr"] == values["optimizer.lr"]
        assert 1e-4 <= values["optimizer.lr"] <= 1e-1
        assert values.get("train.batch_size", 16) in {16, 32, 64}
        assert values.get("train.epochs", 2) in {2, 4, 6, 8}
    assert len({json.dumps(values) for values in drawn}) >= 10  # evolution may keep a parent as it is


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "cmaes"])
def test_several_metrics_are_sampled(name: str) -> None:
    space = parse_space(recipe_of(CONDITIONAL))
    study = study_of(name, space, 2)
    run(study, space, 14)
    assert study.best_trials


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_gives_the_same_trials_whoever_draws_them(name: str) -> None:
    space = parse_space(recipe_of(PLAIN))
    whole = study_of(name, space)
    drawn = run(whole, space, 8)
    shared = study_of(name, space)
    again = []
    for _ in range(4):  # another worker, or the same one after a stop
        shared.sampler = make_sampler(table(sampler=name), space, 1)
        again += run(shared, space, 2)
    assert again == drawn
    assert run(study_of(name, space, sampler_seed=1), space, 8) != drawn


def test_workers_that_start_together_draw_different_values() -> None:
    space = parse_space(recipe_of(PLAIN))
    study = study_of("tpe", space)
    drawn = []
    for _ in range(6):
        study.sampler = make_sampler(table(), space, 1)
        drawn.append(space.suggest(study.ask())["optimizer.lr"])
    assert len(set(drawn)) == 6


def test_tpe_learns_what_is_conditional_too() -> None:
    space = parse_space(recipe_of(CONDITIONAL))
    study = study_of("tpe", space, trials=40)
    drawn = run(study, space, 40)
    late = [values["model"]["name"] for values in drawn[20:]]
    assert late.count("cnn") >= 15
    assert study.best_value < 0.2


def test_what_a_sampler_cannot_do_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    space = parse_space(recipe_of(CONDITIONAL))
    for name in EXHAUSTIVE:
        with pytest.raises(RecipeError, match=f"{name}: cannot count the values of model.lenet.dropout, optimizer.lr"):
            make_sampler(table(sampler=name), space, 1)
    with pytest.raises(RecipeError, match="cmaes: optimises one metric, not 2"):
        make_sampler(table(sampler="cmaes"), space, 2)
    monkeypatch.setitem(sys.modules, "cmaes", None)  # Python's own way to say that there is none
    with pytest.raises(RecipeError, match="the package cmaes is not installed") as error:
        make_sampler(table(sampler="cmaes"), space, 1)
    assert error.value.hint == "pip install cmaes"


# Grids


@pytest.mark.parametrize("name", EXHAUSTIVE)
def test_a_grid_is_every_combination_once(name: str) -> None:
    recipe = recipe_of(GRID)
    space = parse_space(recipe)
    assert space.size() == planned_trials(table(sampler=name, trials=50), space) == 18
    study = study_of(name, space)
    drawn = []
    for _ in range(18):
        trial = study.ask()
        drawn.append(space.suggest(trial))
        study.tell(trial, 1.0)
    assert len({json.dumps(values, sort_keys=True) for values in drawn}) == 18
    assert all(changed(recipe, values) for values in drawn)
    in_order = [space.suggest(optuna.trial.FixedTrial(space.combination(index))) for index in range(18)]
    assert (drawn == in_order) == (name == "grid")


def test_workers_share_a_grid_without_a_race() -> None:
    space = parse_space(recipe_of(GRID))
    study = study_of("grid", space)
    running = [study.ask() for _ in range(18)]  # all handed out before any draws
    drawn = [space.suggest(trial) for trial in reversed(running)]
    assert len({json.dumps(values, sort_keys=True) for values in drawn}) == 18


def test_a_repeated_trial_takes_no_place_of_the_grid() -> None:
    space = parse_space(recipe_of(GRID))
    study = study_of("grid", space)
    dead = study.ask()  # killed before it drew anything
    study.tell(dead, state=TrialState.FAIL)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        queue_again = optuna.storages.RetryHeartbeatStaleTrialCallback()
    queue_again(study, study.trials[0])
    drawn = [space.suggest(study.ask()) for _ in range(18)]
    assert len({json.dumps(values, sort_keys=True) for values in drawn}) == 18
    assert drawn[0] == space.suggest(optuna.trial.FixedTrial(space.combination(0)))


def test_a_search_that_is_no_grid_makes_its_trials() -> None:
    space = parse_space(recipe_of(GRID))
    assert planned_trials(table(sampler="random", trials=50), space) == 50
    assert planned_trials(table(sampler="grid", trials=5), space) == 5


# Pruners


def accuracies(name: str, *, stride: int = 1, **values: Any) -> list[int]:
    """How far each of 15 trials got of 10 epochs; each is best in the fifth, and with a stride of 1 the worst so far."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner(table(pruner=name, **values)))
    epochs = []
    for number in range(15):
        trial = study.ask()
        for epoch in range(1, 11):
            trial.report(1 - 0.05 * (stride * number % 15) - 0.02 * abs(epoch - 5), epoch)
            if trial.should_prune():
                break
        epochs.append(epoch)
        study.tell(trial, 1.0) if epoch == 10 else study.tell(trial, state=TrialState.PRUNED)
    return epochs


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_spares_the_first_and_only_none_spares_all(name: str) -> None:
    epochs = accuracies(name)
    assert epochs[0] == 10
    assert (sum(epochs) == 150) == (name == "none")


def test_the_first_trials_and_epochs_are_spared() -> None:
    epochs = accuracies("median", pruner_startup=3, pruner_warmup=4)
    assert epochs[:3] == [10, 10, 10]
    assert set(epochs[3:]) == {4}


def test_a_larger_percentile_lets_more_trials_go_on() -> None:
    many, few = (accuracies("percentile", stride=7, pruner_percentile=share) for share in (80.0, 20.0))
    assert sum(many) > sum(few)


def test_the_patient_pruner_waits_for_what_still_improves() -> None:
    assert sum(accuracies("patient")) > sum(accuracies("median"))
