"""A study whose trials are shown otherwise to Optuna's samplers and pruners, which read them from its storage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

__all__ = ["StorageView", "seen_through"]


class StorageView(ABC):
    """A storage that shows its trials as `shown` makes them; everything else, also what is written, is the real one's."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    @abstractmethod
    def shown(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The trials of a study as they are to be seen; the real ones are not to be changed."""

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002  # Optuna's signature
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """As Optuna's, of the trials that are shown."""
        trials = self.shown(self._storage.get_all_trials(study_id, deepcopy=deepcopy))
        return [trial for trial in trials if states is None or trial.state in states]


def seen_through(study: Study, view: StorageView) -> Study:
    """The study on a view of its storage."""
    from optuna import Study

    return Study(study.study_name, cast("BaseStorage", view), sampler=study.sampler, pruner=study.pruner)
