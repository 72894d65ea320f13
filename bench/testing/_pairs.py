"""Checks for what a dataset says beyond images and labels: pairs, folds and boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.kinds import PAIR_CLASSES, Dataset, Split
from bench.testing._opening import opened, samples_of, spread
from bench.testing._subject import CheckFailed, Subject, expect

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["boxes_inside", "folds_apart", "pairs_valid"]


def pairs_valid(subject: Subject) -> None:
    """For verification there are pairs of two different images, 1 where both have one identity, else 0."""
    with opened(subject) as dataset:
        for name, split in dataset.splits.items():
            if dataset.task == "verification":
                _check_pairs(f"split {name!r}", split, dataset)
            else:
                expect(split.pairs is None, f"split {name!r} has pairs; set task = 'verification'")


def _check_pairs(where: str, split: Split, dataset: Dataset) -> None:
    expect(tuple(dataset.classes) == PAIR_CLASSES, f"the classes are {dataset.classes}; use bench.kinds.PAIR_CLASSES")
    expect(split.pairs is not None, f"{where} has no pairs, and the task is verification")
    pairs, count = np.asarray(split.pairs), len(split.images)
    fits = pairs.ndim == 2 and pairs.shape[1] == 2 and pairs.dtype.kind in "iu"  # noqa: PLR2004 - P,2
    expect(fits, f"{where}: pairs are {pairs.dtype} {pairs.shape}, not integers P,2")
    outside = np.flatnonzero(((pairs < 0) | (pairs >= count)).any(axis=1))
    expect(not len(outside), f"{where}: {len(outside)} pairs point outside its {count} images, first {outside[:1]}")
    itself = np.flatnonzero(pairs[:, 0] == pairs[:, 1])
    expect(not len(itself), f"{where}: {len(itself)} pairs are of an image with itself, first {itself[:1]}")
    twice = len(pairs) - len(np.unique(np.sort(pairs, axis=1), axis=0))
    expect(not twice, f"{where}: {twice} pairs stand there twice, in whichever order")
    if not isinstance(split.images, np.ndarray):
        expect(len(set(split.images)) == count, f"{where}: a file stands in images twice; let pairs point to one")
    expect(split.groups is not None, f"{where} has no groups: give the identity of each image")
    groups = np.asarray(split.groups)
    expect(len(groups) == count, f"{where}: {count} images, but {len(groups)} groups; they are one an image")
    same = groups[pairs[:, 0]] == groups[pairs[:, 1]]
    labels = np.asarray(split.labels)
    if labels.shape == same.shape:  # labels_match compares the counts
        wrong = np.flatnonzero(labels != same)
        expect(not len(wrong), f"{where}: the labels of {len(wrong)} pairs contradict their groups, first {wrong[:1]}")


def folds_apart(subject: Subject) -> None:
    """Folds number all training samples from 0 on, at least 2 of them, and divide no group; there is no other split."""
    with opened(subject) as dataset:
        for name, split in dataset.splits.items():
            if split.folds is None:
                continue
            expect(list(dataset.splits) == ["train"], f"split {name!r} has folds; then train is the only split")
            folds = np.asarray(split.folds)
            count, what = samples_of(split)
            expect(folds.shape == (count,), f"{count} {what}, but folds of the shape {folds.shape}; they are one each")
            present = np.unique(folds).tolist()
            numbered = len(present) > 1 and present == list(range(len(present)))
            expect(numbered, f"the folds are {present[:12]}; number at least 2 from 0 on")
            if split.groups is not None:
                _check_groups(split, folds)


def _check_groups(split: Split, folds: NDArray[np.integer]) -> None:
    groups = np.asarray(split.groups)
    samples = groups[:, None] if split.pairs is None else groups[np.asarray(split.pairs)]
    owners: dict[object, int] = {}
    for fold, members in zip(folds.tolist(), samples.tolist(), strict=True):
        for member in members:
            owner = owners.setdefault(member, fold)
            expect(owner == fold, f"group {str(member)!r} is in the folds {owner} and {fold}; keep it in one")


def boxes_inside(subject: Subject) -> None:
    """Boxes are N,4 integers, one an image file: left < right and top < bottom, inside the image."""
    from bench.images import BadImage, Decoding, decode

    with opened(subject) as dataset:
        for name, split in dataset.splits.items():
            if split.boxes is None:
                continue
            where = f"split {name!r}"
            if isinstance(split.images, np.ndarray):
                raise CheckFailed(f"{where}: boxes cut files; cut the array itself")
            boxes = np.asarray(split.boxes)
            fits = boxes.shape == (len(split.images), 4) and boxes.dtype.kind in "iu"
            expect(fits, f"{where}: {len(split.images)} images, but boxes are {boxes.dtype} {boxes.shape}, not N,4")
            empty = np.flatnonzero((boxes[:, :2] < 0).any(axis=1) | (boxes[:, 2:] <= boxes[:, :2]).any(axis=1))
            expect(not len(empty), f"{where}: {len(empty)} boxes are empty or begin before 0, first {empty[:1]}")
            for position in spread(len(split.images)):
                left, top, right, bottom = boxes[position].tolist()
                how = Decoding((32, 32), dataset.channels)
                try:
                    decode(split.images[position], how, box=(left, top, right, bottom))
                except BadImage as error:
                    raise CheckFailed(f"{split.images[position]} cannot be cut to its box: {error}") from error
