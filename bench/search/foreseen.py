"""Pruned trials as a model of the objective should know them: with the values that their curves point to.

Optuna's Gaussian process learns from completed trials alone. Where most are pruned, it knows of a few good ones, never
hears of the others, and goes on proposing what has been pruned before.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.search.objectives import COSTS
from bench.search.pruning import curve_of
from bench.search.storage_view import StorageView, seen_through

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = ["foreseen", "foreseen_study"]

#: Completed trials, those that stood nearest at the same epoch, from whose further gain a pruned one's is taken.
_NEIGHBOURS = 5


def foreseen(trials: Sequence[FrozenTrial], metrics: Sequence[str] = ()) -> list[FrozenTrial]:
    """The trials, the pruned ones as completed where their values can be told.

    A curve ends where it was pruned; what it would still have gained is the median gain of the completed trials that
    stood nearest at that epoch. `metrics` are the study's, in their order; a single one needs no name. Costs are known
    without training. A pruned trial stays one where another metric is missing, or whether it holds a constraint.
    """
    from optuna.trial import TrialState

    completed = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    names = metrics or ("",)
    place = next((place for place, name in enumerate(names) if name not in COSTS), None)
    if place is None:
        return list(trials)
    curves = [(curve_of(trial), trial.values[place]) for trial in completed if trial.values]
    seen = []
    for trial in trials:
        values = _values(trial, curves, names, place) if trial.state == TrialState.PRUNED else None
        if values is not None and all(trial.constraints.keys() == one.constraints.keys() for one in completed):
            trial = copy.copy(trial)  # noqa: PLW2901  # the storage keeps its own
            trial.values, trial.state = values, TrialState.COMPLETE
        seen.append(trial)
    return seen


def _values(
    trial: FrozenTrial, curves: Sequence[tuple[Mapping[int, float], float]], names: Sequence[str], place: int
) -> list[float] | None:
    """A pruned trial's values in the order of `names`; None where one of them cannot be told."""
    curve, costs = curve_of(trial), trial.user_attrs.get("costs", {})
    if not curve:
        return None
    epoch, value = max(curve.items())
    gains = sorted((abs(other[epoch] - value), final - other[epoch]) for other, final in curves if epoch in other)
    known = dict(costs)
    if gains:
        known[names[place]] = value + statistics.median(gain for _, gain in gains[:_NEIGHBOURS])
    values = [float(known.get(name, math.nan)) for name in names]
    return values if all(map(math.isfinite, values)) else None


def foreseen_study(study: Study) -> Study:
    """The study as one whose trials are `foreseen`."""
    metrics = [str(one["metric"]) for one in study.user_attrs.get("metrics", ())]
    return seen_through(study, _Foreseen(study._storage, metrics))  # noqa: SLF001  # samplers take it from there too


class _Foreseen(StorageView):
    def __init__(self, storage: BaseStorage, metrics: Sequence[str]) -> None:
        super().__init__(storage)
        self._metrics = metrics

    def shown(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return foreseen(trials, self._metrics)
