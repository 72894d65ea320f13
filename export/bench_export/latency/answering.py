"""The system of the server scenario: queries wait in a queue, and a thread answers them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench_export.latency.loadgen import System

__all__ = ["answering"]


def answering(system: System, batch: int, loadgen: Any) -> tuple[Callable[[Any], None], Callable[[], None]]:
    """(LoadGen's callback, what ends the thread): it answers as many queries at once as are there, up to the batch.

    What the system has raised, the end raises.
    """
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    response, complete = loadgen.QuerySampleResponse, loadgen.QuerySamplesComplete

    run, failures = _guarded(system)

    def answer() -> None:
        while (query := waiting.get()) is not None:
            part = [query]
            while len(part) < batch and waiting.qsize():
                part.append(waiting.get())
            several = [query for query in part if query is not None]
            run([index for _, index in several])
            complete([response(identity, 0, 0) for identity, _ in several])
            if len(several) < len(part):
                return

    thread = threading.Thread(target=answer, name="answers", daemon=True)
    thread.start()

    def issue(queries: Any) -> None:
        for query in queries:
            waiting.put((query.id, query.index))

    def finish() -> None:
        waiting.put(None)
        thread.join()
        if failures:
            raise failures[0]

    return issue, finish


def _guarded(system: System) -> tuple[Callable[[Sequence[int]], None], list[Exception]]:
    """The system, and where its failure is kept: LoadGen waits for every query, so the rest is only waved through."""
    failures: list[Exception] = []

    def run(indices: Sequence[int]) -> None:
        if failures:
            return
        try:
            system.one(indices[0]) if len(indices) == 1 else system.many(indices)
        except Exception as error:  # noqa: BLE001  # is raised when the block is over
            failures.append(error)

    return run, failures
