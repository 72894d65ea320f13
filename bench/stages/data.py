"""From a dataset plugin to split, decoded, fingerprinted images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from bench.errors import BenchError, DataError, PluginError
from bench.images import Decoding
from bench.kinds import SPLITS, Dataset, DataSpec, Split
from bench.stages.cache import Report, load_images
from bench.stages.splits import hold_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.tables import Data as DataTable

__all__ = ["Data", "ImageSet", "channel_statistics", "load", "open_dataset"]

_SHOWN = 10


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """One split: `rows` of the shared uint8 array `images` N,H,W,C, with `labels` and `ids` for each row."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """A dataset ready for training: what a model is built for, its splits, and what identifies it.

    `fingerprint` is a sha256 over every sample's split, id, label and content; `skipped` lists bad images with the
    reason; `resident` says whether the images are held in memory (otherwise they are streamed from the disk).
    """

    spec: DataSpec
    splits: Mapping[str, ImageSet]
    fingerprint: str
    skipped: tuple[str, ...]
    resident: bool

    def counts(self) -> dict[str, dict[str, int]]:
        """Split -> class -> number of images."""
        return {
            name: dict(
                zip(
                    self.spec.classes,
                    np.bincount(images.labels, minlength=self.spec.num_classes).tolist(),
                    strict=True,
                )
            )
            for name, images in self.splits.items()
        }

    def describe(self) -> str:
        """Split sizes and class balance in one line."""
        parts = []
        for name, classes in self.counts().items():
            low, high = min(classes.values()), max(classes.values())
            each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            parts.append(f"{name} {sum(classes.values()):,} ({each} a class)")
        return f"{self.spec.num_classes} classes; {', '.join(parts)}"


def open_dataset(plugin: Any, root: Path, options: Mapping[str, Any]) -> Dataset:
    """Call a dataset plugin and check what it returns. Raises DataError for unusable data, PluginError for a fault."""
    name = getattr(plugin, "__name__", repr(plugin))
    try:
        dataset = plugin(root, **options)
    except (BenchError, MemoryError):
        raise
    except Exception as cause:
        raise PluginError(
            f"dataset plugin {name!r} failed on {root}: {type(cause).__name__}: {cause}",
            hint=f"check {root}; bench plugins datasets/{name} prints what it expects",
        ) from cause
    if not isinstance(dataset, Dataset):
        raise PluginError(f"dataset plugin {name!r} returned {type(dataset).__name__}, not a Dataset")
    if "train" not in dataset.splits or not set(dataset.splits) <= set(SPLITS):
        names = ", ".join(dataset.splits)
        raise PluginError(f"dataset plugin {name!r}: its splits are {names}; allowed: {', '.join(SPLITS)}")
    if len(dataset.classes) < 2:  # noqa: PLR2004
        raise DataError(
            f"{root}: {len(dataset.classes)} class; a classifier needs at least 2", hint=f"look into {root}"
        )
    for split_name, split in dataset.splits.items():
        _check_labels(split_name, split, dataset.classes)
    return dataset


def load(
    dataset: Dataset, root: Path, table: DataTable, *, size: tuple[int, int], report: Report | None = None
) -> Data:
    """Decode (or open the cache), split and fingerprint a dataset. Raises DataError naming the bad images."""
    channels = dataset.channels if table.channels == "auto" else table.channels
    how = Decoding(size, channels, table.resize, table.filter, table.max_megapixels)
    sets: dict[str, ImageSet] = {}
    good: dict[str, NDArray[np.int64]] = {}
    bad: list[str] = []
    digest = hashlib.sha256("\n".join(dataset.classes).encode())
    for name in SPLITS:
        if name not in dataset.splits:
            continue
        split = dataset.splits[name]
        cached = load_images(split.images, how, report=report)
        ids = _ids(name, split, root)
        bad += [f"{ids[position]}: {reason}" for position, reason in cached.bad.items()]
        labels = np.asarray(split.labels, dtype=np.int64)
        digest.update(f"\n{name} {cached.content}\n".encode())
        digest.update("\n".join(f"{id_}\t{label}" for id_, label in zip(ids, labels.tolist(), strict=True)).encode())
        whole = ImageSet(cached.array, np.arange(len(labels)), labels, tuple(ids))
        good[name] = np.setdiff1d(whole.rows, list(cached.bad))
        sets[name] = whole.take(good[name]) if cached.bad else whole
    _judge(bad, root, table.bad_images)
    _check_classes(sets, dataset.classes, root)
    sets |= _divide(sets["train"], _groups(dataset.splits["train"], good["train"]), dataset, table)
    sets = {name: sets[name] for name in SPLITS if name in sets}
    sets, resident = _into_memory(sets, table.memory_gb)
    spec = DataSpec(dataset.task, tuple(dataset.classes), channels, size)
    return Data(spec, sets, digest.hexdigest(), tuple(bad), resident)


def channel_statistics(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels, in 0..1; reads the images in portions."""
    channels = images.images.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)  # a histogram holds everything that both need, exactly
    for start in range(0, len(images), 1024):
        portion = images.images[images.rows[start : start + 1024]]
        for channel in range(channels):
            counts[channel] += np.bincount(portion[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    total = counts.sum(1)
    mean = counts @ values / total
    variance = counts @ values**2 / total - mean**2
    deviation = np.sqrt(np.maximum(variance, (1 / 255) ** 2))  # a constant channel is left as it is
    return tuple(mean.round(6).tolist()), tuple(deviation.round(6).tolist())


def _check_labels(name: str, split: Split, classes: Sequence[str]) -> None:
    labels = np.asarray(split.labels)
    if len(labels) != len(split.images):
        raise DataError(f"split {name!r}: {len(split.images)} images but {len(labels)} labels")
    if not len(labels):
        raise DataError(f"split {name!r} is empty")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise PluginError(f"split {name!r}: labels must be integers, one an image, not {labels.dtype} {labels.shape}")
    for what, values in (("ids", split.ids), ("groups", split.groups)):
        if values is not None and len(values) != len(labels):
            raise PluginError(f"split {name!r}: {len(labels)} images but {len(values)} {what}")
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        first = outside[0]
        raise DataError(
            f"split {name!r}: {len(outside)} labels out of range, first {labels[first]} at sample {first}; "
            f"{len(classes)} classes allow 0..{len(classes) - 1}",
            hint="repair the labels",
        )


def _ids(name: str, split: Split, root: Path) -> list[str]:
    if split.ids is not None:
        return list(split.ids)
    if isinstance(split.images, np.ndarray):
        return [f"{name}/{position:06d}" for position in range(len(split.images))]
    start = f"{root.as_posix()}/"
    return [path.as_posix().removeprefix(start) for path in split.images]


def _groups(split: Split, good: NDArray[np.int64]) -> NDArray[np.int64] | None:
    if split.groups is None:
        return None
    return np.unique(np.asarray(split.groups)[good], return_inverse=True)[1].astype(np.int64)


def _divide(
    images: ImageSet, groups: NDArray[np.int64] | None, dataset: Dataset, table: DataTable
) -> dict[str, ImageSet]:
    """Hold out what the dataset does not bring: the test split first, then the validation split."""
    parts = {"train": images}
    for other, share in (("test", table.test), ("validation", table.validation)):
        if other in dataset.splits or not share:
            continue
        remaining = parts["train"]
        kept, held = hold_out(remaining.labels, share, seed=table.split_seed, classes=dataset.classes, groups=groups)
        parts |= {"train": remaining.take(kept), other: remaining.take(held)}
        groups = None if groups is None else groups[kept]
    return parts


def _judge(bad: list[str], root: Path, choice: str) -> None:
    if not bad or choice == "skip":
        return
    shown = "\n  ".join(bad[:_SHOWN] + ([f"... and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []))
    images = "image" if len(bad) == 1 else "images"
    raise DataError(
        f"{root}: {len(bad)} bad {images}:\n  {shown}",
        hint="repair or remove them, or leave them out: --set data.bad_images=skip",
    )


def _check_classes(sets: Mapping[str, ImageSet], classes: Sequence[str], root: Path) -> None:
    for name, images in sets.items():
        if not len(images):
            raise DataError(f"{root}: no image of the split {name!r} is left", hint="repair its images")
        counts = np.bincount(images.labels, minlength=len(classes))
        empty = [classes[label] for label in np.flatnonzero(counts == 0).tolist()]
        if empty and name == "train":
            raise DataError(
                f"{root}: no training image of {', '.join(map(repr, empty[:_SHOWN]))}",
                hint="add images of it or drop the class",
            )


def _into_memory(sets: dict[str, ImageSet], budget_gb: float | str) -> tuple[dict[str, ImageSet], bool]:
    """Load the images where they fit into the budget; otherwise leave them memory-mapped."""
    arrays = {id(images.images): images.images for images in sets.values()}
    needed = sum(array.nbytes for array in arrays.values())
    budget = psutil.virtual_memory().available / 2 if isinstance(budget_gb, str) else budget_gb * 1e9
    if needed > budget:
        return sets, False
    try:
        loaded = {key: np.array(array, order="C") for key, array in arrays.items()}
    except MemoryError as cause:
        raise BenchError(
            f"{needed / 1e9:.1f} GB of images do not fit into memory", hint="--set data.memory_gb=0 streams them"
        ) from cause
    return {name: replace(images, images=loaded[id(images.images)]) for name, images in sets.items()}, True
