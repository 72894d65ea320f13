"""uint8 images -> augmented, normalised float batches on the training device.

Images that fit stay where the model is (memory or GPU), so that a batch is one gather; larger sets are read from the
memory map by a thread that works ahead.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from bench.stages.pair_augmentation import augment_pairs
from bench.stages.shards import in_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.kinds import Augmentation
    from bench.stages.data import Data
    from bench.stages.image_set import ImageSet
    from bench.stages.seeding import Generators
    from bench.stages.shards import Shard

__all__ = [
    "Batches",
    "Preprocessing",
    "Source",
    "hold",
    "hold_arrays",
    "in_halves",
    "num_steps",
    "one_hot",
]

#: Batches that the reading thread may be ahead.
_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What stands between uint8 images and the model: values / 255, minus mean, over std, in a memory layout."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    memory_format: torch.memory_format

    def scale(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 N,H,W,C -> float32 N,C,H,W in 0..1."""
        return images.permute(0, 3, 1, 2).to(torch.float32).div_(255)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Float N,C,H,W in 0..1 -> what the model takes."""
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        return images.sub(mean).div_(std).contiguous(memory_format=self.memory_format)


class Source(Protocol):
    """Where batches come from: images, or a frozen backbone's features.

    Of n pairs the inputs are 2n long: the first images of all pairs, then the second ones.
    """

    images: ImageSet
    batch_size: int

    def __len__(self) -> int:
        """The number of training steps an epoch."""

    def shuffled(
        self, generators: Generators, *, shard: Shard | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch for training: inputs and targets N,num_classes; of each batch all of it, or a shard."""

    def ordered(self, *, shard: Shard | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Every image once, in order, not augmented; of the split all of it, or a shard."""


@dataclass(slots=True)
class Batches:
    """The batches of one split. `held` is the images' array as a tensor on the device, None where it is streamed."""

    images: ImageSet
    preprocessing: Preprocessing
    num_classes: int
    batch_size: int
    device: torch.device
    held: torch.Tensor | None = None
    augment: Sequence[Augmentation] = ()
    _targets: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._targets = one_hot(torch.from_numpy(self.images.labels), self.num_classes).to(self.device)

    def __len__(self) -> int:
        """The number of training steps an epoch."""
        return num_steps(len(self.images), self.batch_size)

    def shuffled(
        self, generators: Generators, *, shard: Shard | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch in a new order, augmented: images N,C,H,W and targets N,num_classes.

        A shard is cut out of the augmented batch: so each image gets the draws, and mixes with the images, that it would
        without shards, whatever their number.
        """
        order = torch.randperm(len(self.images), generator=generators.shuffle)
        chosen = in_steps(order, self.batch_size, len(self))
        if shard is not None and not self.augment:
            return self._prepare([positions[shard.rows(len(positions))] for positions in chosen], None)
        return self._prepare(chosen, generators.augment, shard)

    def ordered(
        self, generator: torch.Generator | None = None, *, shard: Shard | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Every image once, in order; as it is, or augmented where a generator is given."""
        order, size = torch.arange(len(self.images)), self.batch_size
        if shard is not None:
            order, size = order[shard.rows(len(order))], shard.size(size)
        return self._prepare(in_steps(order, size, -(-len(order) // size)), generator)

    def distinct(self) -> Batches:
        """The images that these batches consist of, each once; of pairs without their labels."""
        if self.images.rows.ndim == 1:
            return self
        rows = self.images.distinct_rows()
        images = replace(self.images, rows=rows, labels=np.zeros_like(rows), ids=tuple(map(str, rows.tolist())))
        augment = (lambda pixels, targets, generator: (augment_pairs(self.augment, pixels, generator), targets),)
        return replace(self, images=images, augment=augment if self.augment else ())

    def resized(self, batch_size: int) -> Batches:
        """The same batches in another size."""
        return replace(self, batch_size=batch_size)

    def _prepare(
        self, chosen: Sequence[torch.Tensor], generator: torch.Generator | None, shard: Shard | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, targets in self._read(chosen):
            pixels = self.preprocessing.scale(images)
            if generator is not None and self.images.rows.ndim > 1:
                pixels = augment_pairs(self.augment, pixels, generator)
            elif generator is not None:
                for augmentation in self.augment:
                    pixels, targets = augmentation(pixels, targets, generator)  # noqa: PLW2901
            if shard is not None:
                pixels, targets = shard.cut(pixels, targets)  # noqa: PLW2901
            yield self.preprocessing.normalise(pixels), targets

    def _read(self, chosen: Sequence[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """uint8 N,H,W,C and targets, both on the device."""
        if self.held is not None:
            for positions in chosen:
                rows = torch.from_numpy(in_halves(self.images.rows[positions.numpy()]))
                yield (
                    self.held.index_select(0, rows.to(self.device)),
                    self._targets.index_select(0, positions.to(self.device)),
                )
            return

        def gather(positions: torch.Tensor) -> torch.Tensor:
            pixels = self._from_file(in_halves(self.images.rows[positions.numpy()]))
            return pixels.pin_memory() if self.device.type == "cuda" else pixels

        for positions, pixels in zip(chosen, _ahead(gather, chosen), strict=True):
            yield (
                pixels.to(self.device, non_blocking=True),
                self._targets.index_select(0, positions.to(self.device)),
            )

    def _from_file(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Images in the order of the file, which a disk reads faster; then back into the order asked for."""
        by_row = np.argsort(rows)
        return torch.from_numpy(self.images.images[rows[by_row]])[torch.from_numpy(np.argsort(by_row))]


def in_halves(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows n as they are; of pairs n,2 all first images, then all second ones, 2n."""
    return rows.T.reshape(-1)


def hold(data: Data, device: torch.device) -> dict[int, torch.Tensor]:
    """Each distinct array of the splits as a tensor on the device, by the array's id; {} where they are streamed.

    In memory the tensor shares the array; on a GPU it is a copy, made where it takes less than half of what is free.
    """
    return hold_arrays([images.images for images in data.splits.values()], device) if data.resident else {}


def hold_arrays(arrays: Sequence[NDArray[np.uint8]], device: torch.device) -> dict[int, torch.Tensor]:
    """The same for arrays in memory."""
    distinct = {id(array): array for array in arrays}
    needed = sum(array.nbytes for array in distinct.values())
    if device.type == "cuda" and needed > torch.cuda.mem_get_info(device)[0] / 2:
        return {}
    return {key: torch.from_numpy(array).to(device) for key, array in distinct.items()}


def num_steps(num_images: int, batch_size: int) -> int:
    """Steps an epoch. A last batch of a single image is left out: batch normalisation has no variance of one."""
    steps, rest = divmod(num_images, batch_size)
    return max(1, steps + (rest > 1))


def one_hot(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Labels N -> targets N,num_classes (float32)."""
    return torch.nn.functional.one_hot(labels.long(), num_classes).float()


def _ahead(read: Callable[[torch.Tensor], torch.Tensor], items: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """read(item) for each item, in order, by a thread that works ahead. Its errors are raised here."""
    results: queue.Queue[torch.Tensor | BaseException] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def put(result: torch.Tensor | BaseException) -> None:
        while not stop.is_set():
            try:
                results.put(result, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                if stop.is_set():
                    return
                put(read(item))
        except BaseException as error:  # noqa: BLE001  # handed to the thread that waits
            put(error)

    thread = threading.Thread(target=work, name="read-ahead", daemon=True)
    thread.start()
    try:
        for _ in items:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        stop.set()
        thread.join()
