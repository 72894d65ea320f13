"""Images in one folder a class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from bench.errors import DataError
from bench.kinds import SPLITS, Dataset, Split
from bench.registry import near_miss
from bench_plugins.datasets._files import EXTENSIONS, folders_in, image_files, write_examples

__all__ = ["image_folder"]

#: The usual names of a split's folder, in small letters.
SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def image_folder(
    root: Path,
    *,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    channels: Literal[1, 3] = 3,
    extensions: tuple[str, ...] = EXTENSIONS,
) -> Dataset:
    """Your own images, one folder a class: train/CLASS/image.jpg.

    `train`, `validation` and `test` name the folders below root; one that is not named is found by its usual
    spellings (train, training; val, valid, validation; test, testing; in any case). Without a folder for training,
    root/CLASS/image.jpg is one set, which the core divides. Classes are the sorted names of the class folders; images
    in folders below them belong to them. Files without one of the extensions and hidden ones are passed over.
    `channels = 1` reads the images in grey.

    Raises DataError for a folder that is missing or ambiguous, a class without images, and splits whose classes
    differ.
    """
    folders = _split_folders(root, {"train": train, "validation": validation, "test": test})
    listed = {split: _classes_of(root / name) for split, name in folders.items()}
    classes = listed["train"]
    _check_classes(root, folders, listed)
    splits = {split: _read(root, name, classes, extensions) for split, name in folders.items()}
    return Dataset(classes=tuple(classes), splits=splits, channels=channels)


def _split_folders(root: Path, named: Mapping[str, str | None]) -> dict[str, str]:
    """Split -> the name of its folder below root ("" for root itself)."""
    present = folders_in(root)
    for option, name in named.items():
        if name is not None and not (root / name).is_dir():
            message = f"there is no folder {root / name} ({option} = {name!r}){near_miss(name, present)}"
            raise DataError(message, hint=f"folders in {root}: {', '.join(present) or 'none'}")
    folders = {split: name for split, name in named.items() if name is not None}
    if len({(root / name).resolve() for name in folders.values()}) < len(folders):
        message = f"two splits are the same folder of {root}: {', '.join(folders.values())}"
        raise DataError(message, hint="name a folder of its own for each, or only train: the core divides it")
    free = [name for name in present if name not in folders.values()]
    for split in SPLITS:
        found = [name for name in free if name.lower() in SPELLINGS[split]]
        if split in folders or not found:
            continue
        if len(found) > 1:
            message = f"{root} has more than one folder for {split}: {', '.join(found)}"
            raise DataError(message, hint=f"name one: --set dataset.{split}={found[0]}")
        folders[split] = found[0]
    if "train" in folders:
        return folders
    # Without a folder for training, one called "valid" may well be a class.
    if any(named.values()) or (present and set(present) <= set(folders.values())):
        message = f"{root} has no folder for training among: {', '.join(present)}"
        raise DataError(message, hint="name it: --set dataset.train=FOLDER")
    return {"train": ""}


def _classes_of(folder: Path) -> list[str]:
    classes = folders_in(folder)
    if len(classes) < 2:  # noqa: PLR2004 -- fewer classes are nothing to tell apart
        message = f"{folder} holds {len(classes)} class folders ({', '.join(classes) or 'none'}); at least 2 are needed"
        hint = "put the images of each class in a folder of its name; where a table names the labels, use image_csv"
        raise DataError(message, hint=hint)
    return classes


def _check_classes(root: Path, folders: Mapping[str, str], listed: Mapping[str, list[str]]) -> None:
    known = set().union(*listed.values())
    lacking = [
        f"{root / folders[split]} lacks {', '.join(sorted(known.difference(classes)))}"
        for split, classes in listed.items()
        if known.difference(classes)
    ]
    if lacking:
        message = f"the splits do not have the same classes: {'; '.join(lacking)}"
        raise DataError(message, hint="add the missing class folders with images, or rename those that are misspelt")


def _read(root: Path, name: str, classes: list[str], extensions: tuple[str, ...]) -> Split:
    ids: list[str] = []
    labels: list[int] = []
    for label, class_name in enumerate(classes):
        folder = root / name / class_name
        files = image_files(folder, extensions=extensions)
        if not files:
            message = f"the class folder {folder} holds no images ({' '.join(extensions)})"
            raise DataError(message, hint="add images to it or remove the folder from every split")
        prefix = (Path(name) / class_name).as_posix()
        ids += [f"{prefix}/{file}" for file in files]
        labels += [label] * len(files)
    return Split(images=[root / identity for identity in ids], labels=labels, ids=ids)


def _example(folder: Path) -> dict[str, object]:
    for split, count in (("Training", 8), ("Validation", 4)):
        for brightness, class_name in ((60, "dark"), (130, "half bright"), (200, "hell & weiß")):
            write_examples(folder / split / class_name, count=count, brightness=brightness)
    return {"test": "Validation"}


image_folder.example = _example  # type: ignore[attr-defined]  # the conformance checks look for this attribute
