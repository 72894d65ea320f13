"""What the checks of datasets share: a dataset opened on data of its own, its samples and their names."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import DataError, Unsupported
from bench.kinds import SPLITS, Dataset, Split
from bench.testing._subject import Subject, expect, offline

__all__ = ["ids_of", "opened", "place", "read_dataset", "samples_of", "spread"]

#: Images that are decoded or compared in each split, spread over all of it.
_SAMPLES = 64


@contextlib.contextmanager
def place(subject: Subject) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder with data, and the options: the person's own, else the example's, else an empty one."""
    with tempfile.TemporaryDirectory() as folder:
        yield subject.root or Path(folder), subject.options_in(Path(folder))


@contextlib.contextmanager
def opened(subject: Subject) -> Iterator[Dataset]:
    """The dataset, while its files are there."""
    with place(subject) as (root, options):
        yield read_dataset(subject, root, options)


def read_dataset(subject: Subject, root: Path, options: dict[str, Any]) -> Dataset:
    """Call the plugin. Raises Unsupported where there are no data to call it with."""
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


def samples_of(split: Split) -> tuple[int, str]:
    """How many samples a split has, and what they are: "images" or "pairs"."""
    return (len(split.images), "images") if split.pairs is None else (len(split.pairs), "pairs")


def ids_of(split: Split) -> list[str]:
    """The samples' ids, or the files that stand for them; none where the core makes them (arrays, pairs)."""
    if split.ids is not None:
        return list(split.ids)
    made = isinstance(split.images, np.ndarray) or split.pairs is not None
    return [] if made else [path.as_posix() for path in split.images]


def spread(count: int) -> list[int]:
    """Up to 64 positions, spread over all of `count`."""
    return sorted(set(np.linspace(0, count - 1, min(count, _SAMPLES)).astype(int).tolist()))
