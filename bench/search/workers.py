"""Several local processes on one study: cores and GPUs dealt out, images decoded once, deaths reported."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import environment
from bench.errors import BenchError
from bench.interrupts import StopRequest
from bench.search.claim import counted
from bench.search.dealing import environment_of, environments, visible_gpus
from bench.search.ending import End
from bench.search.patience import patiently

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from optuna import Study
    from optuna.trial import FrozenTrial

    from bench.recipe import Recipe
    from bench.search.board import Board

__all__ = ["run_workers"]

_LOOK_SECONDS = 0.5
_SWEEP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Job:
    """What a worker is told: plain values, as it starts with nothing."""

    text: str
    path: str
    storage_url: str | None
    deadline: float | None
    threads: int


@dataclass(slots=True)
class _Started:
    number: int
    process: SpawnProcess
    messages: Connection
    end: End | None = None
    error: BenchError | None = None


def run_workers(
    recipe: Recipe,
    *,
    study: Study,
    storage_url: str | None,
    workers: int,
    deadline: float | None,
    board: Board,
) -> End:
    """Run `workers` processes until the recipe's trials are finished; returns why they ended.

    Each has cores / workers threads and, where there are GPUs, one of them. A worker that dies is reported and its
    trial queued again for the others. Ctrl-C and SIGTERM are passed on, and waited for. Raises BenchError where a
    worker could not begin, or all have died.
    """
    settings = environments(workers, cores=environment.detect().cores, gpus=visible_gpus())
    job = _Job(recipe.text, str(recipe.path), storage_url, deadline, int(settings[0]["OMP_NUM_THREADS"]))
    started = [_start(number, job, setting) for number, setting in enumerate(settings, start=1)]
    try:
        with StopRequest() as should_stop:
            _watch(started, study, should_stop, board)
    finally:
        _end(started)
    for worker in started:
        if worker.error is not None:
            raise worker.error
    ends = [worker.end for worker in started if worker.end is not None]
    if should_stop() or "stopped" in ends:
        return "stopped"
    if not ends:
        raise BenchError(
            f"all {workers} workers have died", hint="the same command goes on; fewer --workers need less memory"
        )
    return next((end for end in ("failing", "timeout") if end in ends), "complete")


def _start(number: int, job: _Job, setting: Mapping[str, str]) -> _Started:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, sender), name=f"worker {number}")
    resource_tracker.ensure_running()  # starting it lifts the block
    with environment_of(setting), _without_ctrl_c():
        process.start()
    sender.close()
    return _Started(number, process, receiver)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """What is started meanwhile never sees the terminal's Ctrl-C, which goes to all: the parent passes it on, once."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(started: Sequence[_Started], study: Study, should_stop: Callable[[], bool], board: Board) -> None:
    """Until all have ended: pass their messages on, show the trials, have those of the dead queued again."""
    from bench.search.study import sweep

    told, reported, swept = False, set[int](), time.monotonic()
    while alive := [worker for worker in started if worker.number not in reported]:
        connection.wait([worker.process.sentinel for worker in alive], timeout=_LOOK_SECONDS)
        if should_stop() and not told:
            told = True
            for worker in alive:
                _signal(worker.process, signal.SIGTERM)
        for worker in alive:
            gone = not worker.process.is_alive()
            _listen(worker, board)
            if gone:
                reported.add(worker.number)
                died = worker.end is None and worker.error is None
                if died and not told:
                    board.warn(_obituary(worker, others=len(started) - len(reported)))
                swept = 0.0 if died else swept
        if not told and time.monotonic() - swept > _SWEEP_SECONDS:
            patiently(lambda: sweep(study), warn=board.warn, should_stop=should_stop)
            swept = time.monotonic()
        board.show(patiently(lambda: counted(study), warn=board.warn, should_stop=should_stop))


def _listen(worker: _Started, board: Board) -> None:
    """Take what a worker has sent; a killed one may leave half a message behind."""
    with suppress(EOFError, OSError):
        while worker.messages.poll():
            kind, *values = worker.messages.recv()
            if kind == "end":
                worker.end = values[0]
            elif kind == "error":
                worker.error = BenchError(f"worker {worker.number}: {values[0]}", hint=values[1])
            else:
                board.warn(values[0])


def _obituary(worker: _Started, *, others: int) -> str:
    code = worker.process.exitcode or 0
    cause = f"was killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
    then = "its trial is taken over" if others else "its trial is queued again"
    return f"worker {worker.number} (process {worker.process.pid}) {cause}; {then}"


def _end(started: Sequence[_Started]) -> None:
    """No process stays behind, whatever has happened."""
    for worker in started:
        if worker.process.is_alive():
            _signal(worker.process, signal.SIGTERM)
    for worker in started:
        worker.process.join(timeout=10.0)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _signal(process: SpawnProcess, number: int) -> None:
    with suppress(ProcessLookupError):
        if process.pid is not None:
            os.kill(process.pid, number)


class _Postbox:
    """A worker's board: the parent shows the trials, from the storage, and is only sent warnings."""

    def __init__(self, messages: Connection) -> None:
        self._messages = messages

    def show(self, trials: Sequence[FrozenTrial]) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """To the parent; where it is gone, nobody wants to know."""
        self.send("warn", text)

    def send(self, *message: Any) -> None:
        with suppress(OSError):
            self._messages.send(message)


def _work(job: _Job, messages: Connection) -> None:
    """What a worker process does."""
    from bench.search.run_search import work_alone

    post = _Postbox(messages)
    _end_with_parent()
    try:
        from bench.recipe import parse

        recipe = parse(job.text, path=Path(job.path))
        end = work_alone(
            recipe,
            storage_url=job.storage_url,
            deadline=job.deadline,
            threads=job.threads,
            board=post,
        )
        post.send("end", end)
    except BenchError as error:
        post.send("error", str(error), error.hint)
    except KeyboardInterrupt:
        post.send("end", "stopped")


def _end_with_parent() -> None:
    """Ask this process to stop, as Ctrl-C does, when its parent is gone: nobody would know that it still works."""

    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
