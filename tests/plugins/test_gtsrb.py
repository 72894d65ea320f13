"""GTSRB: both layouts, tracks as groups, regions of interest, and everything that is wrong in one error."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import GTSRB

from bench.errors import DataError
from bench_plugins.datasets.gtsrb import CLASSES, gtsrb

HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Torchvision's layout, 86 training and 43 test images of 16 x 14 pixels."""
    plugin: Any = gtsrb
    plugin.example(tmp_path / "data")
    return tmp_path / "data"


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def fault(root: Path, *, roi: bool = False) -> tuple[str, str]:
    """The message and the hint of the error."""
    with pytest.raises(DataError) as error:
        gtsrb(root, roi=roi)
    assert error.value.hint is not None
    return str(error.value), error.value.hint


def test_43_classes_with_names_of_their_own() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 43
    assert (CLASSES[1], CLASSES[14], CLASSES[40]) == ("speed limit 30 km/h", "stop", "roundabout")


def test_labels_ids_and_tracks_come_from_folders_and_names(root: Path) -> None:
    dataset = gtsrb(root)
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert (dataset.classes, dataset.task, dataset.channels) == (CLASSES, "classification", 3)
    assert list(train.labels) == [label for label in range(43) for _ in range(2)]
    assert list(train.ids or ())[2] == "Training/00001/00000_00000.ppm"
    assert list(train.groups or ())[1:4] == ["00000/00001", "00001/00000", "00001/00001"]
    assert train.images[2] == root / "GTSRB/Training/00001/00000_00000.ppm"
    assert list(test.labels) == list(range(43))
    assert list(test.ids or ())[7] == "Final_Test/Images/00007.ppm"
    assert (train.boxes, test.boxes, test.groups) == (None, None, None)


def test_frames_of_a_track_are_one_group(root: Path) -> None:
    folder = root / "GTSRB/Training/00002"
    shutil.copy(folder / "00001_00000.ppm", folder / "00001_00001.ppm")
    groups = list(gtsrb(root).splits["train"].groups or ())
    assert groups.count("00002/00001") == 2
    assert len(set(groups)) == 86


def test_agrees_with_torchvision(root: Path) -> None:
    (root / "gtsrb").mkdir()
    for name in ("GTSRB", "GT-final_test.csv"):
        (root / name).rename(root / "gtsrb" / name)
    dataset = gtsrb(root)
    for split in ("train", "test"):
        reference = GTSRB(root, split=split)._samples
        ours = dataset.splits[split]
        assert [(str(path), label) for path, label in zip(ours.images, ours.labels, strict=True)] == reference


@pytest.mark.parametrize("place", ["", "GTSRB", "GTSRB/Final_Test", "GTSRB/Final_Test/Images"])
@pytest.mark.parametrize("start", ["", "GTSRB"])
def test_root_and_test_table_may_stand_in_several_places(root: Path, start: str, place: str) -> None:
    (root / "GT-final_test.csv").rename(root / place / "GT-final_test.csv")
    dataset = gtsrb(root / start)
    assert next(iter(dataset.splits["train"].ids or ())) == "Training/00000/00000_00000.ppm"
    assert len(dataset.splits["test"].labels) == 43


def test_reads_the_official_layout(root: Path) -> None:
    (root / "GTSRB/Final_Training").mkdir()
    (root / "GTSRB/Training").rename(root / "GTSRB/Final_Training/Images")
    train = gtsrb(root, roi=True).splits["train"]
    assert list(train.ids or ())[85] == "Final_Training/Images/00042/00001_00000.ppm"
    shutil.copytree(root / "GTSRB/Final_Training/Images", root / "GTSRB/Training")
    message, hint = fault(root)
    assert "Training and Final_Training/Images" in message
    assert "move" in hint


def test_roi_gives_the_boxes_of_the_tables(root: Path) -> None:
    edit(
        root / "GTSRB/Training/00003/GT-00003.csv", "00001_00000.ppm;16;14;5;5;11;9", "00001_00000.ppm;16;14;0;1;16;14"
    )
    edit(root / "GT-final_test.csv", "00004.ppm;16;14;5;5;11;9", "00004.ppm;16;14;2;3;4;5")
    splits = gtsrb(root, roi=True).splits
    train, test = (np.asarray(splits[name].boxes) for name in ("train", "test"))
    assert train.shape == (86, 4)
    assert train[6:8].tolist() == [[5, 5, 11, 9], [0, 1, 16, 14]]
    assert test[3:5].tolist() == [[5, 5, 11, 9], [2, 3, 4, 5]]


def test_without_roi_nothing_is_opened_and_training_tables_do_not_matter(root: Path) -> None:
    for image in root.rglob("*.ppm"):
        image.write_bytes(b"")
    for table in root.glob("GTSRB/Training/*/GT-*.csv"):
        table.unlink()
    assert len(gtsrb(root).splits["train"].labels) == 86
    message, hint = fault(root, roi=True)
    assert "class folders without the table of their regions of interest: 43" in message
    assert "00019/GT-00019.csv is missing" in message
    assert "00020/GT-00020.csv" not in message
    assert "and 23 more" in message
    assert "roi = true" in hint


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("GTSRB/Training", r"holds no training images of GTSRB"),
        ("GTSRB/Final_Test/Images", r"no folder .*Final_Test/Images"),
        ("GT-final_test.csv", r"no GT-final_test.csv with the labels"),
    ],
)
def test_what_is_missing_comes_with_its_source(root: Path, missing: str, message: str) -> None:
    (root / missing).rename(root.parent / "aside")
    with pytest.raises(DataError, match=message) as error:
        gtsrb(root)
    assert "benchmark.ini.rub.de" in (error.value.hint or "")


def test_missing_and_strange_class_folders(root: Path) -> None:
    training = root / "GTSRB/Training"
    (training / "00041").rename(training / "00043")
    for image in (training / "00007").glob("*.ppm"):
        image.unlink()
    message, hint = fault(root)
    assert "class folders that are missing or empty: 2" in message
    assert f"{training / '00007'}\n    {training / '00041'}" in message
    assert f"folders that are no class, 00000 to 00042: 1\n    {training / '00043'}" in message
    assert "remove the folders" in hint


def test_images_without_a_track_in_their_name(root: Path) -> None:
    folder = root / "GTSRB/Training/00009"
    (folder / "00000_00000.ppm").rename(folder / "sign.ppm")
    message, hint = fault(root)
    assert f"TRACK_FRAME.ppm: 1\n    {folder / 'sign.ppm'}" in message
    assert "track" in hint


def test_listed_but_not_there_and_there_but_not_listed(root: Path) -> None:
    images = root / "GTSRB/Final_Test/Images"
    (images / "00012.ppm").rename(images / "99999.ppm")
    message, hint = fault(root)
    assert f"do not exist: 1\n    {root / 'GT-final_test.csv'}, line 14: {images / '00012.ppm'}" in message
    assert f"no table lists: 1\n    {images / '99999.ppm'}" in message
    assert "add their lines" in hint
    (root / "GTSRB/Training/00003/00001_00000.ppm").rename(root / "GTSRB/Training/00003/00001_00001.ppm")
    message, _ = fault(root, roi=True)
    assert "listed images that do not exist: 2" in message
    assert "images that no table lists: 2" in message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "00001.ppm;16;14;5;5;11;9;1\n",
            "00001.ppm;16;14;5;5;11;9\n",
            "cannot be read: 1\n    {table}, line 3: '00001",
        ),
        (
            "00001.ppm;16;14;5;5;11;9;1\n",
            "00001.ppm;16;x;5;5;11;9;1\n",
            "cannot be read: 1\n    {table}, line 3: '00001",
        ),
        ("00001.ppm;16;14;5;5;11;9;1\n", "00001.ppm;16;14;5;five;11;9;1\n", "cannot be read: 1\n    {table}, line 3"),
        (
            "00001.ppm;16;14;5;5;11;9;1\n",
            "00001.ppm;16;14;5;5;11;9;43\n",
            "0..42, or other than their folder: 1\n    {table}",
        ),
        ("00001.ppm;", "00000.ppm;", "lists twice: 1\n    {table}, line 3: 00000.ppm stands in {table}, line 2, too"),
        (HEADER, HEADER.replace(";", ","), "cannot be read: 1\n    {table}, line 1: 'Filename,Width"),
        (";ClassId", "", "cannot be read: 1\n    {table}, line 1"),
    ],
)
def test_faults_of_the_table_name_file_and_line(root: Path, old: str, new: str, message: str) -> None:
    table = root / "GT-final_test.csv"
    edit(table, old, new)
    assert message.format(table=table) in fault(root)[0]


def test_training_table_with_the_label_of_another_class(root: Path) -> None:
    table = root / "GTSRB/Training/00003/GT-00003.csv"
    edit(table, "00001_00000.ppm;16;14;5;5;11;9;3", "00001_00000.ppm;16;14;5;5;11;9;4")
    assert f"{table}, line 3: 00001_00000.ppm has the label 4" in fault(root, roi=True)[0]


@pytest.mark.parametrize("box", ["5;5;17;9", "5;5;11;15", "11;5;11;9", "5;9;11;9", "-5;0;10;10"])
def test_regions_outside_their_image(root: Path, box: str) -> None:
    edit(root / "GT-final_test.csv", "00008.ppm;16;14;5;5;11;9", f"00008.ppm;16;14;{box}")
    message, _ = fault(root, roi=True)
    assert "do not lie inside their image: 1" in message
    assert f"{root / 'GT-final_test.csv'}, line 10: {', '.join(box.split(';')[:2])} to " in message
    assert len(gtsrb(root).splits["test"].labels) == 43


def test_resized_images_have_no_regions(root: Path) -> None:
    for path in root.rglob("*.ppm"):
        with Image.open(path) as image:
            image.resize((32, 32)).save(path)
    message, hint = fault(root, roi=True)
    assert "images of another size than their table says: 129" in message
    assert "00000_00000.ppm: 32 x 32 pixels, and 16 x 14 in" in message
    assert "and 109 more" in message
    assert "resized" in hint
    assert "roi = true" in hint


def test_damaged_images_are_left_to_the_core(root: Path) -> None:
    (root / "GTSRB/Training/00000/00000_00000.ppm").write_bytes(b"no image")
    assert np.asarray(gtsrb(root, roi=True).splits["train"].boxes)[0].tolist() == [5, 5, 11, 9]


@pytest.mark.real_data
def test_real_gtsrb_has_whole_tracks_and_was_resized() -> None:
    root = Path(os.environ["BENCH_DATA"]) / "gtsrb"
    splits = gtsrb(root).splits
    assert (len(splits["train"].labels), len(splits["test"].labels)) == (13_070, 3_000)
    assert len(set(splits["train"].groups or ())) == 1_307
    assert set(splits["test"].labels) == set(range(43))
    message, hint = fault(root, roi=True)
    assert "class folders without the table of their regions of interest: 43" in message
    assert "images of another size than their table says: " in message
    assert "resized" in hint
