"""Requests that come at the same time are run together.

A few worker threads, one a core, do everything: they decode as long as something waits to be decoded, and then share
what is decoded and run it through the session. So no core idles while there is work, no two threads fight for one core,
a lone request passes from hand to hand but once, and batches grow by themselves with the load.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.images import BadImage
from bench_export.predictor import Predictor
from bench_export.serving.metrics import Metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answer", "Batcher", "best_batch_size"]

_SIZES = (4, 8, 16, 32)
_SECONDS_A_SIZE = 0.1
_NEARLY = 0.95
_NO_NUMBER = "the model's answer to it is not a number"
_NAP_S = 0.0005  # how often a thread that waits for a fuller batch looks for images to decode

_log = logging.getLogger("bench.serve")


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one image or pair: its probabilities and class, or why it is bad. Times in seconds."""

    probabilities: NDArray[np.float32] | None = None
    guess: int = -1
    bad: str | None = None
    decode_s: float = 0.0
    wait_s: float = 0.0
    compute_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Job:
    """One request: its answers in order, and the future that is set when the last one is there."""

    future: asyncio.Future[list[Answer]]
    answers: list[Answer]
    remaining: int


@dataclass(slots=True, eq=False)
class _Item:
    """One image or pair of a job on its way through the threads."""

    job: _Job
    position: int
    sources: tuple[bytes, ...]
    arrays: tuple[NDArray[np.uint8], ...] = ()
    decode_s: float = 0.0
    decoded: float = 0.0


@dataclass(eq=False)
class Batcher:
    """Runs what is submitted, at most `max_batch` images or pairs at a time, and `max_runs` such batches at once.

    It never waits for more while a core is free, unless `max_delay_ms` says so. Requests are counted in and out on the
    event loop.
    """

    predictor: Predictor
    metrics: Metrics
    max_batch: int
    max_delay_ms: float = 0.0
    num_workers: int = 2
    max_runs: int = 2
    waiting: int = 0
    _encoded: SimpleQueue[_Item | None] = field(default_factory=SimpleQueue)
    _decoded: deque[_Item] = field(default_factory=deque)
    _running: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start the threads, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        names = [f"worker-{number}" for number in range(self.num_workers)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    @property
    def ready(self) -> bool:
        """Whether all threads are alive."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    async def answers(self, sources: list[tuple[bytes, ...]]) -> list[Answer]:
        """Encoded images (of pairs two each) -> their answers in order; raises what the session raised."""
        job = _Job(self._loop.create_future(), [Answer()] * len(sources), len(sources))
        self.waiting += len(sources)
        for position, one in enumerate(sources):
            self._encoded.put(_Item(job, position, one))
        return await job.future

    async def stop(self) -> None:
        """End the threads; what they were given before is finished first."""
        for _ in self._threads:
            self._encoded.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._threads = []

    def _work(self) -> None:
        """One thread: decode while something waits for it and batches are not full, else run what is decoded."""
        while True:
            if len(self._decoded) >= self.max_batch and self._run_share():
                continue
            try:
                item = self._encoded.get_nowait()
            except Empty:
                if self._run_or_wait():
                    continue
                item = self._encoded.get()
            if item is None:
                while self._run_share():
                    pass
                return
            self._decode(item)

    def _run_or_wait(self) -> bool:
        """Nothing waits to be decoded: run what is decoded, once its delay is over; False where there is nothing."""
        if self.max_delay_ms and (oldest := next(iter(tuple(self._decoded)), None)) is not None:
            remaining = oldest.decoded + self.max_delay_ms / 1e3 - time.perf_counter()
            if remaining > 0:
                time.sleep(min(remaining, _NAP_S))
                return True
        return self._run_share()

    def _decode(self, item: _Item) -> None:
        started = time.perf_counter()
        try:
            item.arrays = tuple(self.predictor.prepare(source) for source in item.sources)
        except BadImage as reason:
            self._bad(item, str(reason))
        except MemoryError:
            self._bad(item, "too large for the memory of this machine")
        except Exception as error:  # noqa: BLE001  # a thread that dies would leave all others waiting for ever
            self._loop.call_soon_threadsafe(self._fail, [item], error)
        else:
            item.decoded = time.perf_counter()
            item.decode_s = item.decoded - started
            self._decoded.append(item)

    def _bad(self, item: _Item, reason: str) -> None:
        self._loop.call_soon_threadsafe(self._deliver, [item], [Answer(bad=reason)])

    def _run_share(self) -> bool:
        """Take this thread's share of what is decoded and run it; False where there is nothing to take."""
        with self._lock:
            free = self.max_runs - self._running
            if not free or not self._decoded:
                return False
            share = len(self._decoded) if self.max_delay_ms else -(-len(self._decoded) // free)
            items = [self._decoded.popleft() for _ in range(min(share, self.max_batch))]
            self._running += 1
        try:
            self._run(items)
        finally:
            with self._lock:
                self._running -= 1
        return True

    def _run(self, items: list[_Item]) -> None:
        started = time.perf_counter()
        try:
            probabilities = self.predictor.run(*(np.stack(column) for column in _columns(items)))
            guesses = self.predictor.guesses(probabilities).tolist()
        except Exception as error:  # noqa: BLE001  # is raised where the request waits
            self._loop.call_soon_threadsafe(self._fail, items, error)
            return
        compute_s = time.perf_counter() - started
        finite = np.all(np.isfinite(probabilities), axis=1, keepdims=True)[:, 0].tolist()
        answers = [
            Answer(row, guess, None if good else _NO_NUMBER, item.decode_s, started - item.decoded, compute_s)
            for item, row, guess, good in zip(items, probabilities, guesses, finite, strict=True)
        ]
        self._loop.call_soon_threadsafe(self._deliver, items, answers)

    def _deliver(self, items: list[_Item], answers: list[Answer]) -> None:
        """On the event loop: hand answers to their jobs."""
        if answers[0].probabilities is not None:
            self.metrics.count_batch(len(items))
        self.waiting -= len(items)
        for item, answer in zip(items, answers, strict=True):
            job = item.job
            job.answers[item.position] = answer
            job.remaining -= 1
            if job.remaining == 0 and not job.future.done():
                job.future.set_result(job.answers)

    def _fail(self, items: list[_Item], error: Exception) -> None:
        """On the event loop: the session itself has failed."""
        _log.error("the model failed on a batch of %d: %s", len(items), error)
        self.waiting -= len(items)
        for item in items:
            if not item.job.future.done():
                item.job.future.set_exception(error)


def best_batch_size(predictor: Predictor) -> int:
    """The largest of a few batch sizes that runs nearly as many images a second as the best of them, by measuring.

    It is only a bound: batches are what has gathered, so a large one costs nothing where few images come.
    """
    how = predictor.card.preprocessing
    seconds = {}
    for size in _SIZES:
        batch = np.zeros((size, *how.size, how.channels), dtype=np.uint8)
        seconds[size] = _seconds_an_image(predictor, [batch] * (2 if predictor.takes_pairs else 1))
    best = min(seconds.values())
    return max(size for size, one in seconds.items() if one * _NEARLY <= best)


def _seconds_an_image(predictor: Predictor, batches: list[Any]) -> float:
    """The fastest of a few runs, as the others were disturbed; the first one does not count."""
    predictor.run(*batches)
    times: list[float] = []
    end = time.perf_counter() + _SECONDS_A_SIZE
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        predictor.run(*batches)
        times.append(time.perf_counter() - start)
    return min(times) / len(batches[0])


def _columns(items: list[_Item]) -> list[tuple[NDArray[np.uint8], ...]]:
    return list(zip(*(item.arrays for item in items), strict=True))
