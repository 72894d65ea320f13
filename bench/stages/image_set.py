"""The samples of one split: rows of an array of images that several splits share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.kinds import Split

__all__ = ["ImageSet", "channel_statistics", "image_ids"]


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """One split: `rows` of the shared uint8 array `images` N,H,W,C, with `labels` and `ids` for each row.

    For verification a row is a pair: `rows` is P,2, `labels` and `ids` are the pairs'.
    """

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: NDArray[np.int64]) -> ImageSet:
        """The samples at some positions, sharing the images."""
        ids = tuple(self.ids[position] for position in positions)
        return ImageSet(self.images, self.rows[positions], self.labels[positions], ids)

    def distinct_rows(self) -> NDArray[np.int64]:
        """The rows of the images, each once: an image may stand in many pairs."""
        return self.rows if self.rows.ndim == 1 else np.unique(self.rows)


def channel_statistics(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels, in 0..1; reads the images in portions."""
    channels = images.images.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)  # a histogram holds everything that both need, exactly
    rows = images.distinct_rows()
    for start in range(0, len(rows), 1024):
        portion = images.images[rows[start : start + 1024]]
        for channel in range(channels):
            counts[channel] += np.bincount(portion[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    total = counts.sum(1)
    mean = counts @ values / total
    variance = counts @ values**2 / total - mean**2
    deviation = np.sqrt(np.maximum(variance, (1 / 255) ** 2))  # a constant channel is left as it is
    return tuple(mean.round(6).tolist()), tuple(deviation.round(6).tolist())


def image_ids(name: str, split: Split, root: Path) -> list[str]:
    """A name for each image of a split: its id, its path below the root, or its position in the array."""
    if split.ids is not None and split.pairs is None:
        return list(split.ids)
    if isinstance(split.images, np.ndarray):
        return [f"{name}/{position:06d}" for position in range(len(split.images))]
    start = f"{root.as_posix()}/"
    return [path.as_posix().removeprefix(start) for path in split.images]
