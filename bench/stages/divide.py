"""From the splits that a dataset brings to those that a run needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.stages.image_set import ImageSet
from bench.stages.pairs import PairTable, hold_out_pairs
from bench.stages.splits import hold_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.kinds import Dataset
    from bench.tables import Data as DataTable

__all__ = ["divide"]


def divide(
    sets: Mapping[str, ImageSet],
    dataset: Dataset,
    table: DataTable,
    *,
    usable: NDArray[np.int64],
    image_ids: Sequence[str],
    fold: int = 0,
) -> dict[str, ImageSet]:
    """All splits: a fold for the test where the dataset has folds, and what it does not bring held out.

    `usable` are the positions of the training samples among those that the dataset gave, `image_ids` the names of its
    training images.
    """
    split = dataset.splits["train"]
    given = set(dataset.splits)
    if split.folds is not None:
        folds = np.asarray(split.folds)[usable]
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        sets = {"train": sets["train"].take(train), "test": sets["train"].take(test)}
        usable, given = usable[train], given | {"test"}
    shares = {
        name: share
        for name, share in (("test", table.test), ("validation", table.validation))
        if name not in given and share
    }
    if split.groups is None:
        numbers = None
    else:
        numbers = np.unique(np.asarray(split.groups), return_inverse=True)[1].astype(np.int64)
    if dataset.task == "verification":
        assert numbers is not None  # noqa: S101  # open_dataset has seen to it
        return {**sets, **_divide_pairs(sets["train"], shares, numbers, image_ids, table.split_seed)}
    groups = None if numbers is None else numbers[usable]
    return {**sets, **_divide(sets["train"], shares, groups, dataset, table)}


def _divide(
    images: ImageSet,
    shares: Mapping[str, float],
    groups: NDArray[np.int64] | None,
    dataset: Dataset,
    table: DataTable,
) -> dict[str, ImageSet]:
    """Hold out what the dataset does not bring: the test split first, then the validation split."""
    parts = {"train": images}
    if groups is not None:
        groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    for other, share in shares.items():
        remaining = parts["train"]
        kept, held = hold_out(remaining.labels, share, seed=table.split_seed, classes=dataset.classes, groups=groups)
        parts |= {"train": remaining.take(kept), other: remaining.take(held)}
        groups = None if groups is None else groups[kept]
    return parts


def _divide_pairs(
    images: ImageSet, shares: Mapping[str, float], identities: NDArray[np.int64], ids: Sequence[str], seed: int
) -> dict[str, ImageSet]:
    """The same for pairs: whole identities are held out."""
    parts = {"train": images}
    for other, share in shares.items():
        remaining = PairTable(parts["train"].rows, parts["train"].labels, parts["train"].ids)
        for name, pairs in zip(
            ("train", other),
            hold_out_pairs(remaining, share, identities=identities, image_ids=ids, seed=seed),
            strict=True,
        ):
            parts[name] = ImageSet(images.images, *pairs)
    return parts
