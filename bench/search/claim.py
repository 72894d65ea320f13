"""Who runs which trial: exactly as many as are wanted, shared by any number of processes, and none lost with one."""

from __future__ import annotations

import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from bench.record import this_process
from bench.search.locking import exclusive

if TYPE_CHECKING:
    from types import TracebackType

    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

__all__ = ["Heartbeat", "claim", "counted", "is_mine", "put_back"]


def claim(study: Study, total: int, **marks: str) -> Trial | None:
    """A trial to run, one that waits before a new one; None where `total` are finished or running already.

    `marks` are noted with the process that runs it, such as what another program calls this piece of work.
    A process that is killed anywhere in between leaves a trial that waits, or one whose process and last heartbeat show
    that it is gone. Raises Optuna's StorageInternalError where the storage does not answer.
    """
    import optuna
    from optuna.trial import TrialState

    with exclusive(study):
        trials = counted(study)
        if sum(trial.state != TrialState.WAITING for trial in trials) >= total:
            return None
        mine = {"process": {**this_process(), **marks}}
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not waiting:
            study.add_trial(optuna.create_trial(state=TrialState.WAITING, user_attrs=mine))
            waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        key = waiting[0]._trial_id  # noqa: SLF001  # Optuna's own key of a trial
        if waiting[0].user_attrs.get("process") != mine["process"]:  # before it runs: a kill never leaves it unmarked
            study._storage.set_trial_user_attr(key, "process", mine["process"])  # noqa: SLF001  # a waiting one has no door
        _beat(study, key)  # an old last beat would look like a death
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Heartbeat of storage")  # it does beat: see below
            return study.ask()


def counted(study: Study) -> list[FrozenTrial]:
    """The trials that count, by number: a failed one that was queued again is the same trial as the one that took over."""
    trials = study.get_trials(deepcopy=False)
    replaced = {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}
    return [trial for trial in trials if trial.number not in replaced]


def put_back(study: Study, trial: Trial) -> None:
    """Leave a running trial to whoever asks next: it keeps its number, its parameters and its run."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    storage, key = study._storage, trial._trial_id  # noqa: SLF001  # Optuna has no public way back to the queue
    with exclusive(study), suppress(UpdateFinishedTrialError):
        if is_mine(study, trial):
            storage.set_trial_user_attr(key, "process", None)
            storage.set_trial_state_values(key, TrialState.WAITING)


def is_mine(study: Study, trial: Trial) -> bool:
    """Whether a trial still runs in this process: one that was not heard of for a while may have been taken over."""
    from optuna.trial import TrialState

    known = study._storage.get_trial(trial._trial_id)  # noqa: SLF001  # there is no public look at one trial
    owner, me = known.user_attrs.get("process") or {}, this_process()
    same = (owner.get("host"), owner.get("id")) == (me["host"], me["id"]) and abs(owner["started"] - me["started"]) < 1
    return known.state == TrialState.RUNNING and same


class Heartbeat:
    """While entered, tells the storage that a trial's process is alive; a storage that is away for a while is met again."""

    def __init__(self, study: Study, trial: Trial) -> None:
        self._study, self._trial_id = study, trial._trial_id  # noqa: SLF001  # Optuna's own key of a trial
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _go(self) -> None:
        from optuna.exceptions import StorageInternalError

        storage: Any = self._study._storage  # noqa: SLF001  # the heartbeat has no other door
        interval = getattr(storage, "get_heartbeat_interval", lambda: None)()
        while interval is not None and not self._ended.wait(interval):
            try:
                storage.record_heartbeat(self._trial_id)
            except StorageInternalError:
                continue


def _beat(study: Study, trial_id: int) -> None:
    storage: Any = study._storage  # noqa: SLF001  # the heartbeat has no other door
    if getattr(storage, "get_heartbeat_interval", lambda: None)() is not None:
        storage.record_heartbeat(trial_id)
