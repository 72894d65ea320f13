"""Smoking: the layouts that are handed round, and the images that fit none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.errors import DataError
from bench_plugins.datasets.smoking import CLASSES, smoking


def add(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def add_flat(folder: Path, *, count: int = 1) -> None:
    add(folder, *(f"{stem}_{n:04d}.jpg" for stem in ("smoking", "notsmoking") for n in range(1, count + 1)))


def fault(root: Path) -> tuple[str, str]:
    """The message and the hint of the error."""
    with pytest.raises(DataError) as error:
        smoking(root)
    assert error.value.hint is not None
    return str(error.value), error.value.hint


@pytest.mark.parametrize("other", ["not smoking", "notsmoking", "not_smoking", "Not Smoking"])
def test_class_folders(tmp_path: Path, other: str) -> None:
    for split in ("Training", "Validation"):
        add(tmp_path / split / "smoking", "a.jpg", "smoking_0002.jpg")
        add(tmp_path / split / other, "notsmoking_0001.jpg", "Thumbs.db", ".hidden.jpg")
    dataset = smoking(tmp_path)
    train = dataset.splits["train"]
    assert dataset.classes == CLASSES == ("not smoking", "smoking")
    assert (dataset.task, dataset.channels, list(dataset.splits)) == ("classification", 3, ["train", "test"])
    named = dict(zip(train.ids or (), train.labels, strict=True))
    assert named == {
        f"Training/{other}/notsmoking_0001.jpg": 0,
        "Training/smoking/a.jpg": 1,
        "Training/smoking/smoking_0002.jpg": 1,
    }
    assert list(train.images) == [tmp_path / name for name in train.ids or ()]


def test_flat_files_and_folders_may_be_mixed(tmp_path: Path) -> None:
    add_flat(tmp_path / "Training", count=2)
    add(tmp_path / "Training" / "smoking", "smoking_0003.JPG")
    add(tmp_path / "Validation", "smoking_0001.jpg", "not_smoking_0002.jpg", "Not Smoking 3.png")
    splits = smoking(tmp_path).splits
    assert dict(zip(splits["test"].ids or (), splits["test"].labels, strict=True)) == {
        "Validation/Not Smoking 3.png": 0,
        "Validation/not_smoking_0002.jpg": 0,
        "Validation/smoking_0001.jpg": 1,
    }
    assert sorted(splits["train"].labels) == [0, 0, 1, 1, 1]


def test_with_testing_there_are_three_splits(tmp_path: Path) -> None:
    for split in ("training", "VALIDATION", "Testing"):
        add_flat(tmp_path / split)
    splits = smoking(tmp_path).splits
    assert {name: (split.ids or ("",))[0] for name, split in splits.items()} == {
        "train": "training/notsmoking_0001.jpg",
        "validation": "VALIDATION/notsmoking_0001.jpg",
        "test": "Testing/notsmoking_0001.jpg",
    }


def test_doubled_folders(tmp_path: Path) -> None:
    add_flat(tmp_path / "Training" / "Training")
    for class_name in ("smoking", "notsmoking"):
        add(tmp_path / "Testing" / "testing" / class_name, "1.jpg")
    splits = smoking(tmp_path).splits
    assert next(iter(splits["train"].ids or ())) == "Training/Training/notsmoking_0001.jpg"
    assert list(splits["test"].ids or ())[1] == "Testing/testing/smoking/1.jpg"
    assert list(splits["test"].labels) == [0, 1]


@pytest.mark.parametrize("folders", [False, True])
def test_everything_in_one_folder_is_for_training(tmp_path: Path, *, folders: bool) -> None:
    if folders:
        for class_name in CLASSES:
            add(tmp_path / class_name, "1.jpg")
    else:
        add_flat(tmp_path)
    splits = smoking(tmp_path).splits
    assert list(splits) == ["train"]
    assert list(splits["train"].labels) == [0, 1]
    assert list(splits["train"].images) == [tmp_path / name for name in splits["train"].ids or ()]


def test_images_that_fit_no_form_are_counted_and_listed(tmp_path: Path) -> None:
    add_flat(tmp_path / "Training")
    add_flat(tmp_path / "Validation")
    add(tmp_path / "Training", *(f"person_{number:02d}.jpg" for number in range(21)))
    add(tmp_path / "Training" / "vaping", "1.jpg")
    add(tmp_path / "Validation" / "smoking" / "more", "1.jpg")
    message, hint = fault(tmp_path)
    assert "neither in a class folder nor called after a class: 23" in message
    assert str(tmp_path / "Training" / "person_00.jpg") in message
    assert "and 3 more" in message
    assert "notsmoking_0001.jpg" in hint


def test_images_that_contradict_their_folder(tmp_path: Path) -> None:
    add_flat(tmp_path)
    add(tmp_path / "smoking", "notsmoking_0007.jpg")
    message, hint = fault(tmp_path)
    assert f"called after the other: 1\n    {tmp_path / 'smoking' / 'notsmoking_0007.jpg'}" in message
    assert "move or rename" in hint


def test_a_split_without_a_class(tmp_path: Path) -> None:
    add_flat(tmp_path / "Training")
    add(tmp_path / "Validation", "smoking_0001.jpg")
    message, hint = fault(tmp_path)
    assert f"classes without images: 1\n    {tmp_path / 'Validation'}: not smoking" in message
    assert "data.mendeley.com" in hint


def test_missing_and_ambiguous_folders(tmp_path: Path) -> None:
    assert "holds no images" in fault(tmp_path)[0]
    assert "cannot be read" in fault(tmp_path / "missing")[0]
    add_flat(tmp_path / "Validation")
    message, hint = fault(tmp_path)
    assert "has no folder Training beside Validation" in message
    assert "data.mendeley.com" in hint
    add_flat(tmp_path / "Training")
    add_flat(tmp_path / "train")
    message, hint = fault(tmp_path)
    assert "more than one folder for train: Training, train" in message
    assert hint == "keep one of them"


@pytest.mark.real_data
def test_real_smoking_has_940_and_180_images() -> None:
    splits = smoking(Path(os.environ["BENCH_DATA"]) / "smoking").splits
    assert {name: (len(split.labels), sum(split.labels)) for name, split in splits.items()} == {
        "train": (940, 470),
        "test": (180, 90),
    }
