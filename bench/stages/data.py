"""From a dataset plugin to split, decoded, fingerprinted images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from bench.errors import BenchError, DataError
from bench.images import Decoding
from bench.kinds import SPLITS, Dataset, DataSpec, Split
from bench.parallel import Report
from bench.stages.cache import CachedImages, load_images
from bench.stages.divide import divide
from bench.stages.image_set import ImageSet, image_ids
from bench.stages.pairs import pair_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.tables import Data as DataTable

__all__ = ["Data", "load"]

_SHOWN = 10


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """A dataset ready for training: what a model is built for, its splits, and what identifies it.

    `fingerprint` is a sha256 over every sample's split, id, label and content; `skipped` lists bad images with the
    reason; `resident` says whether the images are held in memory (otherwise they are streamed from the disk). With
    `num_folds`, the dataset asks for a run for each fold, and the test split is one of them.
    """

    spec: DataSpec
    splits: Mapping[str, ImageSet]
    fingerprint: str
    skipped: tuple[str, ...]
    resident: bool
    num_folds: int | None = None
    divided: Callable[[int], Mapping[str, ImageSet]] | None = field(default=None, repr=False)

    def of_fold(self, fold: int) -> Data:
        """The same images with another fold for the test. Raises DataError where it cannot be divided."""
        assert self.divided is not None  # noqa: S101  # the core asks only where there are folds
        return replace(self, splits=self.divided(fold))

    def counts(self) -> dict[str, dict[str, int]]:
        """Split -> class -> number of images, or of pairs."""
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
        if self.spec.task == "verification":
            pairs = (
                f"{name} {sum(classes.values()):,} pairs ({', '.join(f'{n:,} {c}' for c, n in classes.items())})"
                for name, classes in self.counts().items()
            )
            return "; ".join(pairs)
        parts = []
        for name, classes in self.counts().items():
            low, high = min(classes.values()), max(classes.values())
            each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            parts.append(f"{name} {sum(classes.values()):,} ({each} a class)")
        return f"{self.spec.num_classes} classes; {', '.join(parts)}"


def load(
    dataset: Dataset,
    root: Path,
    table: DataTable,
    *,
    size: tuple[int, int],
    report: Report | None = None,
) -> Data:
    """Decode (or open the cache), split and fingerprint a dataset. Raises DataError naming the bad images.

    Of a dataset with folds, the first is the test split; `Data.of_fold` gives the others.
    """
    channels = dataset.channels if table.channels == "auto" else table.channels
    how = Decoding(size, channels, table.resize, table.filter, table.max_megapixels)
    sets: dict[str, ImageSet] = {}
    bad: list[str] = []
    usable: dict[str, NDArray[np.int64]] = {}
    digest = hashlib.sha256("\n".join(dataset.classes).encode())
    for name in SPLITS:
        if name not in dataset.splits:
            continue
        split = dataset.splits[name]
        cached = load_images(split.images, how, boxes=split.boxes, report=report)
        ids = image_ids(name, split, root)
        bad += [f"{ids[position]}: {reason}" for position, reason in cached.bad.items()]
        whole = _image_set(split, cached, ids)
        digest.update(_identity(name, split, cached, whole))
        usable[name] = np.flatnonzero(~np.isin(whole.rows, list(cached.bad)).reshape(len(whole), -1).any(1))
        sets[name] = whole.take(usable[name]) if cached.bad else whole
    _judge(bad, root, table.bad_images)
    _check_classes(sets, dataset.classes, root)
    train_ids = image_ids("train", dataset.splits["train"], root)
    given, resident = _into_memory(sets, table.memory_gb)

    def divided(fold: int) -> dict[str, ImageSet]:
        parts = divide(given, dataset, table, usable=usable["train"], image_ids=train_ids, fold=fold)
        return {name: parts[name] for name in SPLITS if name in parts}

    spec = DataSpec(dataset.task, tuple(dataset.classes), channels, size)
    folds = dataset.splits["train"].folds
    num_folds = None if folds is None else int(np.max(folds)) + 1
    return Data(spec, divided(0), digest.hexdigest(), tuple(bad), resident, num_folds, divided)


def _image_set(split: Split, cached: CachedImages, names: Sequence[str]) -> ImageSet:
    labels = np.asarray(split.labels, dtype=np.int64)
    if split.pairs is None:
        return ImageSet(cached.array, np.arange(len(labels)), labels, tuple(names))
    pairs = np.asarray(split.pairs, dtype=np.int64)
    ids = pair_ids(pairs, names) if split.ids is None else tuple(split.ids)
    return ImageSet(cached.array, pairs, labels, ids)


def _identity(name: str, split: Split, cached: CachedImages, images: ImageSet) -> bytes:
    """What the fingerprint says of a split."""
    samples = "\n".join(f"{id_}\t{label}" for id_, label in zip(images.ids, images.labels.tolist(), strict=True))
    text = f"\n{name} {cached.content}\n{samples}".encode()
    pairs = b"" if split.pairs is None else images.rows.tobytes()
    groups = b"" if split.groups is None else "\0".join(map(str, split.groups)).encode()
    return text + pairs + groups + (b"" if split.folds is None else np.asarray(split.folds, dtype=np.int64).tobytes())


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
                f"{root}: no training {'pair' if images.rows.ndim > 1 else 'image'} of "
                f"{', '.join(map(repr, empty[:_SHOWN]))}",
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
