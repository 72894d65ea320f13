"""Right and wrong, image by image: as little as possible of the saved predictions, aligned by the images' names."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.comparison.choosing import Recorded
    from bench.comparison.model import Kind
    from bench.record import Run

__all__ = ["Answers", "Evidence", "Reader", "evidence"]

#: Recorded accuracies are those of the predictions, to rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Which images of a test set a run got right. `test_set` stands for the images' names and labels.

    `right` is in the order of the sorted names, so that it fits any other run of that test set.
    """

    test_set: str
    right: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What an entry is judged by.

    `right` counts for each image of the test set the runs that got it right, N; None for folds, whose images differ.
    `accuracies` are those of each seed, or of each fold (several seeds of one are averaged: they share their images).
    """

    kind: Kind
    test_set: str
    samples: int
    right: NDArray[np.int64] | None
    accuracies: Mapping[int, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Images:
    """The names and labels of a file: what they come to, the labels as saved, and the order of the sorted names."""

    digest: str
    labels: NDArray[np.int64]
    order: NDArray[np.intp]


@dataclass(slots=True)
class Reader:
    """Reads predictions. Names and labels are read once for all files that hold the same, as their CRCs tell."""

    split: str
    _known: dict[Any, _Images] = field(default_factory=dict)

    def read(self, run: Run, *, accuracy: float) -> Answers:
        """A run's answers. Raises BenchError where its predictions are missing, damaged, or not those of `accuracy`."""
        path = run.folder / "predictions" / f"{self.split}.npz"
        if not path.is_file():
            raise BenchError(f"no predictions of its {self.split} split")
        try:
            # numpy leaves a damaged file open that it has opened itself
            with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
                images = self._images(saved)
                guesses = saved["guesses"]
            right = (guesses == images.labels)[images.order]
        except (OSError, ValueError, KeyError, IndexError, EOFError, zlib.error, zipfile.BadZipFile) as cause:
            raise BenchError(f"damaged predictions/{path.name}: {cause}") from cause
        if guesses.shape != images.labels.shape or not right.size:
            raise BenchError(f"damaged predictions/{path.name}: its parts differ in length")
        if abs(float(right.mean()) - accuracy) > _ROUNDING:
            raise BenchError(
                f"predictions/{path.name} is of another run: it comes to {right.mean():.4%}, run.json to {accuracy:.4%}"
            )
        return Answers(images.digest, right)

    def _images(self, saved: Any) -> _Images:
        entries = [saved.zip.getinfo(f"{name}.npy") for name in ("ids", "labels")]
        key = tuple((entry.CRC, entry.file_size) for entry in entries)
        if key not in self._known:
            self._known[key] = _images(saved["ids"], saved["labels"])
        return self._known[key]


def _images(ids: NDArray[np.str_], labels: NDArray[np.int64]) -> _Images:
    """Raises ValueError where names and labels do not belong together."""
    if ids.shape != labels.shape or ids.ndim != 1:
        raise ValueError("its parts differ in length")
    order = np.argsort(ids, kind="stable")
    names = ids[order]
    if (names[1:] == names[:-1]).any():  # no order is better than another
        order, names = np.arange(len(ids)), ids
    digest = hashlib.sha256("\0".join(names).encode())
    digest.update(labels[order].astype("<i8").tobytes())
    return _Images(digest.hexdigest(), labels, order)


def evidence(group: Sequence[Recorded], reader: Reader, *, kind: Kind, prefix: str) -> Evidence:
    """What the runs of an entry have answered. Raises BenchError where a run's predictions cannot be used."""
    found = []
    places = [(one.info.get("fold"), one.info["seed"]) for one in group]
    if twice := next((place for place in places if places.count(place) > 1), None):
        raise BenchError(f"seed {twice[1]} is there twice{'' if twice[0] is None else f' in fold {twice[0]}'}")
    for one in group:
        try:
            found.append(reader.read(one.run, accuracy=one.info["metrics"][f"{prefix}_accuracy"]))
        except BenchError as error:
            raise BenchError(f"{error} ({one.run.name})" if len(group) > 1 else str(error)) from error
    if kind == "folds":
        return _of_folds(group, found)
    if len({one.test_set for one in found}) > 1:
        raise BenchError("its seeds were tested on different images")
    right: NDArray[np.int64] = np.stack([one.right for one in found]).sum(axis=0, dtype=np.int64)
    accuracies = {one.info["seed"]: float(each.right.mean()) for one, each in zip(group, found, strict=True)}
    return Evidence(kind, found[0].test_set, len(right), right, accuracies)


def _of_folds(group: Sequence[Recorded], found: Sequence[Answers]) -> Evidence:
    """Folds are the same where each has the same images."""
    of_fold: dict[int, list[Answers]] = {}
    for one, answers in zip(group, found, strict=True):
        of_fold.setdefault(one.info["fold"], []).append(answers)
    if any(len({each.test_set for each in seeds}) > 1 for seeds in of_fold.values()):
        raise BenchError("the seeds of one fold were tested on different images")
    folds = sorted(of_fold)
    digest = hashlib.sha256(" ".join(f"{fold}:{of_fold[fold][0].test_set}" for fold in folds).encode()).hexdigest()
    accuracies = {fold: float(np.mean([each.right.mean() for each in of_fold[fold]])) for fold in folds}
    return Evidence("folds", digest, sum(len(of_fold[fold][0].right) for fold in folds), None, accuracies)
