"""What a float model's activations look like, and the ranges that eight bits should cover: three ways from one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError
from bench_export.conversion.sessions import quiet_session

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

__all__ = ["METHODS", "Observed", "observe", "portions"]

#: Values kept of each tensor, spread over all images: 1 MiB of float32.
_SAMPLE = 1 << 18

#: Bytes of activations that may be held at a time.
_HELD_BYTES = 64 << 20

#: Share of the values, in percent, that the method "percentile" covers; the rest saturates.
_COVERED_PERCENT = 99.99

#: TensorRT's figures: bins of the histogram of absolute values, and every how many of them a threshold is tried.
_BINS, _STEP = 2048, 16


@dataclass(slots=True)
class Observed:
    """A tensor over all calibration images: its exact extremes and an even sample of its values."""

    low: float = np.inf
    high: float = -np.inf
    parts: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def sample(self) -> NDArray[np.float32]:
        """At most about a quarter of a million values."""
        return np.concatenate(self.parts)

    def add(self, values: NDArray[np.float32], *, quota: int, turn: int) -> None:
        """Take in another array. An odd stride, begun elsewhere each time, visits all columns of an image alike."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        stride = max(1, values.size // quota) | 1 if values.size > quota else 1
        self.parts.append(values.reshape(-1)[turn % stride :: stride].copy())


def observe(
    proto: ModelProto, batches: Sequence[Mapping[str, NDArray[np.float32]]], *, tensors: Sequence[str]
) -> dict[str, Observed]:
    """Run the model once over all images and look at `tensors`, its inputs among them.

    Memory stays bounded: few images at a time, extremes exactly, and of the values a sample.
    Raises BenchError where there are no images, or where an activation is not finite.
    """
    num_images = sum(_num_images(batch) for batch in batches)
    if num_images == 0:
        raise BenchError("there are no images to calibrate on", hint="int8 needs training images: give at least one")
    inputs = [value.name for value in proto.graph.input]
    inner = [name for name in tensors if name not in inputs]
    session = quiet_session(proto, also=inner)
    seen = {name: Observed() for name in tensors}
    for turn, portion in enumerate(_bounded(session, batches, inner)):
        arrays = dict(zip(inner, session.run(inner, portion) if inner else [], strict=True)) | portion
        quota = max(1, _SAMPLE * _num_images(portion) // num_images)
        for name in tensors:
            seen[name].add(arrays[name], quota=quota, turn=turn)
    broken = [name for name in tensors if not np.isfinite([seen[name].low, seen[name].high]).all()]
    if broken:
        message = f"the float model's tensor {broken[0]!r} is not finite on the calibration images"
        raise BenchError(message, hint="int8 has no infinity and no NaN: train the model anew, or export fp32")
    return seen


def portions(
    batches: Sequence[Mapping[str, NDArray[np.float32]]], *, num_images: int
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """The same images in batches of at most `num_images`."""
    for batch in batches:
        for start in range(0, _num_images(batch), num_images):
            yield {name: values[start : start + num_images] for name, values in batch.items()}


def _bounded(
    session: object, batches: Sequence[Mapping[str, NDArray[np.float32]]], names: Sequence[str]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Batches so small that all their activations fit into the memory that may be held."""
    first = next(portions(batches, num_images=1))
    arrays = session.run(list(names), first) if names else []  # type: ignore[attr-defined]  # onnxruntime is untyped
    image_bytes = sum(values.nbytes for values in [*arrays, *first.values()])
    yield from portions(batches, num_images=min(64, max(1, _HELD_BYTES // image_bytes)))


def _num_images(batch: Mapping[str, NDArray[np.float32]]) -> int:
    return len(next(iter(batch.values())))


def _minmax(seen: Observed) -> tuple[float, float]:
    return seen.low, seen.high


def _percentile(seen: Observed) -> tuple[float, float]:
    cut = (100.0 - _COVERED_PERCENT) / 2
    low, high = np.percentile(seen.sample, [cut, 100.0 - cut])
    return float(low), float(high)


def _entropy(seen: Observed) -> tuple[float, float]:
    """The clipping of absolute values that loses least information.

    Source: Migacz 2017, 8-bit inference with TensorRT: smallest Kullback-Leibler divergence of the merged histogram.
    """
    limit = max(abs(seen.low), abs(seen.high))
    if limit == 0:
        return seen.low, seen.high
    counts, edges = np.histogram(np.abs(seen.sample), bins=_BINS, range=(0.0, limit))
    counts[0] = counts[1]  # the many exact zeros behind a ReLU are no information: every range has them
    levels = 256 if seen.low >= 0 else 128
    best = min(range(levels, _BINS + 1, _STEP), key=lambda kept: _divergence(counts.astype(float), kept, levels))
    threshold = float(edges[best])
    return max(seen.low, -threshold), min(seen.high, threshold)


def _divergence(counts: NDArray[np.float64], kept: int, levels: int) -> float:
    """Of the first `kept` bins, the rest saturated into the last, from the same merged into as many levels."""
    inside = counts[:kept]
    reference = inside.copy()
    reference[-1] += counts[kept:].sum()
    level = np.arange(kept) * levels // kept
    filled = inside > 0
    merged = np.bincount(level, inside, levels) / np.maximum(np.bincount(level, filled, levels), 1)
    coarse = np.where(filled, merged[level], 0.0)
    if not coarse.any():
        return float("inf")
    reference /= reference.sum()
    coarse = np.maximum(coarse / coarse.sum(), 1e-9)  # what saturates into an empty bin costs much, not everything
    present = reference > 0
    return float((reference[present] * np.log(reference[present] / coarse[present])).sum())


#: How a calibration turns what was observed into (low, high).
METHODS: Mapping[str, Callable[[Observed], tuple[float, float]]] = {
    "minmax": _minmax,
    "entropy": _entropy,
    "percentile": _percentile,
}
