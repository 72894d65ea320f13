"""Synthetic images, and the answers to them that an exported file carries: a check that needs no dataset."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.images import fit
from bench_export.gate.answers import CannotRun, Reference, run_batch
from bench_export.gate.packing import pack_array, unpack_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.kinds import Task
    from bench_export.card import Card, Preprocessing
    from bench_export.gate.report import GateReport
    from bench_export.predictor import Predictor

__all__ = [
    "A_SIZE",
    "ProbeSamples",
    "Probes",
    "build_probes",
    "check_resizing",
    "fitted_probes",
    "probe_images",
    "read_probes",
]

#: Probes of each size, so that batches of 1, 2 and 7 can be made of them.
A_SIZE = 7


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """Answers N,K to the synthetic images: the trained model's, and the file's own when it was exported (or None)."""

    trained: NDArray[np.float32]
    exported: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class ProbeSamples:
    """The synthetic images as samples to ask for, for `first_departure`."""

    how: Preprocessing
    task: Task

    def __len__(self) -> int:
        return A_SIZE * len(probe_images(self.how, self.task))

    @property
    def larger_and_smaller(self) -> tuple[int, int]:
        """Two images of other sizes than the model's."""
        return A_SIZE, 2 * A_SIZE

    def originals(self, position: int) -> tuple[NDArray[np.uint8], ...]:
        """One image at its own size, or the two of a pair."""
        size, row = divmod(position, A_SIZE)
        return tuple(side[row] for side in probe_images(self.how, self.task)[size])

    def batch(self, positions: Sequence[int] | NDArray[np.int64]) -> tuple[NDArray[np.uint8], ...]:
        """Fitted ones, uint8 N,h,w,C."""
        fitted = [fitted_probes(batch, self.how) for batch in probe_images(self.how, self.task)]
        columns = (np.concatenate(column) for column in zip(*fitted, strict=True))
        return tuple(column[np.asarray(positions)] for column in columns)


def check_resizing(result: GateReport, candidate: Predictor, how: Preprocessing, task: Task) -> None:
    """Add a reason where a file resizes otherwise than Pillow: it answers alike before and after Pillow's resizing.

    `how` is the run's. Real images may all have the model's size already, and would show nothing.
    """
    if not candidate.card.preprocessing.in_graph:
        return
    largest, limit = 0.0, result.limits["batch_difference"]
    try:
        for batch in probe_images(how, task):
            found = run_batch(candidate, *batch)
            difference = np.abs(found - run_batch(candidate, *fitted_probes(batch, how)))
            largest = max(largest, float(np.nan_to_num(difference).max()))  # it is the finite answers that are judged
    except CannotRun as reason:
        result.reasons.append(str(reason))
        return
    if largest > limit:
        result.reasons.append(
            f"it does not resize as Pillow does: answers to synthetic images change by up to {largest:.2g} "
            f"where Pillow resizes them before; the limit is {limit:g}"
        )


def probe_images(how: Preprocessing, task: Task) -> list[tuple[NDArray[np.uint8], ...]]:
    """Batches of seven synthetic images (of pairs two batches), one for each of several sizes; the same everywhere.

    Integers alone make them: overlaid triangular waves, different in each image, place and channel.
    """
    height, width = how.size
    sizes = [(height, width), (2 * height + 3, width + 5), (height // 2 + 1, 2 * width + 1), (150, 201)]
    batches = []
    for number, size in enumerate(sizes):
        sides = [_waves(size, how.channels, seed=2 * number)]
        if task == "verification":
            sides.append(_waves(sizes[(number + 1) % len(sizes)], how.channels, seed=2 * number + 1))
        batches.append(tuple(sides))
    return batches


def fitted_probes(batch: tuple[NDArray[np.uint8], ...], how: Preprocessing) -> tuple[NDArray[np.uint8], ...]:
    """Probes as Pillow fits them to the model's size, uint8 7,h,w,C."""
    from PIL import Image

    def one(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return fit(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), how.decoding())

    return tuple(np.stack([one(pixels) for pixels in side]) for side in batch)


def build_probes(
    reference: Reference, preprocessing: Preprocessing, task: Task, *, candidate: Predictor | None = None
) -> dict[str, Any]:
    """The probes' answers for the metadata: the trained model's (on what Pillow makes of them) and the file's."""
    trained, exported = [], []
    for batch in probe_images(preprocessing, task):
        fitted = fitted_probes(batch, preprocessing)
        trained.append(reference(*fitted))
        if candidate is not None:
            exported.append(run_batch(candidate, *(batch if preprocessing.in_graph else fitted)))
    packed: dict[str, Any] = {"trained": pack_array(np.concatenate(trained))}
    return packed | ({"exported": pack_array(np.concatenate(exported))} if exported else {})


def read_probes(card: Card) -> Probes:
    """The probes of a card. Raises BenchError where it has none, or damaged ones."""
    packed = (card.gate or {}).get("probes")
    if not isinstance(packed, Mapping):
        raise BenchError("its metadata hold no answers to check against", hint="export it again")
    exported = packed.get("exported")
    try:
        columns = len(card.classes)
        return Probes(
            unpack_array(packed["trained"], columns), None if exported is None else unpack_array(exported, columns)
        )
    except (KeyError, TypeError, ValueError, zlib.error) as cause:
        raise BenchError(f"its probes are damaged: {cause}", hint="export it again") from cause


def _waves(size: tuple[int, int], channels: int, *, seed: int) -> NDArray[np.uint8]:
    """uint8 7,H,W,C: two triangular waves and a slope each, with other periods and directions."""
    height, width = size
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    images = np.empty((A_SIZE, height, width, channels), dtype=np.uint8)
    for image in range(A_SIZE):
        for channel in range(channels):
            number = seed * A_SIZE * 3 + image * 3 + channel
            period = 12 + 5 * (number % 7)
            along = (rows * (1 + number % 3) + columns * (2 - number % 2) + 7 * number) % (2 * period)
            across = (rows * (number % 2) - columns * (1 + number % 4) + 11 * number) % (4 * period)
            slope = (rows * 255 // height if number % 2 else columns * 255 // width) // 2
            first = np.abs(along - period) * 90 // period
            second = np.abs(across - 2 * period) * 60 // (2 * period)
            images[image, :, :, channel] = np.clip((slope + first + second + 13 * number) % 320, 0, 255)
    return images
