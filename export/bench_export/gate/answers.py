"""What the trained model and an exported file answer to the same samples: one at a time, and in batches."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from bench.images import no_size_warnings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench_export.predictor import Predictor

__all__ = [
    "Answers",
    "Asked",
    "CannotRun",
    "InBatches",
    "Reference",
    "Report",
    "ask",
    "guesses",
    "reference_answers",
    "run_batch",
]

#: uint8 N,h,w,C (of pairs two of these) -> probabilities N,K.
Reference: TypeAlias = "Callable[..., NDArray[np.float32]]"

#: Called with what is going on, how many are done, and of how many: `Progress.advance`.
Report: TypeAlias = Callable[[str, int, int], None]

#: Beside single images, batches of an even and of an odd size.
BATCH_SIZES = (2, 7)

_AHEAD = 16  # images decoded ahead of the session
_TOGETHER = 14  # images of one size that are gathered before they are run in batches
_ENOUGH = 2_000  # images for each size of batch
_FEW = 10  # batches; where images of equal size make fewer, fitted ones are added
_WAITING_BYTES = 256_000_000
_REFERENCE_BATCH = 32


class Asked(Protocol):
    """Labelled samples, as `bench_export.gate.samples` and `recorded` give them."""

    def __len__(self) -> int: ...

    def originals(self, position: int) -> tuple[NDArray[np.uint8], ...]:
        """One image at its own size, or the two of a pair."""

    def batch(self, positions: Sequence[int] | NDArray[np.int64]) -> tuple[NDArray[np.uint8], ...]:
        """Fitted ones, uint8 N,h,w,C."""


@dataclass(slots=True)
class InBatches:
    """How a file's answers in batches of `size` differ from those to the same images one at a time.

    `changed` counts other guesses; `failure` says why such a batch could not be run.
    """

    size: int
    images: int = 0
    max_difference: float = 0.0
    changed: int = 0
    failure: str | None = None


@dataclass(slots=True, eq=False)
class Answers:
    """A file's answers: probabilities N,K one image at a time (NaN where it could not), and how batches compare."""

    probabilities: NDArray[np.float32]
    batches: Mapping[int, InBatches]
    failure: str | None = None


class CannotRun(Exception):  # an answer, not a fault of ours
    """The file could not be run; the message says why."""


def guesses(probabilities: NDArray[np.float32], threshold: float | None) -> NDArray[np.int64]:
    """The class of each row; of pairs whether the score reaches the threshold."""
    if threshold is None:
        return np.asarray(probabilities.argmax(1), dtype=np.int64)
    return (probabilities[:, 1] >= np.float32(threshold)).astype(np.int64)


def reference_answers(reference: Reference, samples: Asked, report: Report | None = None) -> NDArray[np.float32]:
    """The trained model's probabilities N,K of fitted samples."""
    parts = []
    for start in range(0, len(samples), _REFERENCE_BATCH):
        stop = min(start + _REFERENCE_BATCH, len(samples))
        parts.append(reference(*samples.batch(range(start, stop))))
        if report is not None:
            report("asking the trained model", stop, len(samples))
    return np.concatenate(parts)


def ask(
    candidate: Predictor, samples: Asked, *, sizes: Sequence[int] = BATCH_SIZES, report: Report | None = None
) -> Answers:
    """A file's answers to all samples one at a time, and to as many as are needed in batches.

    A file that resizes by itself sees them at their own size, a raw one as Pillow fits them.
    """
    asking = _Asking(candidate, samples, {size: InBatches(size) for size in sizes})
    failure = None

    def images_of(position: int) -> tuple[NDArray[np.uint8], ...]:
        if candidate.card.preprocessing.in_graph:
            return samples.originals(position)
        return tuple(side[0] for side in samples.batch([position]))

    try:
        with no_size_warnings():
            for position, images in enumerate(_ahead(images_of, len(samples))):
                asking.one(position, images)
                if report is not None and ((position + 1) % 64 == 0 or position + 1 == len(samples)):
                    report("asking the exported file", position + 1, len(samples))
        asking.rest()
    except CannotRun as reason:
        failure = str(reason)
    return Answers(asking.probabilities, asking.batches, failure)


def run_batch(candidate: Predictor, *arrays: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities N,K. Raises CannotRun, which says in plain words why the file cannot."""
    count = len(arrays[0])
    try:
        found = np.asarray(candidate.run(*arrays), dtype=np.float32)
    except Exception as cause:  # noqa: BLE001  # onnxruntime's own classes share no base but Exception
        text = " ".join(str(cause).split()).removeprefix("[ONNXRuntimeError] : ")
        raise CannotRun(f"it cannot run a batch of {count}: {text[:300]}") from None
    expected = (count, len(candidate.classes))
    if found.shape != expected:
        raise CannotRun(f"it answers a batch of {count} with an array {found.shape} instead of {expected}")
    return found


@dataclass(slots=True)
class _Asking:
    """Single answers as they come, and groups of equally large images until they are run in batches."""

    candidate: Predictor
    samples: Asked
    batches: dict[int, InBatches]
    probabilities: NDArray[np.float32] = field(init=False)
    _waiting: dict[Any, list[tuple[int, tuple[NDArray[np.uint8], ...]]]] = field(init=False)
    _bytes: int = 0

    def __post_init__(self) -> None:
        shape = (len(self.samples), len(self.candidate.classes))
        self.probabilities = np.full(shape, np.nan, dtype=np.float32)
        self._waiting = defaultdict(list)

    def one(self, position: int, images: tuple[NDArray[np.uint8], ...]) -> None:
        self.probabilities[position] = run_batch(self.candidate, *(image[None] for image in images))[0]
        size = sum(image.nbytes for image in images)
        if self._bytes + size > _WAITING_BYTES or all(self._is_done(batch) for batch in self.batches.values()):
            return
        group = self._waiting[tuple(image.shape for image in images)]
        group.append((position, images))
        self._bytes += size
        if len(group) == _TOGETHER:
            self._flush(group)
            self._bytes -= size * _TOGETHER
            group.clear()

    def rest(self) -> None:
        """Run what waits; where that makes few batches, fitted images too, again and again where there are few."""
        for group in self._waiting.values():
            self._flush(group)
        for batch in self.batches.values():
            count = max(min(len(self.samples), _FEW * batch.size), batch.size)
            if batch.images < count - count % batch.size and batch.failure is None:
                fitted = self.samples.batch(np.arange(count) % len(self.samples))
                singles = [
                    run_batch(self.candidate, *(array[row : row + 1] for array in fitted))[0] for row in range(count)
                ]
                self._compare(batch, fitted, np.stack(singles))

    def _flush(self, group: list[tuple[int, tuple[NDArray[np.uint8], ...]]]) -> None:
        if not group:
            return
        singles = self.probabilities[[position for position, _ in group]]
        stacked = tuple(np.stack(column) for column in zip(*(images for _, images in group), strict=True))
        for batch in self.batches.values():
            if not self._is_done(batch):
                self._compare(batch, stacked, singles)

    def _compare(self, batch: InBatches, arrays: tuple[NDArray[np.uint8], ...], singles: NDArray[np.float32]) -> None:
        """Whole batches of the arrays against the single answers to the same images."""
        for start in range(0, len(singles) - batch.size + 1, batch.size):
            part = slice(start, start + batch.size)
            try:
                found = run_batch(self.candidate, *(array[part] for array in arrays))
            except CannotRun as reason:
                batch.failure = str(reason)
                return
            difference = np.abs(found.astype(np.float64) - singles[part])
            # A NaN on one side only is a difference; on both sides it is the check of finite answers that speaks.
            difference[np.isnan(found) & np.isnan(singles[part])] = 0.0
            batch.images += batch.size
            batch.max_difference = max(batch.max_difference, float(np.nan_to_num(difference, nan=1.0).max()))
            batch.changed += int((self.candidate.guesses(found) != self.candidate.guesses(singles[part])).sum())

    @staticmethod
    def _is_done(batch: InBatches) -> bool:
        return batch.images >= _ENOUGH or batch.failure is not None


def _ahead(one: Callable[[int], tuple[NDArray[np.uint8], ...]], count: int) -> Iterator[tuple[NDArray[np.uint8], ...]]:
    """one(0), one(1), ... in order, a few of them ahead in threads: originals may be large."""
    waiting: deque[Any] = deque()
    with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
        try:
            for position in range(count):
                waiting.append(pool.submit(one, position))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
