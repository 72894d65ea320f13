"""Photographs of people who smoke and who do not, in the layouts in which the dataset is handed round."""

import re
from collections.abc import Sequence
from pathlib import Path

from bench.errors import DataError
from bench.kinds import Dataset, Split
from bench_plugins.datasets._files import folders_in, image_files, write_examples
from bench_plugins.datasets._problems import Problems
from bench_plugins.datasets.image_folder import SPELLINGS

__all__ = ["CLASSES", "smoking"]

CLASSES = ("not smoking", "smoking")

_LABELS = {"notsmoking": 0, "smoking": 1}

UNKNOWN = "images that are neither in a class folder nor called after a class"
CONTRADICTION = "images in the folder of one class that are called after the other"
EMPTY = "classes without images"
SOURCE = 'Khan 2020, "Dataset containing smoking and not-smoking images", data.mendeley.com'
REMEDIES = {
    UNKNOWN: "put them into folders called 'smoking' and 'not smoking', or call them smoking_0001.jpg and "
    "notsmoking_0001.jpg",
    CONTRADICTION: "look at them and move or rename them",
    EMPTY: f"get the complete dataset: {SOURCE}",
}


def smoking(root: Path) -> Dataset:
    """Smoking: photographs of smokers and others, 2 classes.

    Splits are the folders root/Training, root/Validation and root/Testing (in any case, and also doubled, as in
    Training/Training). Each holds the folders "smoking" and "not smoking" (notsmoking, not_smoking), or files called
    smoking_0001.jpg and notsmoking_0001.jpg, or both. Without Testing, Validation is the test split and the core holds
    out another for validation. A root without any of these folders is one set, which the core divides.

    Raises DataError for a folder that is missing or ambiguous, a split without images of a class, and images that fit
    neither form or contradict themselves, counted and listed. Source: Khan 2020, "Dataset containing smoking and
    not-smoking images (smoker vs non-smoker)", Mendeley Data.
    """
    folders = _split_folders(root)
    problems = Problems(REMEDIES)
    splits = {split: _read(root, name, problems) for split, name in folders.items()}
    if not any(len(split.images) for split in splits.values()) and not problems.found.get(UNKNOWN):
        raise DataError(f"{root} holds no images", hint=f"set dataset.root to the folder of {SOURCE}")
    problems.check(root)
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    return Dataset(classes=CLASSES, splits=splits)


def _split_folders(root: Path) -> dict[str, str]:
    """Split -> the name of its folder below root ("" for root itself)."""
    folders: dict[str, str] = {}
    for split, spellings in SPELLINGS.items():
        found = [name for name in folders_in(root) if name.lower() in spellings]
        if len(found) > 1:
            message = f"{root} has more than one folder for {split}: {', '.join(found)}"
            raise DataError(message, hint="keep one of them")
        if found:
            folders[split] = found[0]
    if folders and "train" not in folders:
        message = f"{root} has no folder Training beside {', '.join(folders.values())}"
        raise DataError(message, hint=f"get the complete dataset: {SOURCE}")
    return folders or {"train": ""}


def _read(root: Path, name: str, problems: Problems) -> Split:
    ids: list[str] = []
    labels: list[int] = []
    for file in image_files(root / name):
        *folders, last = file.split("/")
        if folders and folders[0].lower() == name.lower():
            del folders[0]
        label = _label(folders, last)
        if isinstance(label, str):
            problems.add(label, str(root / name / file))
        else:
            ids.append(f"{name}/{file}".lstrip("/"))
            labels.append(label)
    for label, class_name in enumerate(CLASSES):
        if label not in labels:
            problems.add(EMPTY, f"{root / name}: {class_name}")
    return Split([root / one for one in ids], labels, ids)


def _label(folders: Sequence[str], name: str) -> int | str:
    """The label of an image, or the kind of fault: its folder decides, and its name must not say the opposite."""
    by_name = _LABELS.get(_plain(re.sub(r"[ _-]*\d+\.\w+$", "", name)))
    if not folders:
        return UNKNOWN if by_name is None else by_name
    by_folder = _LABELS.get(_plain(folders[0]))
    if by_folder is None or len(folders) > 1:
        return UNKNOWN
    return by_folder if by_name in {None, by_folder} else CONTRADICTION


def _plain(name: str) -> str:
    return re.sub(r"[ _-]", "", name.lower())


def _example(folder: Path) -> dict[str, object]:
    for brightness, class_name in ((60, "not smoking"), (180, "smoking")):
        write_examples(folder / "Training" / class_name, count=8, brightness=brightness)
        stem = class_name.replace(" ", "")
        for number, image in enumerate(write_examples(folder / "aside", count=4, brightness=brightness)):
            flat = folder / "Validation" / f"{stem}_{number:04d}.png"
            flat.parent.mkdir(exist_ok=True)
            image.rename(flat)
    (folder / "aside").rmdir()
    return {}


smoking.example = _example  # type: ignore[attr-defined]  # the conformance checks look for this attribute
