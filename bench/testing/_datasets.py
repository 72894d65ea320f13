"""Checks for datasets: complete, named for good, and split without a leak."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import DataError, Unsupported
from bench.kinds import SPLITS, Dataset, Split
from bench.testing._subject import CheckFailed, Subject, expect, offline

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CHECKS"]

#: Images that are decoded or compared in each split, spread over all of it.
_SAMPLES = 64


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
    from bench.stages.data import open_dataset

    with _place(subject) as (root, options):
        try:
            dataset = open_dataset(subject.load(), root, options)
        except DataError as error:
            raise CheckFailed(f"the core refuses the dataset: {error}") from error
    twice = [name for name, count in Counter(dataset.classes).items() if count > 1]
    expect(not twice, f"two classes are called {', '.join(map(repr, twice))}")


def labels_match(subject: Subject) -> None:
    """Every image has a label, an integer that is the position of its class."""
    with _opened(subject) as dataset:
        for name, split in dataset.splits.items():
            labels = np.asarray(split.labels)
            expect(labels.ndim == 1, f"split {name!r}: labels have the shape {labels.shape}, not N")
            count = len(split.images)
            expect(len(labels) == count, f"split {name!r}: {count} images, but {len(labels)} labels")
            expect(labels.dtype.kind in "iu", f"split {name!r}: labels are {labels.dtype}, not integers")
            inside = bool(((labels >= 0) & (labels < len(dataset.classes))).all())
            expect(
                inside, f"split {name!r}: labels outside 0..{len(dataset.classes) - 1}, {len(dataset.classes)} classes"
            )


def ids_unique(subject: Subject) -> None:
    """Every sample has an id of its own, which is a string."""
    with _opened(subject) as dataset:
        for name, split in dataset.splits.items():
            ids = _identities(split)
            expect(len(ids) in {0, len(split.images)}, f"split {name!r}: {len(split.images)} images, {len(ids)} ids")
            expect(all(isinstance(one, str) for one in ids), f"split {name!r}: ids must be strings, such as {ids[:1]}")
            twice = [one for one, count in Counter(ids).items() if count > 1]
            expect(not twice, f"split {name!r}: {len(twice)} ids stand there twice, first {twice[:1]}")


def no_leak(subject: Subject) -> None:
    """No id, file or group is in two splits."""
    with _opened(subject) as dataset:
        owners: dict[tuple[str, Any], str] = {}
        for name, split in dataset.splits.items():
            files = [] if isinstance(split.images, np.ndarray) else split.images
            groups = [] if split.groups is None else np.unique(np.asarray(split.groups)).tolist()
            for what, values in (("id", _identities(split)), ("file", files), ("group", groups)):
                for value in values:
                    owner = owners.setdefault((what, value), name)
                    expect(owner == name, f"{what} {str(value)!r} is in the splits {owner} and {name}; keep it in one")


def every_class_has_training_images(subject: Subject) -> None:
    """There is a training image of every class."""
    with _opened(subject) as dataset:
        present = set(np.asarray(dataset.splits["train"].labels).tolist())
        lacking = [name for label, name in enumerate(dataset.classes) if label not in present]
        expect(
            not lacking, f"no training image of {', '.join(map(repr, lacking[:5]))}; drop the class or raise DataError"
        )


def images_usable(subject: Subject) -> None:
    """Images are a uint8 array N,H,W or N,H,W,C, or files that exist and can be decoded."""
    from bench.images import BadImage, Decoding, decode

    with _opened(subject) as dataset:
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
            for position in _spread(len(split.images)):
                try:
                    decode(split.images[position], Decoding((32, 32), dataset.channels))
                except BadImage as error:
                    raise CheckFailed(f"{split.images[position]} cannot be decoded: {error}") from error


def channels_declared(subject: Subject) -> None:
    """`channels` is 1 or 3, and what an array of images has."""
    with _opened(subject) as dataset:
        declared = dataset.channels
        expect(declared in {1, 3}, f"channels is {declared!r}; 1 and 3 are possible")
        for name, split in dataset.splits.items():
            if isinstance(split.images, np.ndarray):
                found = split.images.shape[3] if split.images.ndim > 3 else 1  # noqa: PLR2004 - N,H,W,C
                expect(found == declared, f"split {name!r}: images have {found} channels, {declared} declared")


def deterministic(subject: Subject) -> None:
    """Loaded twice, it is the same: classes, splits, order, labels, ids and images."""
    with _place(subject) as (root, options):
        first, second = (_dataset(subject, root, options) for _ in range(2))
        expect(first.classes == second.classes, "the classes come in another order each time; sort them")
        expect(list(first.splits) == list(second.splits), "the splits differ from one loading to the next")
        for name, split in first.splits.items():
            other = second.splits[name]
            same = np.array_equal(split.labels, other.labels) and _same_images(split.images, other.images)
            same = same and _identities(split) == _identities(other)
            expect(same, f"split {name!r} differs from one loading to the next; sort the files, seed what is drawn")


@contextlib.contextmanager
def _place(subject: Subject) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder with data, and the options: the person's own, else the example's, else an empty one."""
    with tempfile.TemporaryDirectory() as folder:
        yield subject.root or Path(folder), subject.options_in(Path(folder))


@contextlib.contextmanager
def _opened(subject: Subject) -> Iterator[Dataset]:
    with _place(subject) as (root, options):
        yield _dataset(subject, root, options)


def _dataset(subject: Subject, root: Path, options: dict[str, Any]) -> Dataset:
    has_data = subject.root is not None or hasattr(subject.load(), "example")
    try:
        with contextlib.nullcontext() if has_data else offline():
            dataset = subject.load()(root, **options)
    except DataError as error:
        if has_data:
            raise
        reason = f"there are no data to check it with: hand over a root, or give the plugin an `example` ({error})"
        raise Unsupported(reason) from error
    expect(isinstance(dataset, Dataset), f"it returns {type(dataset).__name__}, not a bench.kinds.Dataset")
    fits = "train" in dataset.splits and set(dataset.splits) <= set(SPLITS)
    expect(
        fits, f"its splits are {', '.join(dataset.splits) or 'none'}; train is needed, {', '.join(SPLITS)} are allowed"
    )
    return dataset  # type: ignore[no-any-return]  # checked above


def _identities(split: Split) -> list[str]:
    """The samples' ids, or the files that stand for them; of an array without ids none: the core numbers it."""
    if split.ids is not None:
        return list(split.ids)
    return [] if isinstance(split.images, np.ndarray) else [path.as_posix() for path in split.images]


def _same_images(one: NDArray[np.uint8] | Sequence[Path], other: NDArray[np.uint8] | Sequence[Path]) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        rows = _spread(min(len(one), len(other)))
        return one.shape == other.shape and np.array_equal(one[rows], other[rows])
    return list(one) == list(other)


def _spread(count: int) -> list[int]:
    return sorted(set(np.linspace(0, count - 1, min(count, _SAMPLES)).astype(int).tolist()))


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
)
