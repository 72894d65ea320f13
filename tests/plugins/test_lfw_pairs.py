"""LFW: lists, photographs and identities, further pairs, and everything that is wrong in one error."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.errors import DataError
from bench.kinds import PAIR_CLASSES, Split
from bench_plugins.datasets.lfw_pairs import lfw_pairs

TRAIN = ("2", "Ann\t1\t2", "Bob\t1\t2", "Ann\t1\tBob\t1", "Cyd\t1\tAnn\t2")
TEST = ("1", "Dan\t1\t2", "Dan\t1\tEve\t1")


def add_photos(folder: Path, *names: str, count: int = 2, mode: str = "RGB") -> None:
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            Image.new(mode, (4, 4)).save(folder / name / f"{name}_{number:04d}.jpg")


def write_list(root: Path, name: str, lines: Sequence[str]) -> None:
    (root / name).write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """View 1 of five persons with two photographs each."""
    folder = tmp_path / "data"
    add_photos(folder / "lfw", "Ann", "Bob", "Cyd", "Dan", "Eve")
    write_list(folder, "pairsDevTrain.txt", TRAIN)
    write_list(folder, "pairsDevTest.txt", TEST)
    return folder


def fault(root: Path, **options: Any) -> tuple[str, str]:
    """The message and the hint of the error."""
    with pytest.raises(DataError) as error:
        lfw_pairs(root, **options)
    assert error.value.hint is not None
    return str(error.value), error.value.hint


def pairs_of(split: Split) -> list[tuple[int, int]]:
    assert split.pairs is not None
    return [(int(first), int(second)) for first, second in split.pairs]


def test_view_1_has_each_image_once_with_its_person(root: Path) -> None:
    dataset = lfw_pairs(root)
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert (dataset.task, dataset.classes, dataset.channels) == ("verification", PAIR_CLASSES, 3)
    names = ["Ann/Ann_0001", "Ann/Ann_0002", "Bob/Bob_0001", "Bob/Bob_0002", "Cyd/Cyd_0001"]
    assert list(train.images) == [root / "lfw" / f"{name}.jpg" for name in names]
    assert list(train.groups or ()) == ["Ann", "Ann", "Bob", "Bob", "Cyd"]
    assert pairs_of(train) == [(0, 1), (2, 3), (0, 2), (4, 1)]
    assert list(train.labels) == [1, 1, 0, 0]
    assert list(train.ids or ())[2:] == ["Ann_0001 Bob_0001", "Cyd_0001 Ann_0002"]
    assert (pairs_of(test), list(test.labels), test.folds) == ([(0, 1), (0, 2)], [1, 0], None)


def test_grey_photographs_have_one_channel(root: Path) -> None:
    add_photos(root / "lfw", "Ann", mode="L")
    assert lfw_pairs(root).channels == 1
    (root / "lfw/Ann/Ann_0001.jpg").write_bytes(b"no image")
    assert lfw_pairs(root).channels == 3


def test_lists_of_other_names_and_with_blanks(root: Path) -> None:
    (root / "pairsDevTrain.txt").unlink()
    (root / "pairsDevTest.txt").rename(root / "test.txt")
    write_list(root, "train.txt", [line.replace("\t", "  ") for line in ("2", "", *TRAIN[1:], " ")])
    assert pairs_of(lfw_pairs(root).splits["train"]) == [(0, 1), (2, 3), (0, 2), (4, 1)]
    (root / "lists").mkdir()
    (root / "train.txt").rename(root / "lists/mine.txt")
    (root / "test.txt").rename(root / "lists/other.txt")
    dataset = lfw_pairs(root, train="lists/mine.txt", test="lists/other.txt")
    assert [len(split.labels) for split in dataset.splits.values()] == [4, 2]


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("lfw-deepfunneled", {}),
        ("lfw_funneled", {}),
        ("lfw-deepfunneled/lfw-deepfunneled", {}),
        ("faces/aligned", {"images": "faces/aligned"}),
    ],
)
def test_photographs_in_other_folders(root: Path, folder: str, options: dict[str, Any]) -> None:
    (root / folder).parent.mkdir(parents=True, exist_ok=True)
    (root / "lfw").rename(root / folder)
    assert lfw_pairs(root, **options).splits["train"].images[0] == root / folder / "Ann/Ann_0001.jpg"


def test_photographs_in_root_itself(root: Path) -> None:
    for person in list((root / "lfw").iterdir()):
        person.rename(root / person.name)
    (root / "lfw").rmdir()
    assert lfw_pairs(root).splits["train"].images[0] == root / "Ann/Ann_0001.jpg"


def test_folder_of_photographs_that_is_missing_or_ambiguous(root: Path) -> None:
    message, hint = fault(root, images="lfv")
    assert f"no folder {root / 'lfv'} (images = 'lfv')" in message
    assert hint == f"folders in {root}: lfw"
    (root / "lfw_funneled").mkdir()
    message, hint = fault(root)
    assert "more than one folder of photographs: lfw, lfw_funneled" in message
    assert "--set dataset.images=lfw" in hint
    (root / "lfw_funneled").rmdir()
    (root / "lfw").rename(root / "faces")
    message, hint = fault(root)
    assert "holds no photographs" in message
    assert "--set dataset.images=FOLDER" in hint


def test_missing_lists_say_where_to_get_them(root: Path) -> None:
    (root / "pairsDevTest.txt").unlink()
    message, hint = fault(root)
    assert "has no list of pairs pairsDevTest.txt or test.txt" in message
    assert "vis-www.cs.umass.edu/lfw" in hint
    assert "--set dataset.test=FILE" in hint
    message, hint = fault(root, train="tran.txt")
    assert "has no list of pairs tran.txt" in message
    assert "--set dataset.train=FILE" in hint
    assert "has no list of pairs pairs.txt" in fault(root, view=2)[0]


def test_missing_photographs_are_all_counted_with_their_lines(root: Path) -> None:
    (root / "lfw/Ann/Ann_0001.jpg").unlink()
    (root / "lfw/Eve/Eve_0001.jpg").unlink()
    message, hint = fault(root)
    assert "photographs that a list names and that do not exist: 2" in message
    assert f"{root / 'lfw/Ann/Ann_0001.jpg'} (pairsDevTrain.txt, lines 2, 4)" in message
    assert f"{root / 'lfw/Eve/Eve_0001.jpg'} (pairsDevTest.txt, line 3)" in message
    assert "--set dataset.images=FOLDER" in hint


def test_of_many_missing_photographs_the_first_20_are_shown(root: Path) -> None:
    lines = [f"Ann\t1\t{number}" for number in range(3, 28)]
    write_list(root, "pairsDevTrain.txt", ["25", *lines, *(f"Ann\t{number}\tBob\t1" for number in range(1, 26))])
    (root / "lfw/Ann/Ann_0001.jpg").unlink()
    message, _ = fault(root)
    assert "do not exist: 26" in message
    assert "Ann_0001.jpg (pairsDevTrain.txt, lines 2, 3, 4, 5, 6 and 21 more)" in message
    assert "Ann_0021.jpg" in message
    assert "Ann_0022.jpg" not in message
    assert message.endswith("and 6 more")


@pytest.mark.parametrize(
    ("line", "replacement", "told"),
    [
        (1, "Ann\t1", "line 2: 'Ann 1'"),
        (1, "Ann\t1\ttwo", "line 2: 'Ann 1 two'"),
        (1, "Ann\t0\t2", "line 2: 'Ann 0 2'"),
        (3, "Ann\t1\tBob\t1\t1", "line 4: 'Ann 1 Bob 1 1'"),
        (3, "Ann\t1\tAnn\t2", "line 4: 'Ann 1 Ann 2'"),
        (0, "two", "line 1: 'two', expected one number"),
        (0, "0", "line 1: '0', expected one number"),
        (0, "10\t300", "line 1: '10 300', expected one number"),
    ],
)
def test_lines_that_cannot_be_read(root: Path, line: int, replacement: str, told: str) -> None:
    write_list(root, "pairsDevTrain.txt", [*TRAIN[:line], replacement, *TRAIN[line + 1 :]])
    message, hint = fault(root)
    assert f"lines that cannot be read: 1\n    {root / 'pairsDevTrain.txt'}, {told}" in message
    assert "what their first line says" not in message
    assert "NAME 1 OTHER 2" in hint


def test_an_empty_list_is_an_error(root: Path) -> None:
    write_list(root, "pairsDevTest.txt", [])
    assert f"{root / 'pairsDevTest.txt'}, line 1: '', expected one number" in fault(root)[0]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (TRAIN[:-1], "2 + 2 pairs announced, 3 lines found"),
        (("3", *TRAIN[1:]), "3 + 3 pairs announced, 4 lines found"),
        ((*TRAIN[:2], "Bob\t1\tCyd\t2", *TRAIN[3:]), "1 pairs of one person and 3 of two, 2 of each announced"),
    ],
)
def test_counts_other_than_the_first_line_says(root: Path, lines: Sequence[str], told: str) -> None:
    write_list(root, "pairsDevTrain.txt", lines)
    assert f"what their first line says: 1\n    {root / 'pairsDevTrain.txt'}: {told}" in fault(root)[0]


def test_pairs_that_stand_there_twice_in_any_order(root: Path) -> None:
    lines = ("3", "Ann\t1\t2", "Bob\t1\t2", "Ann\t2\t1", "Ann\t1\tBob\t1", "Bob\t1\tAnn\t1", "Cyd\t1\tAnn\t1")
    write_list(root, "pairsDevTrain.txt", lines)
    message, hint = fault(root)
    assert "pairs that a list names twice: 2" in message
    assert "line 4: Ann_0002 and Ann_0001, as in line 2" in message
    assert "line 6: Bob_0001 and Ann_0001, as in line 5" in message
    assert hint == "remove one of the lines"


def test_a_photograph_paired_with_itself(root: Path) -> None:
    write_list(root, "pairsDevTest.txt", (TEST[0], "Dan\t2\t2", TEST[2]))
    assert f"with itself: 1\n    {root / 'pairsDevTest.txt'}, line 2: Dan_0002" in fault(root)[0]


def test_persons_in_training_and_test(root: Path) -> None:
    write_list(root, "pairsDevTest.txt", ("1", "Cyd\t1\t2", "Dan\t1\tAnn\t2"))
    message, hint = fault(root)
    assert "persons in both training and test: 2\n    Ann\n    Cyd" in message
    assert "strangers" in hint


def test_every_kind_of_fault_is_in_one_error(root: Path) -> None:
    (root / "lfw/Bob/Bob_0002.jpg").unlink()
    write_list(root, "pairsDevTrain.txt", (*TRAIN, "Ann\t1"))
    write_list(root, "pairsDevTest.txt", ("1", "Dan\t1\t1", "Dan\t1\tAnn\t1"))
    message, hint = fault(root)
    for kind in ("cannot be read: 1", "first line says: 1", "with itself: 1", "not exist: 1", "training and test: 1"):
        assert kind in message
    assert hint.count("; ") >= 4


# further pairs


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Four persons with three photographs each in all training pairs but a few."""
    add_photos(tmp_path / "lfw", "Ann", "Bob", "Cyd", "Dan", "Eve", "Fay", count=3)
    same = [f"{name}\t1\t2" for name in ("Ann", "Bob", "Cyd", "Dan")]
    different = ["Ann\t1\tBob\t3", "Cyd\t3\tBob\t1", "Dan\t3\tAnn\t3", "Ann\t2\tDan\t3"]
    write_list(tmp_path, "pairsDevTrain.txt", ["4", *same, *different])
    write_list(tmp_path, "pairsDevTest.txt", ["1", "Eve\t1\t2", "Eve\t1\tFay\t1"])
    return tmp_path


def test_extra_pairs_are_new_balanced_and_of_the_training_images(several: Path) -> None:
    plain = lfw_pairs(several).splits["train"]
    dataset = lfw_pairs(several, extra_pairs=8)
    train = dataset.splits["train"]
    assert (list(train.images), list(train.groups or ())) == (list(plain.images), list(plain.groups or ()))
    assert pairs_of(train)[:8] == pairs_of(plain)
    assert list(train.labels)[8:] == [1] * 8 + [0] * 8
    groups = np.asarray(train.groups)
    pairs = np.asarray(train.pairs)
    assert (groups[pairs[:, 0]] == groups[pairs[:, 1]]).tolist() == [label == 1 for label in train.labels]
    assert len({frozenset(pair) for pair in pairs_of(train)}) == len(set(train.ids or ())) == 24
    assert len(dataset.splits["test"].labels) == 2


def test_extra_pairs_depend_on_their_seed_alone(several: Path) -> None:
    first, again, other = (lfw_pairs(several, extra_pairs=4, pair_seed=seed).splits["train"].ids for seed in (3, 3, 4))
    assert first == again != other


def test_more_extra_pairs_than_there_are(several: Path) -> None:
    message, hint = fault(several, extra_pairs=9)
    assert "extra_pairs = 9, but the training photographs form only 8 further pairs of one person" in message
    assert hint == "--set dataset.extra_pairs=8"


def test_more_extra_pairs_of_two_persons_than_there_are(tmp_path: Path) -> None:
    add_photos(tmp_path / "lfw", "Ann", count=9)
    add_photos(tmp_path / "lfw", "Bob", "Eve", "Fay", count=2)
    same = [f"Ann\t{number}\t{number + 1}" for number in range(1, 9)]
    different = [f"Ann\t{number}\tBob\t1" for number in range(1, 9)]
    write_list(tmp_path, "pairsDevTrain.txt", ["8", *same, *different])
    write_list(tmp_path, "pairsDevTest.txt", ["1", "Eve\t1\t2", "Eve\t1\tFay\t1"])
    message, hint = fault(tmp_path, extra_pairs=2)
    assert "form only 1 further pairs of two persons" in message
    assert hint == "--set dataset.extra_pairs=1"
    assert list(lfw_pairs(tmp_path, extra_pairs=1).splits["train"].ids or ())[-1] in {
        "Ann_0009 Bob_0001",
        "Bob_0001 Ann_0009",
    }


# view 2


def folds_of(*persons: str) -> list[str]:
    """A fold of two pairs of one person and two of two for each three persons."""
    lines = []
    for start in range(0, len(persons), 3):
        one, two, three = persons[start : start + 3]
        lines += [f"{one}\t1\t2", f"{two}\t1\t2", f"{one}\t1\t{three}\t1", f"{two}\t2\t{three}\t2"]
    return lines


@pytest.fixture
def view_2(tmp_path: Path) -> Path:
    """Ten folds of three persons."""
    persons = [f"P{number:02d}" for number in range(30)]
    add_photos(tmp_path / "lfw", *persons)
    write_list(tmp_path, "pairs.txt", ["10\t2", *folds_of(*persons)])
    return tmp_path


def test_view_2_has_ten_folds_and_no_test_split(view_2: Path) -> None:
    dataset = lfw_pairs(view_2, view=2)
    assert list(dataset.splits) == ["train"]
    split = dataset.splits["train"]
    assert list(split.folds or ()) == [fold for fold in range(10) for _ in range(4)]
    assert list(split.labels) == [1, 1, 0, 0] * 10
    assert len(split.images) == len(set(split.images)) == 60
    groups = np.asarray(split.groups)[np.asarray(split.pairs)]
    assert {name: int(name[1:]) // 3 for name in np.unique(groups)} == {
        name: fold for fold, pair in zip(split.folds or (), groups.tolist(), strict=True) for name in pair
    }


def test_view_2_takes_another_list(view_2: Path) -> None:
    (view_2 / "pairs.txt").rename(view_2 / "mine.txt")
    assert len(lfw_pairs(view_2, view=2, train="mine.txt").splits["train"].labels) == 40


def test_view_2_refuses_a_test_list_and_extra_pairs(view_2: Path) -> None:
    assert "takes no test" in fault(view_2, view=2, test="pairs.txt")[0]
    assert "takes no extra_pairs" in fault(view_2, view=2, extra_pairs=3)[0]


def test_view_2_counts_each_fold(view_2: Path) -> None:
    lines = (view_2 / "pairs.txt").read_text(encoding="utf-8").splitlines()
    write_list(view_2, "pairs.txt", lines[:-1])
    assert "pairs.txt: 10 folds with 2 + 2 pairs announced, 39 lines found" in fault(view_2, view=2)[0]
    moved = [*lines[:4], lines[5], lines[4], *lines[6:]]  # a pair of one person changes places with one of two
    write_list(view_2, "pairs.txt", moved)
    message, _ = fault(view_2, view=2)
    assert "first line says: 2" in message
    assert "fold 1: 3 pairs of one person and 1 of two, 2 of each announced" in message
    assert "fold 2: 1 pairs of one person and 3 of two, 2 of each announced" in message
    write_list(view_2, "pairs.txt", ["20", *lines[1:]])
    assert "line 1: '20', expected two numbers, of folds and of pairs" in fault(view_2, view=2)[0]


def test_view_2_refuses_persons_in_two_folds(view_2: Path) -> None:
    persons = [f"P{number:02d}" for number in range(30)]
    persons[5], persons[29] = "P00", "P01"
    write_list(view_2, "pairs.txt", ["10\t2", *folds_of(*persons)])
    message, hint = fault(view_2, view=2)
    assert "persons in more than one fold: 2\n    P00: folds 1, 2\n    P01: folds 1, 10" in message
    assert "strangers" in hint


@pytest.mark.real_data
def test_real_lfw_view_1_is_balanced_and_shares_nobody() -> None:
    splits = lfw_pairs(Path(os.environ["BENCH_DATA"]) / "lfw").splits
    assert {name: len(split.labels) for name, split in splits.items()} == {"train": 2_200, "test": 1_000}
    assert all(sum(split.labels) * 2 == len(split.labels) for split in splits.values())
    assert not set(splits["train"].groups or ()) & set(splits["test"].groups or ())
    assert all(len(set(split.ids or ())) == len(split.labels) for split in splits.values())


def test_a_box_cuts_every_photograph(tmp_path: Path) -> None:
    lfw_pairs.example(tmp_path)  # type: ignore[attr-defined]
    split = lfw_pairs(tmp_path, box=(2, 3, 12, 15)).splits["train"]
    assert split.boxes is not None
    assert {tuple(box) for box in split.boxes.tolist()} == {(2, 3, 12, 15)}
    assert len(split.boxes) == len(split.images)
