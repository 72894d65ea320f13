"""One worker of a study: claim a trial, run it, tell its outcome, until the wanted number is finished."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from bench.search.claim import Heartbeat, claim, counted, is_mine, put_back
from bench.search.ending import End, failing
from bench.search.locking import exclusive
from bench.search.patience import patiently

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

    from bench.search.objectives import Constraint, Objective
    from bench.search.space import Space
    from bench.search.trial import Shared, TrialOutcome

__all__ = ["Watcher", "work", "work_once"]

T = TypeVar("T")

#: Between two looks of a worker that has nothing to do but to take over from one that dies.
_POLL_SECONDS = 0.5
_SWEEP_SECONDS = 5.0


class Watcher(Protocol):
    """What is told of a study's trials as they change."""

    def show(self, trials: Sequence[FrozenTrial]) -> None:
        """The trials as they are now."""

    def warn(self, text: str) -> None:
        """Something that a person should know."""


def work(
    study: Study,
    shared: Shared,
    *,
    space: Space,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    total: int,
    deadline: float | None,
    should_stop: Callable[[], bool],
    board: Watcher,
) -> End:
    """Run trials until `total` of the study are finished, whoever runs them, or until `deadline` (time.time()).

    After the deadline no trial is started. A worker that finds all trials taken waits for their end, and takes over
    those whose process dies. Raises BenchError where the storage stays away.
    """
    worker = _Worker(study, shared, space, objectives, constraints, total, should_stop, board)
    end: End | None = None
    while end is None:
        end = "timeout" if deadline is not None and time.time() >= deadline else worker.step()
    return end


def work_once(
    study: Study,
    shared: Shared,
    *,
    space: Space,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    total: int,
    should_stop: Callable[[], bool],
    board: Watcher,
    **marks: str,
) -> str | None:
    """Run one trial as `work` does, claimed with these `marks`; its outcome's state, None where all are taken."""
    worker = _Worker(study, shared, space, objectives, constraints, total, should_stop, board)
    trial = patiently(lambda: claim(study, total, **marks), warn=board.warn, should_stop=should_stop)
    return None if trial is None else worker.run(trial)


@dataclass(slots=True)
class _Worker:
    study: Study
    shared: Shared
    space: Space
    objectives: Sequence[Objective]
    constraints: Sequence[Constraint]
    total: int
    should_stop: Callable[[], bool]
    board: Watcher
    _since: datetime = field(default_factory=datetime.now)  # naive, as Optuna's times
    _swept: float = field(default_factory=time.monotonic)

    def step(self) -> End | None:
        """One trial, or a moment of waiting; the reason where there is nothing more to do."""
        if self.should_stop():
            return "stopped"
        trial = self._patiently(lambda: claim(self.study, self.total))
        trials = self._look()
        if trial is None:
            if sum(one.state.is_finished() for one in trials) >= self.total:
                return "complete"
            self._wait()
        elif self.run(trial) == "interrupted":
            return "stopped"
        return "failing" if failing(self._look(), self._since) else None

    def run(self, trial: Trial) -> str:
        """A trial to its end, as far as this process gets; returns the outcome's state."""
        from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError

        from bench.search.trial import run_trial

        try:
            with Heartbeat(self.study, trial):
                outcome = run_trial(
                    self.shared,
                    self.study,
                    trial,
                    space=self.space,
                    objectives=self.objectives,
                    constraints=self.constraints,
                )
        except UpdateFinishedTrialError:
            self.board.warn(f"trial {trial.number} was taken over by another process: this one had not been heard of")
            return "lost"
        except StorageInternalError:
            self._patiently(lambda: put_back(self.study, trial))
            return "lost"
        except BaseException:
            put_back(self.study, trial)
            raise
        if outcome.state == "interrupted":
            self._patiently(lambda: put_back(self.study, trial))
        else:
            self._patiently(lambda: _tell(self.study, trial, outcome))
        return outcome.state

    def _look(self) -> list[FrozenTrial]:
        trials = self._patiently(lambda: counted(self.study))
        self.board.show(trials)
        return trials

    def _wait(self) -> None:
        from bench.search.study import sweep

        time.sleep(_POLL_SECONDS)
        if time.monotonic() - self._swept > _SWEEP_SECONDS:
            self._swept = time.monotonic()
            self._patiently(lambda: sweep(self.study))

    def _patiently(self, call: Callable[[], T]) -> T:
        return patiently(call, warn=self.board.warn, should_stop=self.should_stop)


def _tell(study: Study, trial: Trial, outcome: TrialOutcome) -> None:
    """Close a trial by its outcome; nothing where it is closed already, or another process has taken it over."""
    from optuna.trial import TrialState

    values, error, failed = outcome.values, outcome.error, outcome.state == "failed"
    whole = values is not None and all(map(math.isfinite, values))
    if outcome.state == "complete" and not whole:
        failed, error = True, f"an objective is no number: {values}"
    try:
        with exclusive(study):
            if not is_mine(study, trial):
                return
            if failed:
                trial.set_user_attr("error", error or "unknown")
                study.tell(trial, state=TrialState.FAIL)
            elif outcome.state == "pruned" or not whole:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, values)
    except RuntimeError as end:
        # A sampler whose space is exhausted asks for the end of Optuna's own loop; the trial is told by then.
        if "Study.stop" not in str(end):
            raise
