"""The first-party datasets: layouts, labels, order, and an error with a remedy for each fault."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import os
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import STL10

from bench.errors import DataError
from bench.kinds import SPLITS, Dataset, Split
from bench_plugins.datasets.digits import digits
from bench_plugins.datasets.image_csv import image_csv
from bench_plugins.datasets.image_folder import image_folder
from bench_plugins.datasets.stl10 import stl10


def add_images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)


def write_csv(root: Path, *lines: str, name: str = "train.csv") -> None:
    (root / name).write_text("\n".join([*lines, ""]), encoding="utf-8")


def hint_of(error: pytest.ExceptionInfo[DataError]) -> str:
    return error.value.hint or ""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def http_server(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; gives the address."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """A small STL-10; the folder of its files."""
    plugin: Any = stl10
    plugin.example(tmp_path)
    return tmp_path / "stl10_binary"


@pytest.mark.parametrize("plugin", [image_folder, image_csv, stl10])
def test_examples_are_valid_datasets(plugin: Any, tmp_path: Path) -> None:
    dataset: Dataset = plugin(tmp_path, **plugin.example(tmp_path))
    assert set(dataset.splits) == {"train", "test"}
    for split in dataset.splits.values():
        assert set(np.asarray(split.labels).tolist()) == {0, 1, 2}
        assert len(split.images) == len(split.labels) == len(set(split.ids or ()))


@pytest.mark.parametrize("plugin", [digits, image_folder, image_csv, stl10])
def test_signatures_resolve_at_run_time(plugin: Callable[..., Dataset]) -> None:
    hints = get_type_hints(plugin, include_extras=True)
    assert hints["root"] is Path
    assert hints["return"] is Dataset


def test_digits_are_1797_grey_scans(tmp_path: Path) -> None:
    dataset = digits(tmp_path)
    split = dataset.splits["train"]
    assert isinstance(split.images, np.ndarray)
    assert (split.images.shape, split.images.dtype) == ((1797, 8, 8), np.uint8)
    assert (split.images.min(), split.images.max()) == (0, 255)
    assert (dataset.channels, dataset.classes) == (1, tuple("0123456789"))
    assert split.ids is not None
    assert split.ids[0] == "digits/0000"


# image_folder


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "Validation", "Testing"), ("TRAIN", "valid")])
def test_folder_finds_the_usual_spellings(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        add_images(tmp_path / name / "not smoking", "b.png", "a.JPG")
        add_images(tmp_path / name / "日本 ñ", "c.png")
    dataset = image_folder(tmp_path)
    assert dataset.classes == ("not smoking", "日本 ñ")
    assert tuple(dataset.splits) == SPLITS[: len(names)]
    train = dataset.splits["train"]
    assert train.ids == [f"{names[0]}/not smoking/a.JPG", f"{names[0]}/not smoking/b.png", f"{names[0]}/日本 ñ/c.png"]
    assert list(train.labels) == [0, 0, 1]
    assert train.images[0] == tmp_path / names[0] / "not smoking" / "a.JPG"


def test_folder_options_name_the_splits(tmp_path: Path) -> None:
    for name in ("Training", "Validation"):
        for class_name in ("a", "b"):
            add_images(tmp_path / name / class_name, "1.png")
    dataset = image_folder(tmp_path, train="Training", test="Validation")
    assert set(dataset.splits) == {"train", "test"}


def test_folder_of_classes_is_one_set_even_where_one_is_called_valid(tmp_path: Path) -> None:
    add_images(tmp_path / "valid", "1.png")
    add_images(tmp_path / "invalid" / "deep" / "deeper", "2.png")
    (tmp_path / "invalid" / ".hidden.png").touch()
    (tmp_path / "invalid" / "notes.txt").touch()
    (tmp_path / ".git").mkdir()
    dataset = image_folder(tmp_path, channels=1)
    assert (dataset.classes, tuple(dataset.splits), dataset.channels) == (("invalid", "valid"), ("train",), 1)
    assert dataset.splits["train"].ids == ["invalid/deep/deeper/2.png", "valid/1.png"]


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere cannot be read: No such file") as error:
        image_folder(tmp_path / "nowhere")
    assert "--set dataset.root=DIR" in hint_of(error)
    add_images(tmp_path / "Training" / "a", "1.png")
    with pytest.raises(
        DataError, match=r"no folder .*Trainig \(train = 'Trainig'\); did you mean \"Training\"\?"
    ) as error:
        image_folder(tmp_path, train="Trainig")
    assert hint_of(error) == f"folders in {tmp_path}: Training"


def test_folder_with_faults_in_its_splits(tmp_path: Path) -> None:
    for class_name in ("a", "b"):
        add_images(tmp_path / "val" / class_name, "1.png")
    with pytest.raises(DataError, match=r"no folder for training among: val") as error:
        image_folder(tmp_path)
    assert "dataset.train=FOLDER" in hint_of(error)
    with pytest.raises(DataError, match="two splits are the same folder"):
        image_folder(tmp_path, train="val", test="val")
    add_images(tmp_path / "train" / "a", "1.png")
    with pytest.raises(DataError, match=r"train holds 1 class folders \(a\)"):
        image_folder(tmp_path)
    add_images(tmp_path / "train" / "c", "1.png")
    with pytest.raises(DataError, match=r"train lacks b; .*val lacks c"):
        image_folder(tmp_path)
    (tmp_path / "val" / "c").mkdir()
    add_images(tmp_path / "train" / "b", "1.png")
    with pytest.raises(DataError, match=r"class folder .*val/c holds no images"):
        image_folder(tmp_path)
    add_images(tmp_path / "Training" / "b", "1.png")
    with pytest.raises(DataError, match="more than one folder for train: Training, train") as error:
        image_folder(tmp_path)
    assert "--set dataset.train=Training" in hint_of(error)


@pytest.mark.real_data
def test_folder_lists_13070_files_as_fast_as_they_can_be_walked() -> None:
    data = Path(os.environ["BENCH_DATA"])
    folder = data / "gtsrb" / "GTSRB" / "Training"

    def seconds(look: Callable[[], object]) -> float:
        start = time.process_time()
        look()
        return time.process_time() - start

    walked = min(seconds(lambda: sum(path.is_file() for path in folder.rglob("*"))) for _ in range(3))
    assert min(seconds(lambda: image_folder(folder)) for _ in range(3)) < 5 * walked
    dataset = image_folder(folder)
    assert len(dataset.splits["train"].labels) == 13_070
    assert image_folder(data / "smoking", train="Training", test="Validation").classes == ("not smoking", "smoking")


# image_csv


def test_csv_reads_paths_labels_and_groups(tmp_path: Path) -> None:
    add_images(tmp_path / "scans", "a.png", "b c.png", "d.png")
    lines = ["file;class;who", '"scans/b c.png"; weiß;p1', "", "scans/a.png;dark;p2", "./scans/d.png;dark;p2"]
    (tmp_path / "all.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    dataset = image_csv(
        tmp_path, train="all.csv", path_column="file", label_column="class", group_column="who", delimiter=";"
    )
    split = dataset.splits["train"]
    assert dataset.classes == ("dark", "weiß")
    assert list(split.ids or ()) == ["scans/b c.png", "scans/a.png", "scans/d.png"]
    assert (list(split.labels), split.groups) == ([1, 0, 0], ["p1", "p2", "p2"])
    assert split.images[1] == tmp_path / "scans" / "a.png"


@pytest.mark.parametrize(("path_column", "label_column"), [(1, 0), ("1", "0")])
def test_csv_without_header_and_with_a_folder_of_images(
    tmp_path: Path, path_column: str | int, label_column: str | int
) -> None:
    add_images(tmp_path / "scans", "a.png", "b.png")
    (tmp_path / "lists").mkdir()
    write_csv(tmp_path, "x,a.png", "y,b.png", name="lists/train.csv")
    options: dict[str, Any] = {"train": "lists/train.csv", "header": False, "label_column": label_column}
    dataset = image_csv(tmp_path, path_column=path_column, images="scans", **options)
    assert dataset.splits["train"].ids == ["scans/a.png", "scans/b.png"]
    with pytest.raises(DataError, match=r"lists/train.csv: without a header path_column must be a position"):
        image_csv(tmp_path, path_column="path", **options)
    with pytest.raises(DataError, match=r"no column 2 \(path_column\); its columns are 0 to 1"):
        image_csv(tmp_path, path_column=2, **options)


def test_csv_divided_by_a_column(tmp_path: Path) -> None:
    add_images(tmp_path, "a.png", "b.png", "c.png")
    write_csv(tmp_path, "path,label,part", "a.png,x,train", "b.png,y,train", "c.png,x,test")
    dataset = image_csv(tmp_path, split_column="part")
    assert {name: list(split.labels) for name, split in dataset.splits.items()} == {"train": [0, 1], "test": [0]}
    with pytest.raises(DataError, match="split_column and files for test exclude each other"):
        image_csv(tmp_path, split_column="part", test="train.csv")
    write_csv(tmp_path, "path,label,part", "a.png,x,trian")
    with pytest.raises(DataError, match=r"train.csv, line 2: split 'trian'; did you mean \"train\"\?"):
        image_csv(tmp_path, split_column="part")


@pytest.mark.parametrize(
    ("lines", "message", "hint"),
    [
        ((), r"train.csv holds no rows", "one line an image"),
        (("path,label",), r"train.csv holds no rows", "one line an image"),
        (
            ("paht,label", "a.png,x"),
            r"no column 'path' \(path_column\); did you mean \"paht\"\?; its columns: paht, label",
            "--set dataset.path_column=NAME",
        ),
        (("path;label", "a.png;x"), r"no column 'path'.* its columns: path;label", "set delimiter = ';'"),
        (("path,label", "a.png,x,y"), r"train.csv, line 2: 3 fields, the first line has 2", "quotes"),
        (("path,label", "", "a.png,"), r"train.csv, line 3: the label is empty", "fill it in"),
        (("path,label", '"a.png,x'), r"train.csv, line \d: unexpected end of data", "repair"),
        (("path,label", "a.png,x", "./a.png,y"), r"line 3: ./a.png stands in .*train.csv, line 2, too", "remove"),
        (("path,label", "a.png,x"), r"train.csv has the labels x; at least 2 are needed", "label_column"),
    ],
)
def test_csv_faults_name_file_and_line(tmp_path: Path, lines: tuple[str, ...], message: str, hint: str) -> None:
    add_images(tmp_path, "a.png")
    write_csv(tmp_path, *lines)
    with pytest.raises(DataError, match=message) as error:
        image_csv(tmp_path)
    assert hint in hint_of(error)


def test_csv_that_is_not_there_or_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "tran.csv").write_bytes("path,label\nä.png,x\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"no file .*train.csv; did you mean \"tran.csv\"\?") as error:
        image_csv(tmp_path)
    assert "--set dataset.train=FILE" in hint_of(error)
    with pytest.raises(DataError, match=r"tran.csv is not UTF-8"):
        image_csv(tmp_path, train="tran.csv")


def test_csv_lists_ten_missing_images_and_counts_the_rest(tmp_path: Path) -> None:
    add_images(tmp_path, "here.png")
    write_csv(tmp_path, "path,label", "here.png,y", *(f"{number}.png,x" for number in range(12)))
    with pytest.raises(
        DataError, match=r"(?s)12 of 13 images do not exist:.*line 12: .*/9.png\n  and 2 more$"
    ) as error:
        image_csv(tmp_path)
    assert "10.png" not in str(error.value)
    assert "--set dataset.images=FOLDER" in hint_of(error)


def test_csv_label_that_no_training_row_has(tmp_path: Path) -> None:
    add_images(tmp_path, "a.png", "b.png")
    write_csv(tmp_path, "path,label", "a.png,smoking", "b.png,not")
    write_csv(tmp_path, "path,label", "a.png,smokin", name="test.csv")
    with pytest.raises(DataError, match=r"test.csv, line 2: no training row has the label 'smokin'; did you mean"):
        image_csv(tmp_path, test="test.csv")


# stl10


def test_stl10_reads_columns_first_and_maps_the_file(binary: Path) -> None:
    images = np.zeros((2, 96, 96, 3), dtype=np.uint8)  # N,H,W,C
    images[0, 5, 70] = (10, 20, 30)
    images[1, :, 3, 2] = 200
    images.transpose(0, 3, 2, 1).tofile(binary / "train_X.bin")
    np.array([3, 1], dtype=np.uint8).tofile(binary / "train_y.bin")
    dataset = stl10(binary.parent)
    train = dataset.splits["train"]
    assert isinstance(train.images, np.memmap)
    assert np.shares_memory(train.images, train.images.base)
    assert np.array_equal(train.images, images)
    assert list(train.labels) == [2, 0]
    assert dataset.classes == ("dark", "middle", "bright")
    assert dataset.splits["test"].ids is not None
    assert dataset.splits["test"].ids[1] == "test/0001"


def test_stl10_agrees_with_torchvision(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STL10, "_check_integrity", lambda _: True)
    reference = STL10(binary.parent, split="test")
    ours: Split = stl10(binary.parent).splits["test"]
    assert np.array_equal(np.asarray(ours.images), reference.data.transpose(0, 2, 3, 1))
    assert list(ours.labels) == list(reference.labels)


def test_stl10_fold_keeps_ids(binary: Path) -> None:
    whole = stl10(binary.parent).splits["train"]
    fold = stl10(binary.parent, fold=9).splits["train"]
    assert fold.ids == [f"train/{position:04d}" for position in range(9, 21)]
    assert np.array_equal(np.asarray(fold.images), np.asarray(whole.images)[9:21])
    (binary / "fold_indices.txt").write_text("0 1 99\n", encoding="utf-8")
    for number in (0, 1):
        with pytest.raises(DataError, match=f"fold_indices.txt does not give fold {number}"):
            stl10(binary.parent, fold=number)


def test_stl10_cut_off_files_name_bytes(binary: Path) -> None:
    content = (binary / "train_X.bin").read_bytes()
    (binary / "train_X.bin").write_bytes(content[:-100])
    with pytest.raises(DataError, match=r"train_X.bin is incomplete: 663452 bytes, expected 663552") as error:
        stl10(binary.parent)
    assert "remove" in hint_of(error)
    (binary / "train_X.bin").write_bytes(content)
    (binary / "train_y.bin").write_bytes(b"\x01" * 20)
    with pytest.raises(DataError, match=r"train_y.bin is incomplete: 20 bytes, expected 24"):
        stl10(binary.parent)
    (binary / "train_y.bin").write_bytes(b"\x07" * 24)
    with pytest.raises(DataError, match=r"train_y.bin holds labels 7 to 7; 1 to 3 are allowed"):
        stl10(binary.parent)


@pytest.mark.usefixtures("offline")
def test_stl10_without_network_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ({}, {"download": False}):
        with pytest.raises(
            DataError, match=r"cannot be fetched into .*unreachable|stl10_binary lacks train_X.bin"
        ) as error:
            stl10(tmp_path / "data", **options)
        for part in (STL10.url, STL10.tgz_md5, str(tmp_path / "data"), "stl10_binary/", "dataset.name=image_folder"):
            assert part in hint_of(error)
    assert list((tmp_path / "data").iterdir()) == []
    assert capsys.readouterr().out == ""


def test_stl10_unpacks_the_archive_that_a_person_left(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (binary / "unlabeled_X.bin").write_bytes(b"\x00")
    root = tmp_path / "new"
    root.mkdir()
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as archive:
        archive.add(binary, arcname="stl10_binary")
    (root / STL10.filename).write_bytes(memory.getvalue())
    with pytest.raises(DataError, match=r"stl10_binary.tar.gz is damaged or incomplete"):
        stl10(root)
    monkeypatch.setattr(STL10, "tgz_md5", hashlib.md5(memory.getvalue(), usedforsecurity=False).hexdigest())
    assert len(stl10(root).splits["train"].labels) == 24
    assert sorted(file.name for file in (root / "stl10_binary").iterdir()) == sorted(
        file.name for file in binary.iterdir() if file.name != "unlabeled_X.bin"
    )
    assert {file.name for file in root.iterdir()} == {"stl10_binary", STL10.filename}


def test_stl10_downloads_and_keeps_nothing_of_a_broken_download(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = tmp_path / "served.tar.gz"
    with tarfile.open(served, mode="w:gz") as archive:
        archive.add(binary, arcname="stl10_binary")
    md5 = hashlib.md5(served.read_bytes(), usedforsecurity=False).hexdigest()
    root = tmp_path / "new"
    with http_server(tmp_path) as address:
        monkeypatch.setattr(STL10, "url", f"{address}/served.tar.gz")
        with pytest.raises(DataError, match="File not found or corrupted") as error:
            stl10(root)
        assert "by hand" in hint_of(error)
        assert list(root.iterdir()) == []
        monkeypatch.setattr(STL10, "tgz_md5", md5)
        assert len(stl10(root).splits["test"].labels) == 9
    assert [file.name for file in root.iterdir()] == ["stl10_binary"]
    assert capsys.readouterr().out == ""
