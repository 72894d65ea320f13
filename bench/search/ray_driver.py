"""The driver of a search on a cluster: hands tasks out, takes what they report, and queues the trials of the dead again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.record import Run, runs_folder
from bench.search.claim import counted
from bench.search.dealing import travelling
from bench.search.ending import End, failing
from bench.search.patience import patiently
from bench.search.ray_cluster import Cluster
from bench.search.ray_fleet import Fleet
from bench.search.ray_records import unpack
from bench.search.ray_task import Job, Report, look, take

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from bench.search.board import Board, BoardProgress
    from bench.search.mirroring import MirrorProcess

__all__ = ["Driver"]

_LOOK_SECONDS, _SWEEP_SECONDS = 0.5, 10.0

#: How long tasks have to end once they are to: after Ctrl-C, to write their checkpoints and go back to the queue.
_STOP_SECONDS = 30.0

#: So many tasks that die in a row, each before it has a trial, are no accident any more.
_MOST_DEATHS = 10


@dataclass(frozen=True, slots=True)
class _Task:
    """What Ray calls a task, and the node that it was sent to."""

    key: str
    node: str


@dataclass(slots=True)
class Driver:
    """`ray` is the connected module, `workers` the most tasks at once; None: as many as the cluster has room for."""

    ray: Any
    cluster: Cluster
    study: Study
    job: Job
    total: int
    workers: int | None
    should_stop: Callable[[], bool]
    board: Board
    progress: BoardProgress
    mirror: MirrorProcess
    _fleet: Fleet = field(init=False)
    _functions: dict[str, Any] = field(init=False)
    _running: dict[Any, _Task] = field(init=False, default_factory=dict)
    _ended: set[str] = field(init=False, default_factory=set)
    _deaths: int = field(init=False, default=0)
    _since: datetime = field(init=False, default_factory=datetime.now)  # naive, as Optuna's times
    _swept: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._functions = {function.__name__: self.ray.remote(function) for function in (look, take)}
        self._fleet = Fleet(self.ray, self.cluster, lambda node: self._submit("look", node), self.progress.warn)

    def run(self) -> End:
        """Until there is nothing more to do, and no task is left."""
        ending: float | None = None
        while True:
            self._listen()
            if self.should_stop():
                return self._stop()
            self._fleet.refresh()
            trials = self._look()
            end = self._end(trials)
            if end is None:
                self._hand_out(trials)
            else:
                ending = ending or time.monotonic()
                self._cancel(self._waiting(trials))
                late = end == "complete" and time.monotonic() - ending > _STOP_SECONDS
                if late or not self._running:
                    return end
            if time.monotonic() - self._swept > _SWEEP_SECONDS:
                self._sweep()

    def close(self) -> None:
        """No task stays behind."""
        self._cancel([*self._running, *self._fleet.looks], force=True)

    def _end(self, trials: Sequence[FrozenTrial]) -> End | None:
        if sum(trial.state.is_finished() for trial in trials) >= self.total:
            return "complete"
        if failing(trials, self._since):
            return "failing"
        return "timeout" if self.job.deadline is not None and time.time() >= self.job.deadline else None

    def _hand_out(self, trials: Sequence[FrozenTrial]) -> None:
        """As many tasks as there are trials to claim, and room."""
        free = self.total - sum(trial.state.name != "WAITING" for trial in trials) - len(self._waiting(trials))
        while free > 0 and (self.workers is None or len(self._running) < self.workers):
            node = self._fleet.free(Counter(task.node for task in self._running.values()))
            if node is None:
                return
            ref = self._submit("take", node)
            self._running[ref] = _Task(ref.task_id().hex(), node)
            free -= 1

    def _waiting(self, trials: Sequence[FrozenTrial]) -> list[Any]:
        """The tasks that have not claimed a trial yet."""
        claimed = {_process(trial).get("task") for trial in trials}
        return [ref for ref, task in self._running.items() if task.key not in claimed]

    def _submit(self, name: str, node: str) -> Any:
        # Ray would show a process one GPU only, and its next task may be given another one.
        variables = {**travelling(self.job.threads), "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}
        options = {
            "num_cpus": self.cluster.cpus_per_trial,
            "num_gpus": self.cluster.gpus_per_trial,
            "max_retries": 0,  # what is to be done again is in the study
            "runtime_env": {"env_vars": variables},
            "scheduling_strategy": self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False),
        }
        return self._functions[name].options(**options).remote(self.job)

    def _listen(self) -> None:
        """Wait a moment for tasks to end, and take what they report."""
        refs = [*self._running, *self._fleet.looks]
        if not refs:
            time.sleep(_LOOK_SECONDS)
            return
        ready, _ = self.ray.wait(refs, timeout=_LOOK_SECONDS)
        for ref in ready:
            if ref in self._fleet.looks:
                self._fleet.heard(ref)
            else:
                self._heard(ref)

    def _heard(self, ref: Any) -> None:
        task = self._running.pop(ref)
        self._ended.add(task.key)
        try:
            report: Report = self.ray.get(ref)
        except self.ray.exceptions.TaskCancelledError:
            self._sweep()
            return
        except self.ray.exceptions.RayTaskError:  # a bug, and its traceback
            raise
        except self.ray.exceptions.RayError as error:
            self._mourn(task, error)
            return
        self._deaths = 0
        for text in report.warnings:
            self.progress.warn(text)
        if report.state == "error":
            raise BenchError(f"{report.host}: {report.error}", hint=report.hint)
        if report.state == "unfit":
            self._fleet.doubt(task.node, report.error, report.hint)
            return
        self._fleet.trust(task.node)
        if report.archive is not None:
            unpack(report.archive, runs_folder())
        for name in report.runs:
            self.mirror.watch(Run((runs_folder() / name).resolve()))

    def _mourn(self, task: _Task, error: Exception) -> None:
        """A task has died with its process or its node: its trial is queued again at once."""
        exceptions = self.ray.exceptions
        node_died = isinstance(error, exceptions.NodeDiedError | exceptions.TaskUnschedulableError)
        trials = self._trials()
        if node_died:
            self._fleet.lost(task.node)
            self._drop([ref for ref in self._waiting(trials) if self._running[ref].node == task.node])
        theirs = [trial for trial in trials if _process(trial).get("task") == task.key]
        for trial in theirs:
            process = _process(trial)
            what = f"the node {process['host']}" if node_died else f"process {process['id']} on {process['host']}"
            then = "its record may be lost" if trial.state.is_finished() else "it is taken over"
            self.board.warn(f"trial {trial.number}: {what} died; {then}")
        self._deaths = 0 if theirs or node_died else self._deaths + 1
        if self._deaths >= _MOST_DEATHS:
            text = str(error).partition("\n")[0]
            raise BenchError(
                f"{self._deaths} tasks in a row died before they began a trial: {text}",
                hint="a task may need more memory than its node has: more --cpus-per-trial leaves fewer on a node",
            )
        self._sweep()

    def _stop(self) -> End:
        """Ask all tasks to stop, as Ctrl-C asks a worker, and wait until their trials are back in the queue."""
        self._cancel([*self._running, *self._fleet.looks])
        deadline = time.monotonic() + _STOP_SECONDS
        while self._running and time.monotonic() < deadline:
            self._listen()
        self._drop(list(self._running))
        self._sweep()
        self._look()
        return "stopped"

    def _drop(self, refs: Sequence[Any]) -> None:
        """Wait no longer for these."""
        self._cancel(refs, force=True)
        self._ended |= {self._running.pop(ref).key for ref in refs}

    def _cancel(self, refs: Sequence[Any], *, force: bool = False) -> None:
        for ref in refs:
            with suppress(self.ray.exceptions.RayError, ValueError):
                self.ray.cancel(ref, force=force)

    def _sweep(self) -> None:
        from bench.search.study import sweep

        self._swept = time.monotonic()
        patiently(lambda: sweep(self.study, ended=self._ended), warn=self.board.warn, should_stop=self.should_stop)

    def _trials(self) -> list[FrozenTrial]:
        return patiently(lambda: counted(self.study), warn=self.board.warn, should_stop=self.should_stop)

    def _look(self) -> list[FrozenTrial]:
        trials = self._trials()
        self.board.show(trials)
        return trials


def _process(trial: FrozenTrial) -> Mapping[str, Any]:
    """What runs a trial, or did; {} of one that waits."""
    return trial.user_attrs.get("process") or {}
