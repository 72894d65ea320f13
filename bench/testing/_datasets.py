"""Checks for datasets: complete, named for good, and split without a leak."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import DataError
from bench.kinds import Dataset, Split
from bench.testing._opening import ids_of, opened, place, read_dataset, samples_of, spread
from bench.testing._pairs import boxes_inside, folds_apart, pairs_valid
from bench.testing._subject import CheckFailed, Subject, expect, offline

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CHECKS"]


def missing_root_is_explained(subject: Subject) -> None:
    """An empty or missing folder raises DataError with a hint, unless the dataset needs no folder."""
    with tempfile.TemporaryDirectory() as aside, tempfile.TemporaryDirectory() as empty, offline():
        options = subject.options_in(Path(aside))
        for root in (Path(empty), Path(empty) / "missing"):
            try:
                dataset = subject.load()(root, **options)
                expect(
                    isinstance(dataset, Dataset) and all(len(split.images) for split in dataset.splits.values()),
                    "from an empty folder it returns no images; raise DataError with a hint",
                )
            except DataError as error:
                expect(bool(error.hint), f"DataError({str(error)!r}) lacks a hint: say how to get the data")
            except OSError as error:
                message = f"a folder without the data raises {type(error).__name__}; raise DataError with a hint"
                raise CheckFailed(message) from error


def returns_dataset(subject: Subject) -> None:
    """It returns a Dataset with a train split and at least two classes that the core accepts."""
    from bench.stages.dataset import open_dataset

    with place(subject) as (root, options):
        try:
            dataset = open_dataset(subject.load(), root, options)
        except DataError as error:
            raise CheckFailed(f"the core refuses the dataset: {error}") from error
    twice = [name for name, count in Counter(dataset.classes).items() if count > 1]
    expect(not twice, f"two classes are called {', '.join(map(repr, twice))}")


def labels_match(subject: Subject) -> None:
    """Every image or pair has a label, an integer that is the position of its class."""
    with opened(subject) as dataset:
        for name, split in dataset.splits.items():
            labels = np.asarray(split.labels)
            expect(labels.ndim == 1, f"split {name!r}: labels have the shape {labels.shape}, not N")
            count, what = samples_of(split)
            expect(len(labels) == count, f"split {name!r}: {count} {what}, but {len(labels)} labels")
            expect(labels.dtype.kind in "iu", f"split {name!r}: labels are {labels.dtype}, not integers")
            inside = bool(((labels >= 0) & (labels < len(dataset.classes))).all())
            expect(
                inside, f"split {name!r}: labels outside 0..{len(dataset.classes) - 1}, {len(dataset.classes)} classes"
            )


def ids_unique(subject: Subject) -> None:
    """Every sample has an id of its own, which is a string."""
    with opened(subject) as dataset:
        for name, split in dataset.splits.items():
            ids = ids_of(split)
            count, what = samples_of(split)
            expect(len(ids) in {0, count}, f"split {name!r}: {count} {what}, {len(ids)} ids")
            expect(all(isinstance(one, str) for one in ids), f"split {name!r}: ids must be strings, such as {ids[:1]}")
            twice = [one for one, count in Counter(ids).items() if count > 1]
            expect(not twice, f"split {name!r}: {len(twice)} ids stand there twice, first {twice[:1]}")


def no_leak(subject: Subject) -> None:
    """No id, file or group is in two splits."""
    with opened(subject) as dataset:
        owners: dict[tuple[str, Any], str] = {}
        for name, split in dataset.splits.items():
            files = [] if isinstance(split.images, np.ndarray) else split.images
            groups = [] if split.groups is None else np.unique(np.asarray(split.groups)).tolist()
            for what, values in (("id", ids_of(split)), ("file", files), ("group", groups)):
                for value in values:
                    owner = owners.setdefault((what, value), name)
                    expect(owner == name, f"{what} {str(value)!r} is in the splits {owner} and {name}; keep it in one")


def every_class_has_training_images(subject: Subject) -> None:
    """There is a training image of every class."""
    with opened(subject) as dataset:
        present = set(np.asarray(dataset.splits["train"].labels).tolist())
        lacking = [name for label, name in enumerate(dataset.classes) if label not in present]
        expect(
            not lacking, f"no training image of {', '.join(map(repr, lacking[:5]))}; drop the class or raise DataError"
        )


def images_usable(subject: Subject) -> None:
    """Images are a uint8 array N,H,W or N,H,W,C, or files that exist and can be decoded."""
    from bench.images import BadImage, Decoding, decode

    with opened(subject) as dataset:
        for name, split in dataset.splits.items():
            if isinstance(split.images, np.ndarray):
                told = f"{split.images.dtype} {split.images.shape}"
                fits = split.images.dtype == np.uint8 and split.images.ndim in {3, 4}
                expect(fits, f"split {name!r}: images are {told}, not uint8 N,H,W or N,H,W,C")
                continue
            lacking = [path for path in split.images if not path.is_file()]
            expect(
                not lacking, f"split {name!r}: {len(lacking)} files do not exist, first {lacking[:1]}; raise DataError"
            )
            for position in spread(len(split.images)):
                try:
                    decode(split.images[position], Decoding((32, 32), dataset.channels))
                except BadImage as error:
                    raise CheckFailed(f"{split.images[position]} cannot be decoded: {error}") from error


def channels_declared(subject: Subject) -> None:
    """`channels` is 1 or 3, and what an array of images has."""
    with opened(subject) as dataset:
        declared = dataset.channels
        expect(declared in {1, 3}, f"channels is {declared!r}; 1 and 3 are possible")
        for name, split in dataset.splits.items():
            if isinstance(split.images, np.ndarray):
                found = split.images.shape[3] if split.images.ndim > 3 else 1  # noqa: PLR2004 - N,H,W,C
                expect(found == declared, f"split {name!r}: images have {found} channels, {declared} declared")


def deterministic(subject: Subject) -> None:
    """Loaded twice, it is the same: classes, splits, order, labels, ids, images, and what else belongs to them."""
    with place(subject) as (root, options):
        first, second = (read_dataset(subject, root, options) for _ in range(2))
        expect(first.classes == second.classes, "the classes come in another order each time; sort them")
        expect(list(first.splits) == list(second.splits), "the splits differ from one loading to the next")
        for name, split in first.splits.items():
            other = second.splits[name]
            same = np.array_equal(split.labels, other.labels) and _same_images(split.images, other.images)
            same = same and ids_of(split) == ids_of(other)
            for one, again in zip(_further(split), _further(other), strict=True):
                same = same and np.array_equal(() if one is None else one, () if again is None else again)
            expect(same, f"split {name!r} differs from one loading to the next; sort the files, seed what is drawn")


def _further(split: Split) -> tuple[Any, ...]:
    return split.groups, split.pairs, split.folds, split.boxes


def _same_images(one: NDArray[np.uint8] | Sequence[Path], other: NDArray[np.uint8] | Sequence[Path]) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        rows = spread(min(len(one), len(other)))
        return one.shape == other.shape and np.array_equal(one[rows], other[rows])
    return list(one) == list(other)


CHECKS: tuple[Callable[[Subject], None], ...] = (
    missing_root_is_explained,
    returns_dataset,
    labels_match,
    ids_unique,
    no_leak,
    every_class_has_training_images,
    images_usable,
    channels_declared,
    deterministic,
    pairs_valid,
    folds_apart,
    boxes_inside,
)
