"""Which images the core would hold out, found without decoding them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.exploration.survey import Survey
    from bench.tables import Data as DataTable

__all__ = ["divided"]


def divided(survey: Survey, table: DataTable) -> tuple[Survey, dict[str, dict[str, int]]]:
    """The survey with the parts that a run would use, and split -> class -> number of samples.

    Images that cannot be read are left out. Of a dataset with folds, the counts are those of the run for the first
    fold, and the parts stay the folds. Raises BenchError where the dataset cannot be divided.
    """
    from bench.stages.divide import divide
    from bench.stages.image_set import ImageSet, image_ids
    from bench.stages.pairs import pair_ids

    dataset = survey.dataset
    bad = np.array([bool(look.reason) for look in survey.looks])
    of_split = np.array(survey.splits)
    sets, usable = {}, {}
    for name, split in dataset.splits.items():
        names = image_ids(name, split, survey.root)
        rows = np.arange(len(names)) if split.pairs is None else np.asarray(split.pairs, dtype=np.int64)
        ids = tuple(names) if split.pairs is None else pair_ids(rows, names)
        whole = ImageSet(np.zeros((1, 1, 1, 1), dtype=np.uint8), rows, np.asarray(split.labels, dtype=np.int64), ids)
        usable[name] = np.flatnonzero(~bad[of_split == name][rows].reshape(len(rows), -1).any(1))
        sets[name] = whole.take(usable[name])
    names = image_ids("train", dataset.splits["train"], survey.root)
    final = divide(sets, dataset, table, usable=usable["train"], image_ids=names)
    counts: dict[str, dict[str, int]] = {
        name: dict(
            zip(
                dataset.classes,
                np.bincount(final[name].labels, minlength=len(dataset.classes)).tolist(),
                strict=True,
            )
        )
        for name in ("train", "validation", "test")
        if name in final
    }
    if dataset.splits["train"].folds is not None:
        return survey, counts
    made = {name: images.distinct_rows() for name, images in final.items() if name not in dataset.splits}
    return replace(survey, parts=_parts(survey, made)), counts


def _parts(survey: Survey, made: Mapping[str, NDArray[np.int64]]) -> tuple[str, ...]:
    """What each image is used for; `made` holds the positions of the training images in the splits made of them."""
    new = {row: name for name, rows in made.items() for row in rows.tolist()}
    return tuple(
        new.get(position, part) if split == "train" else part
        for split, part, position in zip(survey.splits, survey.parts, survey.positions.tolist(), strict=True)
    )
