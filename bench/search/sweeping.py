"""Trials whose process is gone: queued again as they are, so that another one goes on with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from bench.record import is_alive, this_process
from bench.search.locking import exclusive
from bench.search.pruning import curve_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

__all__ = ["MOST_DEATHS", "sweep"]

#: A trial in whose hands so many processes died, one after the other and without an epoch between, is the reason.
MOST_DEATHS = 10


def sweep(study: Study, *, ended: Collection[str] = ()) -> int:
    """Queue every running trial again whose process is gone; the number of them.

    A trial keeps its number, parameters, intermediate values and user attributes (its run's folder among them), so none
    is ever there twice. Processes of this machine are looked up; those of others count as gone once their heartbeat is
    stale. `ended` are tasks (see `claim`) that are known to have ended, wherever they ran. Raises what `exclusive` raises.
    """
    if not _running(study):
        return 0
    with exclusive(study):
        running = _running(study)  # anew: another process may have swept in the meantime
        stale = _without_heartbeat(study) if running else set()
        gone = [
            trial
            for trial in running
            if _task_of(trial) in ended or _is_gone(trial, stale=trial.number in stale, study=study)
        ]
        for trial in gone:
            _queue_again(study, trial)
    return len(gone)


def _running(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _without_heartbeat(study: Study) -> set[int]:
    """The numbers of running trials whose last heartbeat is too long ago, by the storage's own clock."""
    storage: Any = study._storage  # noqa: SLF001  # fail_stale_trials, its public user, copies trials and fails them
    find: Callable[[int], Sequence[int]] | None = getattr(storage, "_get_stale_trial_ids", None)
    if find is None:
        return set()
    return {storage.get_trial(number).number for number in find(study._study_id)}  # noqa: SLF001


def _task_of(trial: FrozenTrial) -> str | None:
    return (trial.user_attrs.get("process") or {}).get("task")


def _is_gone(trial: FrozenTrial, *, stale: bool, study: Study) -> bool:
    process = trial.user_attrs.get("process")
    if not process:  # it was killed between being handed out and being marked, or is at this moment
        return stale or _is_old(trial, study)
    me = this_process()
    if process["host"] != me["host"] or (process["id"], process["started"]) == (me["id"], me["started"]):
        return stale  # one of mine without a heartbeat was lost on the way, as with a connection
    return not is_alive(process)  # a live one may be suspended, and its heartbeat stale


def _is_old(trial: FrozenTrial, study: Study) -> bool:
    from bench.search.storage import GRACE_S

    grace_s = getattr(getattr(study._storage, "_backend", study._storage), "grace_period", None) or GRACE_S  # noqa: SLF001
    started = trial.datetime_start
    return started is None or datetime.now() - started > timedelta(seconds=grace_s)  # noqa: DTZ005  # as Optuna's times


def _queue_again(study: Study, trial: FrozenTrial) -> None:
    from optuna.trial import TrialState

    storage, key = study._storage, trial._trial_id  # noqa: SLF001  # Optuna has no public way back to the queue
    epochs = len(curve_of(trial))
    before = trial.user_attrs.get("deaths", {})
    count = before.get("count", 0) + 1 if before.get("epochs") == epochs else 1
    storage.set_trial_user_attr(key, "deaths", {"count": count, "epochs": epochs})
    storage.set_trial_user_attr(key, "process", None)  # whoever takes it over is not the dead one
    if count < MOST_DEATHS:
        storage.set_trial_state_values(key, TrialState.WAITING)
        return
    storage.set_trial_user_attr(key, "error", f"its process died {count} times in a row (out of memory?)")
    storage.set_trial_state_values(key, TrialState.FAIL)
