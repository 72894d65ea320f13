"""Pruned trials count with what their curves point to, and with nothing where that cannot be told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from bench.recipe import parse
from bench.search.foreseen import foreseen
from bench.search.pruning import CURVE
from bench.search.samplers import make_sampler
from bench.search.space import parse_space
from bench.search_tables import Search

#: The further gain after the first epoch is 0.3, 0.2, 0.1, 0.1, 0.1, 0.0.
COMPLETED = [[0.1, 0.4], [0.3, 0.5], [0.5, 0.6], [0.6, 0.7], [0.7, 0.8], [0.9, 0.9]]


def curve(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values, start=1))


def trial(values: list[float], state: TrialState = TrialState.COMPLETE, **further: Any) -> FrozenTrial:
    value = values[-1] if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=value, intermediate_values=curve(values), **further)


def with_size(values: list[float], size: float, state: TrialState, *, costs: Mapping[str, float]) -> FrozenTrial:
    """A trial of two objectives: accuracy and size_mb."""
    told = [values[-1], size] if state == TrialState.COMPLETE else None
    attrs = {CURVE: {str(epoch): value for epoch, value in curve(values).items()}, "costs": dict(costs)}
    return create_trial(state=state, values=told, user_attrs=attrs)


def test_a_pruned_trial_gains_what_those_beside_it_still_gained() -> None:
    pruned = trial([0.55], TrialState.PRUNED)
    *others, seen = foreseen([*map(trial, COMPLETED), pruned])
    assert seen.state == TrialState.COMPLETE
    assert seen.value == pytest.approx(0.55 + 0.1)
    assert [one.value for one in others] == [values[-1] for values in COMPLETED]
    assert pruned.state == TrialState.PRUNED
    assert pruned.values is None


def test_losses_fall_as_accuracies_rise() -> None:
    falling = [[1 - value for value in values] for values in COMPLETED]
    seen = foreseen([*map(trial, falling), trial([0.45], TrialState.PRUNED)])[-1]
    assert seen.value == pytest.approx(0.45 - 0.1)


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING])
def test_only_pruned_trials_are_foreseen(state: TrialState) -> None:
    assert foreseen([*map(trial, COMPLETED), trial([0.5], state)])[-1].state == state


@pytest.mark.parametrize("values", [[], [math.nan], [0.5, 0.6, 0.7]], ids=["no curve", "no number", "a later epoch"])
def test_without_a_comparison_a_trial_stays_pruned(values: list[float]) -> None:
    assert foreseen([*map(trial, COMPLETED), trial(values, TrialState.PRUNED)])[-1].state == TrialState.PRUNED


def test_a_cost_is_the_trials_own() -> None:
    completed = [with_size(values, 3.0, TrialState.COMPLETE, costs={}) for values in COMPLETED]
    pruned = with_size([0.55], 0, TrialState.PRUNED, costs={"size_mb": 0.25})
    seen = foreseen([*completed, pruned], ["val_accuracy", "size_mb"])[-1]
    assert seen.values == pytest.approx([0.65, 0.25])


def test_where_another_metric_is_missing_a_trial_stays_pruned() -> None:
    completed = [with_size(values, 3.0, TrialState.COMPLETE, costs={}) for values in COMPLETED]
    pruned = with_size([0.55], 0, TrialState.PRUNED, costs={"size_mb": 0.25})
    for metrics in (["val_accuracy", "val_loss"], ["val_accuracy", "latency_ms"]):
        assert foreseen([*completed, pruned], metrics)[-1].state == TrialState.PRUNED


@pytest.mark.parametrize(("known", "state"), [(True, TrialState.COMPLETE), (False, TrialState.PRUNED)])
def test_where_a_constraint_is_unknown_a_trial_stays_pruned(known: bool, state: TrialState) -> None:
    holds = {"constraints:size_mb <= 1": -0.5}
    completed = [trial(values, system_attrs=holds) for values in COMPLETED]
    assert completed[0].constraints
    pruned = trial([0.55], TrialState.PRUNED, system_attrs=holds if known else {})
    assert foreseen([*completed, pruned])[-1].state == state


RECIPE = """
[dataset]
name = "digits"
[model]
name = "linear"
[search.space]
"train.ema" = {float = [0.0, 1.0]}
"""


def proposals(sampler: optuna.samplers.BaseSampler) -> list[float]:
    """What a sampler proposes after ten completed trials of 0 to 0.5, best at 0.4, and ten bad pruned ones of 0.55 to 1."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    within = {"train.ema": FloatDistribution(0.0, 1.0)}
    for number in range(10):
        x = number / 18
        final = 0.9 - (x - 0.4) ** 2
        study.add_trial(trial([final - 0.2, final], params={"train.ema": x}, distributions=within))
    for number in range(10):
        x = 0.55 + number / 20
        study.add_trial(trial([0.6 - x / 2], TrialState.PRUNED, params={"train.ema": x}, distributions=within))
    found = []
    for _ in range(6):
        one = study.ask(within)
        x = one.params["train.ema"]
        found.append(x)
        study.tell(one, 0.9 - (x - 0.4) ** 2 if x < 0.55 else 0.5)
    return found


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_gaussian_process_learns_from_what_was_pruned() -> None:
    recipe = parse(RECIPE, path=Path("toy.toml"))
    ours = proposals(make_sampler(Search(trials=40, sampler="gp"), parse_space(recipe), 1))
    optunas = proposals(optuna.samplers.GPSampler(seed=0, warn_independent_sampling=False))
    assert all(x < 0.56 for x in ours)
    assert any(x > 0.6 for x in optunas)  # what it does not know of, it tries
