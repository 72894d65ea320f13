"""Pruning by the curve of a trial's first validation metric, with one objective or several.

Optuna's `Trial.report` and `should_prune` refuse several objectives. Its pruners do not: they read a study. Where there
are several objectives, they are handed the same study reduced to one objective, the curve's, and to the trials that
cost no more: a small model that is less accurate than all large ones belongs on the front, and is never judged by them.
The curves are then kept in the trials' user attributes, since Optuna's samplers expect no intermediate values there.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Self, cast

from bench.search.storage_view import StorageView, seen_through

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial, Trial

    from bench.search.objectives import Objective

__all__ = ["CURVE", "Curve", "curve_of"]

#: The user attribute that holds a trial's curve, epoch -> value, where the study has several objectives.
CURVE = "curve"


def curve_of(trial: FrozenTrial) -> dict[int, float]:
    """Epoch -> value of the curve's metric, as far as the trial has come."""
    kept = trial.user_attrs.get(CURVE, {})
    return trial.intermediate_values or {int(epoch): value for epoch, value in kept.items()}


class Curve:
    """The curve of one running trial. Its metric is the first objective that is no cost; without one nothing is pruned.

    A storage that does not answer for a while never ends a training: what it has missed is reported next time.
    """

    def __init__(self, study: Study, trial: Trial, objectives: Sequence[Objective]) -> None:
        self._study, self._trial = study, trial
        self._place = next((place for place, one in enumerate(objectives) if not one.is_cost), None)
        self._objective = None if self._place is None else objectives[self._place]
        self._several = len(study.directions) > 1
        self._costs = [one for one in objectives if one.is_cost]
        self._reported = curve_of(_frozen(study, trial))
        self._waiting: dict[int, float] = {}
        self._reduced: Study | None = None

    @property
    def metric(self) -> str | None:
        """The metric that is to be reported."""
        return None if self._objective is None else self._objective.metric

    def report(self, epoch: int, value: float) -> None:
        """Tell the study the metric after an epoch; one that it knows already stays as it is."""
        if self._objective is None or epoch in self._reported:
            return
        self._waiting[epoch] = float(value)
        with _Patience() as patience:
            if self._several:
                kept = {str(number): one for number, one in {**self._reported, **self._waiting}.items()}
                self._trial.set_user_attr(CURVE, kept)
            else:
                for number, one in self._waiting.items():
                    if number not in self._reported:
                        self._trial.report(one, number)
                        self._reported[number] = one
        if not patience.lost:
            self._reported |= self._waiting
            self._waiting = {}

    def should_prune(self) -> bool:
        """Whether the study's pruner would rather see another trial."""
        if self._objective is None or not self._reported:
            return False
        with _Patience(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)  # NumPy's, of a metric that is no number yet
            return self._judged()
        return False

    def _judged(self) -> bool:
        if not self._several:
            return self._trial.should_prune()
        if self._reduced is None:
            own = _costs_of(_frozen(self._study, self._trial))
            self._reduced = reduced(
                self._study, cast("int", self._place), lambda other: self._costs_no_more(other, own)
            )
        return bool(self._study.pruner.prune(self._reduced, _frozen(self._reduced, self._trial)))

    def _costs_no_more(self, other: FrozenTrial, own: Mapping[str, float]) -> bool:
        """Whether another trial is at least as good in every objective that is a cost."""
        theirs = _costs_of(other)
        for one in self._costs:
            if one.metric not in own:
                continue
            sign = -1.0 if one.direction == "maximize" else 1.0
            if sign * theirs.get(one.metric, sign * math.inf) > sign * own[one.metric]:
                return False
        return True


def _costs_of(trial: FrozenTrial) -> Mapping[str, float]:
    """What a trial's model costs, measured before it was trained."""
    known: Mapping[str, float] = trial.user_attrs.get("costs", {})
    return known


def reduced(study: Study, place: int, is_rival: Callable[[FrozenTrial], bool] = lambda _: True) -> Study:
    """The study as one of a single objective, that at this place, with the curves as intermediate values; only rivals
    are in it.
    """
    return seen_through(study, _Reduced(study._storage, place, is_rival))  # noqa: SLF001  # pruners take it from there too


class _Reduced(StorageView):
    """Answers for one objective, by the curves of rivals."""

    def __init__(self, storage: BaseStorage, place: int, is_rival: Callable[[FrozenTrial], bool]) -> None:
        super().__init__(storage)
        self._place, self._is_rival = place, is_rival

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [self._storage.get_study_directions(study_id)[self._place]]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._one(self._storage.get_trial(trial_id))

    def shown(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return [self._one(trial) for trial in trials if self._is_rival(trial)]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        from optuna.storages import BaseStorage

        return BaseStorage.get_best_trial(cast("BaseStorage", self), study_id)

    def _one(self, trial: FrozenTrial) -> FrozenTrial:
        one = copy.copy(trial)
        one.intermediate_values = curve_of(trial)
        if trial.values is not None and len(trial.values) > self._place:
            one.values = [trial.values[self._place]]
        return one


class _Patience:
    """Swallows that a storage does not answer; `lost` says so."""

    lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        self.lost = isinstance(error, StorageInternalError | SQLAlchemyError)
        return self.lost


def _frozen(study: Study, trial: Trial) -> FrozenTrial:
    return study._storage.get_trial(trial._trial_id)  # noqa: SLF001  # Optuna has no public look at one trial
