"""Call a dataset plugin and check what it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError, DataError, PluginError
from bench.kinds import SPLITS, Dataset, Split
from bench.stages.pairs import check_folds, check_groups, check_pairs

__all__ = ["open_dataset"]


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
        if dataset.task == "verification":
            check_pairs(split_name, split, dataset)
        _check_labels(split_name, split, dataset.classes)
        check_folds(split_name, split, len(split.labels))
    if dataset.splits["train"].folds is not None and len(dataset.splits) > 1:
        raise PluginError(f"dataset plugin {name!r}: with folds there is one split, train, not {list(dataset.splits)}")
    check_groups(dataset.splits)
    return dataset


def _check_labels(name: str, split: Split, classes: Sequence[str]) -> None:
    labels = np.asarray(split.labels)
    samples, what = (split.images, "images") if split.pairs is None else (split.pairs, "pairs")
    if len(labels) != len(samples):
        raise DataError(f"split {name!r}: {len(samples)} {what} but {len(labels)} labels")
    if not len(labels):
        raise DataError(f"split {name!r} is empty")
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise PluginError(f"split {name!r}: labels must be integers, one an image, not {labels.dtype} {labels.shape}")
    for entries, values, each, of in (
        ("ids", split.ids, samples, what),
        ("groups", split.groups, split.images, "images"),
        ("boxes", split.boxes, split.images, "images"),
    ):
        if values is not None and len(values) != len(each):
            raise PluginError(f"split {name!r}: {len(each)} {of} but {len(values)} {entries}")
    _check_boxes(name, split)
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        first = outside[0]
        raise DataError(
            f"split {name!r}: {len(outside)} labels out of range, first {labels[first]} at sample {first}; "
            f"{len(classes)} classes allow 0..{len(classes) - 1}",
            hint="repair the labels",
        )


def _check_boxes(name: str, split: Split) -> None:
    if split.boxes is None:
        return
    boxes = np.asarray(split.boxes)
    if boxes.shape != (len(split.images), 4) or boxes.dtype.kind not in "iu":
        raise PluginError(f"split {name!r}: boxes must be integers N,4, not {boxes.dtype} {boxes.shape}")
    if isinstance(split.images, np.ndarray):
        raise PluginError(f"split {name!r}: boxes cut files; cut the array itself")
