"""Samplers of our own: one that draws each trial by its number, and one that tries every combination once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState

    from bench.search.space import Space

__all__ = ["enumeration", "reseeded"]


def reseeded(make: Callable[[int], BaseSampler]) -> BaseSampler:
    """A sampler that is made anew for each trial, from its number; what it learns comes from the study alone.

    One that goes on from its own random state would, in another worker or after a stop, draw the same values again.
    """
    from optuna.samplers import BaseSampler

    class Reseeded(BaseSampler):
        def __init__(self) -> None:
            self._number, self._sampler = 0, make(0)

        def _of(self, trial: FrozenTrial) -> BaseSampler:
            if trial.number != self._number:
                self._number, self._sampler = trial.number, make(trial.number)
            return self._sampler

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            self._of(trial).before_trial(study, trial)

        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
            return self._of(trial).infer_relative_search_space(study, trial)

        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            return self._of(trial).sample_relative(study, trial, search_space)

        def sample_independent(
            self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
        ) -> Any:
            return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

        def after_trial(
            self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
        ) -> None:
            self._of(trial).after_trial(study, trial, state, values)

    return Reseeded()


def enumeration(space: Space, *, mixed: bool) -> BaseSampler:
    """Every combination of a space once: in order, or `mixed`, in an order that is always the same.

    The combination of a trial follows from its number, so that any number of workers share a grid without a race, and a
    stop leaves no gap. (Optuna's own may hand one combination to two workers, know no conditional parameters, and end a
    study that nobody runs.)
    """
    from optuna.samplers import BaseSampler

    size = space.size() or 1
    order = list(range(size))
    if mixed:
        random.Random(size).shuffle(order)  # noqa: S311  # no secret

    class Enumeration(BaseSampler):
        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
            del study, trial
            return {}

        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            del study, trial, search_space
            return {}

        def sample_independent(
            self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
        ) -> Any:
            del param_distribution
            return space.combination(order[_position(study, trial) % size])[param_name]

    return Enumeration()


def _position(study: Study, trial: FrozenTrial) -> int:
    """The trial's place in the study: that of the trial whose repetition it is, and repetitions do not count."""
    repeated = trial.system_attrs.get("retry_history")
    number = repeated[0] if repeated else trial.number
    before = study.get_trials(deepcopy=False)[:number]
    return number - sum(bool(other.system_attrs.get("retry_history")) for other in before)
