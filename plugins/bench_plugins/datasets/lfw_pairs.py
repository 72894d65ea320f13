"""Labeled Faces in the Wild: whether two photographs show one person."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
from PIL import Image
from pydantic import Field

from bench.errors import DataError
from bench.kinds import PAIR_CLASSES, Dataset, Split
from bench_plugins.datasets import _pairs
from bench_plugins.datasets._files import folders_in
from bench_plugins.datasets._pairs import Pair, Photo, draw_pairs, read_pairs
from bench_plugins.datasets._problems import Problems

__all__ = ["lfw_pairs"]

LISTS: Mapping[str, tuple[str, ...]] = {
    "train": ("pairsDevTrain.txt", "train.txt"),
    "test": ("pairsDevTest.txt", "test.txt"),
    "folds": ("pairs.txt",),
}
FOLDERS = ("lfw", "lfw-deepfunneled", "lfw-funneled", "lfw_funneled")
SOURCE = (
    "vis-www.cs.umass.edu/lfw: lfw.tgz and, for view 1, pairsDevTrain.txt and pairsDevTest.txt; for view 2 pairs.txt"
)

MISSING = "photographs that a list names and that do not exist"
TWO_SPLITS = "persons in both training and test"
TWO_FOLDS = "persons in more than one fold"
REMEDIES = {
    **_pairs.REMEDIES,
    MISSING: f"name the folder that holds NAME/NAME_0001.jpg: --set dataset.images=FOLDER; or get them from {SOURCE}",
    TWO_SPLITS: "use lists that share no person: what is trained on a person says nothing about strangers",
    TWO_FOLDS: "use lists whose folds share no person: what is trained on a person says nothing about strangers",
}
NUM_LINES = 5

#: A position on one side of a photograph, in pixels.
Side: TypeAlias = Annotated[int, Field(ge=0)]


def lfw_pairs(
    root: Path,
    *,
    view: Literal[1, 2] = 1,
    train: str = "",
    test: str = "",
    images: str = "",
    extra_pairs: Annotated[int, Field(ge=0)] = 0,
    pair_seed: Annotated[int, Field(ge=0)] = 0,
    box: tuple[Side, Side, Side, Side] | None = None,
) -> Dataset:
    """Labeled Faces in the Wild: pairs of faces, same or different.

    View 1, for developing a model, has the splits "train" and "test": pairsDevTrain.txt and pairsDevTest.txt (or
    train.txt and test.txt of the same form), or the lists that `train` and `test` name. View 2, for reporting, has the
    10 folds of pairs.txt (or of `train`) and no test split. Photographs are NAME/NAME_0001.jpg in root/lfw,
    root/lfw-deepfunneled, root/lfw_funneled, root itself or the folder `images`; `channels` is 1 where the first is grey.
    Groups are the persons. `box` (left, top, right, bottom in pixels) cuts every photograph to its face before it is
    resized.

    `extra_pairs` adds, for view 1, as many further pairs of one person and of two, formed of the training photographs
    with `pair_seed` (the protocol that LFW calls unrestricted); results with and without it are not comparable.

    Raises DataError, with everything that is wrong counted and the first faults listed: photographs that do not exist,
    lines that cannot be read or appear twice, counts that are not those of a list's first line, a photograph paired with
    itself, and persons in two splits or folds. Source: Huang et al. 2007, "Labeled Faces in the Wild",
    vis-www.cs.umass.edu/lfw.
    """
    problems = Problems(REMEDIES)
    folds = view == 2  # noqa: PLR2004 -- LFW calls them view 1 and 2
    if folds:
        if test or extra_pairs:
            message = f"view 2 has folds instead of a test list and takes {'no test' if test else 'no extra_pairs'}"
            raise DataError(message, hint="leave it out, or set view = 1")
        files = {"train": _list_in(root, "folds", train)}
    else:
        files = {"train": _list_in(root, "train", train), "test": _list_in(root, "test", test)}
    pairs = {split: read_pairs(file, problems, folds=folds) for split, file in files.items()}
    folder = _folder_of(root, images, pairs["train"])
    for split, file in files.items():
        _check_photos(folder, file, pairs[split], problems)
    _check_persons(pairs, problems)
    problems.check(root)
    if extra_pairs:
        pairs["train"] += draw_pairs(pairs["train"], extra_pairs, seed=pair_seed)
    if box:
        _check_box(box, _path(folder, pairs["train"][0].first))
    splits = {split: _to_split(folder, found, folds=folds, box=box) for split, found in pairs.items()}
    return Dataset(PAIR_CLASSES, splits, _channels(splits["train"]), "verification")


def _list_in(root: Path, kind: str, name: str) -> Path:
    """The list of pairs that an option names, or the one of a usual name."""
    names = (name,) if name else LISTS[kind]
    found = next((root / one for one in names if (root / one).is_file()), None)
    if found is not None:
        return found
    option = "test" if kind == "test" else "train"
    hint = f"get it from {SOURCE}; or name another: --set dataset.{option}=FILE"
    raise DataError(f"{root} has no list of pairs {' or '.join(names)}", hint=hint)


def _folder_of(root: Path, images: str, pairs: Sequence[Pair]) -> Path:
    """The folder that holds a folder for each person."""
    if images:
        if not (root / images).is_dir():
            hint = f"folders in {root}: {', '.join(folders_in(root)) or 'none'}"
            raise DataError(f"there is no folder {root / images} (images = {images!r})", hint=hint)
        return root / images
    found = [name for name in FOLDERS if (root / name).is_dir()]
    if len(found) > 1:
        message = f"{root} has more than one folder of photographs: {', '.join(found)}"
        raise DataError(message, hint=f"name one: --set dataset.images={found[0]}")
    if found:  # some archives hold the folder twice, one in the other
        return next((place for place in (root / found[0] / found[0],) if place.is_dir()), root / found[0])
    if pairs and not any((root / identity).is_dir() for identity in {pair.first.identity for pair in pairs}):
        message = f"{root} holds no photographs (looked for {', '.join(FOLDERS)} and for folders of persons)"
        raise DataError(message, hint=REMEDIES[MISSING])
    return root


def _check_photos(folder: Path, file: Path, pairs: Sequence[Pair], problems: Problems) -> None:
    lines: dict[Photo, list[int]] = {}
    for pair in pairs:
        for photo in {pair.first, pair.second}:
            lines.setdefault(photo, []).append(pair.line)
    for photo, places in lines.items():
        path = _path(folder, photo)
        if not os.path.isfile(path):  # noqa: PTH113 -- Path.is_file raises for names that are too long
            more = f" and {len(places) - NUM_LINES} more" if len(places) > NUM_LINES else ""
            told = f"line{'s' if len(places) > 1 else ''} {', '.join(map(str, places[:NUM_LINES]))}{more}"
            problems.add(MISSING, f"{path} ({file.name}, {told})")


def _check_persons(pairs: Mapping[str, Sequence[Pair]], problems: Problems) -> None:
    train = _persons(pairs["train"])
    for person in sorted(train & _persons(pairs.get("test", ()))):
        problems.add(TWO_SPLITS, person)
    folds: dict[str, set[int]] = {}
    for pair in pairs["train"]:
        for person in (pair.first.identity, pair.second.identity):
            folds.setdefault(person, set()).add(pair.fold)
    for person, where in sorted(folds.items()):
        if len(where) > 1:
            problems.add(TWO_FOLDS, f"{person}: folds {', '.join(str(fold + 1) for fold in sorted(where))}")


def _persons(pairs: Iterable[Pair]) -> set[str]:
    return {photo.identity for pair in pairs for photo in (pair.first, pair.second)}


def _to_split(folder: Path, pairs: Sequence[Pair], *, folds: bool, box: tuple[int, int, int, int] | None) -> Split:
    position: dict[Photo, int] = {}
    for pair in pairs:
        for photo in (pair.first, pair.second):
            position.setdefault(photo, len(position))
    return Split(
        images=[_path(folder, photo) for photo in position],
        labels=[int(pair.same) for pair in pairs],
        ids=[f"{pair.first.name} {pair.second.name}" for pair in pairs],
        groups=[photo.identity for photo in position],
        pairs=np.array([(position[pair.first], position[pair.second]) for pair in pairs], dtype=np.int64),
        folds=[pair.fold for pair in pairs] if folds else None,
        boxes=np.tile(np.array(box), (len(position), 1)) if box else None,
    )


def _check_box(box: tuple[int, int, int, int], photo: Path) -> None:
    """Raise DataError for a box that is empty or not inside the first photograph; all are of one size."""
    left, top, right, bottom = box
    try:
        with Image.open(photo) as image:
            width, height = image.size
    except OSError:  # a damaged one is the core's to report
        width, height = right, bottom
    if not (left < right <= width and top < bottom <= height):
        raise DataError(
            f"box = {list(box)} is no part of the {width} x {height} pixels of {photo.name}",
            hint="give left, top, right, bottom: --set dataset.box=[65,50,185,206]",
        )


def _path(folder: Path, photo: Photo) -> Path:
    return folder / photo.identity / f"{photo.name}.jpg"


def _channels(split: Split) -> Literal[1, 3]:
    """1 where the first photograph is grey; a damaged one is the core's to report."""
    try:
        with Image.open(split.images[0]) as image:
            return 1 if image.mode in {"L", "1", "LA", "I;16"} else 3
    except (OSError, ValueError, SyntaxError):
        return 3


def _example(folder: Path) -> dict[str, object]:
    generator = np.random.default_rng(0)
    for name, persons in (("pairsDevTrain.txt", range(12)), ("pairsDevTest.txt", range(12, 18))):
        for person in persons:
            place = folder / "lfw" / f"Person_{person}"
            place.mkdir(parents=True)
            for number in (1, 2, 3):
                pixels = (12 * person + generator.integers(0, 40, size=(16, 16))).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"Person_{person}_{number:04d}.jpg")
        same = [f"Person_{person}\t1\t2" for person in persons]
        different = [
            f"Person_{person}\t1\tPerson_{persons[position - 1]}\t3" for position, person in enumerate(persons)
        ]
        (folder / name).write_text("\n".join([str(len(persons)), *same, *different]), encoding="utf-8")
    return {"extra_pairs": 4}


lfw_pairs.example = _example  # type: ignore[attr-defined]  # the conformance checks look for this attribute
