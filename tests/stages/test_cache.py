"""Decoded once, found again, and never half a file."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.errors import BenchError, DataError
from bench.images import Decoding, decode
from bench.stages import cache
from bench.stages.cache import cache_folder, load_images

_HOW = Decoding((6, 8))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Photos in an order that is not the names', with spaces and letters of the world."""
    random = np.random.default_rng(0)
    folder = tmp_path / "my photos ñ"
    folder.mkdir()
    found = [folder / name for name in ("z 1.png", "a.png", "日本.png", "Ünder.png", "m.png")]
    for path in found:
        Image.fromarray(random.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)
    return found


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever an image is decoded."""
    calls: list[int] = []

    def count(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return decode(*arguments, **options)

    monkeypatch.setattr(cache, "decode", count)
    return calls


def files() -> list[str]:
    return sorted(file.suffix for file in (cache_folder() / "images").iterdir())


def load_in_a_process(paths: list[Path]) -> tuple[str, int]:
    images = load_images(paths, _HOW)
    return images.content, int(np.asarray(images.array, dtype=np.int64).sum())


def test_keeps_the_order_and_equals_decoding(paths: list[Path]) -> None:
    for given in (paths, paths[::-1]):
        images = load_images(given, _HOW)
        assert isinstance(images.array, np.memmap)
        assert np.array_equal(images.array, [decode(path, _HOW) for path in given])
        assert images.bad == {}


def test_the_second_time_nothing_is_decoded(paths: list[Path], decoded: list[int]) -> None:
    reports: list[tuple[int, int]] = []
    first = load_images(paths, _HOW, report=lambda done, total: reports.append((done, total)))
    again = load_images(paths, _HOW, report=lambda done, total: reports.append((done, total)))
    assert (len(decoded), reports) == (5, [(5, 5)])
    assert again.content == first.content
    assert np.array_equal(again.array, first.array)
    assert files() == [".json", ".npy"]


@pytest.mark.parametrize("index", ["", "{}", "[1]", '{"file": "gone.npy", "content": "", "bad": {}}'])
def test_a_damaged_index_is_made_anew(paths: list[Path], decoded: list[int], index: str) -> None:
    load_images(paths, _HOW)
    next((cache_folder() / "images").glob("*.json")).write_text(index)
    load_images(paths, _HOW)
    assert len(decoded) == 10


def test_a_changed_file_is_decoded_again(paths: list[Path], decoded: list[int]) -> None:
    first = load_images(paths, _HOW)
    Image.new("RGB", (12, 10), "red").save(paths[2])
    changed = load_images(paths, _HOW)
    assert (len(decoded), changed.content == first.content) == (10, False)
    assert np.all(changed.array[2] == [255, 0, 0])
    os.utime(paths[2], ns=(1, 1))  # touched only: read again, found to be the same
    assert load_images(paths, _HOW).content == changed.content
    assert len(decoded) == 15


def test_the_content_does_not_depend_on_the_place(paths: list[Path], tmp_path: Path) -> None:
    first = load_images(paths, _HOW)
    copies = [Path(shutil.copy(path, tmp_path / f"{number}.png")) for number, path in enumerate(paths)]
    assert load_images(copies, _HOW).content == first.content
    assert load_images(copies[::-1], _HOW).content != first.content
    assert files().count(".npy") == 2


@pytest.mark.parametrize(
    "change",
    [{"size": (8, 6)}, {"filter": "box"}, {"resize": "crop"}, {"channels": 1}, {"max_megapixels": 50.0}],
)
def test_each_way_of_decoding_has_its_file(paths: list[Path], change: dict[str, Any]) -> None:
    first = load_images(paths, _HOW)
    how = replace(_HOW, **change)
    other = load_images(paths, how)
    assert files() == [".json", ".json", ".npy", ".npy"]
    assert other.content == first.content
    assert np.array_equal(other.array, [decode(path, how) for path in paths])


def test_bad_images_are_remembered_and_black(paths: list[Path], decoded: list[int]) -> None:
    paths[1].write_bytes(b"<html>")
    paths[3].write_bytes(b"")
    for _ in range(2):
        images = load_images(paths, _HOW)
        assert {number: reason.split()[0] for number, reason in images.bad.items()} == {1: "not", 3: "empty"}
        assert not images.array[[1, 3]].any()
    assert len(decoded) == 5


def test_a_missing_or_unreadable_file_is_named(paths: list[Path]) -> None:
    folder = paths[0].with_name("folder.png")
    with pytest.raises(DataError, match=r"folder.png: No such file") as error:
        load_images([*paths, folder], _HOW)
    assert error.value.hint == "the dataset lists an image that is not there"
    folder.mkdir()
    with pytest.raises(DataError, match=r"folder.png: cannot be read: Is a directory"):
        load_images([*paths, folder], _HOW)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_stop_in_the_middle_leaves_no_file(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    with monkeypatch.context() as patch:
        damaged = paths[3].read_bytes()
        patch.setattr(cache, "decode", lambda data, how, box: decode(data, how, box=box) if data != damaged else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load_images(paths, _HOW)

    def stop(*_: int) -> None:
        raise error

    with pytest.raises(error):
        load_images(paths, _HOW, report=stop)
    assert files() == []
    assert len(load_images(paths, _HOW).array) == 5


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="space cannot be reserved here")
@pytest.mark.parametrize("as_array", [False, True])
def test_a_full_disk_has_a_remedy(paths: list[Path], monkeypatch: pytest.MonkeyPatch, as_array: bool) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    images: Any = np.zeros((5, 3, 3), dtype=np.uint8) if as_array else paths
    with pytest.raises(BenchError, match=r"no room for 0.0 GB .*No space left on device") as error:
        load_images(images, _HOW)
    assert "BENCH_CACHE" in (error.value.hint or "")
    assert files() == []


def test_a_cache_folder_that_cannot_be_made(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(paths[0]))
    with pytest.raises(BenchError, match="cannot be made") as error:
        load_images(paths, _HOW)
    assert "BENCH_CACHE" in (error.value.hint or "")


def test_two_processes_at_once(paths: list[Path]) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(load_in_a_process, [paths] * 4))
    assert set(results) == {load_in_a_process(paths)}
    assert files() == [".json", ".npy"]


# boxes


def test_each_image_is_cut_to_its_box(paths: list[Path], decoded: list[int]) -> None:
    boxes = np.array([[0, 0, 10, 12], [1, 2, 9, 8], [0, 0, 1, 1], [9, 11, 10, 12], [2, 0, 5, 12]])
    for _ in range(2):
        images = load_images(paths, _HOW, boxes=boxes)
        expected = [decode(path, _HOW, box=tuple(box)) for path, box in zip(paths, boxes.tolist(), strict=True)]
        assert np.array_equal(images.array, expected)
    assert len(decoded) == 5
    whole = load_images(paths, _HOW)
    assert np.array_equal(whole.array[0], images.array[0])
    assert whole.content != images.content


def test_another_box_is_another_entry(paths: list[Path], decoded: list[int]) -> None:
    boxes = np.array([[0, 0, 10, 12]] * 5, dtype=np.int32)
    first = load_images(paths, _HOW, boxes=boxes)
    assert load_images(paths, _HOW, boxes=boxes.astype(np.int64)).content == first.content  # only the type is another
    assert len(decoded) == 5
    boxes[4, 0] = 1
    second = load_images(paths, _HOW, boxes=boxes)
    assert (len(decoded), second.content == first.content) == (10, False)
    assert not np.array_equal(first.array[4], second.array[4])
    assert files().count(".npy") == 2


def test_a_box_outside_makes_a_bad_image(paths: list[Path]) -> None:
    boxes = np.array([[0, 0, 10, 12], [0, 0, 11, 12], [0, 0, 10, 13], [3, 3, 3, 5], [-1, 0, 5, 5]])
    images = load_images(paths, _HOW, boxes=boxes)
    assert list(images.bad) == [1, 2, 3, 4]
    assert images.bad[1] == "the box [0, 0, 11, 12] is not inside its 10 x 12 pixels"
    assert not images.array[1:].any()


# arrays


def test_an_array_of_the_right_size_is_taken_as_it_is() -> None:
    array = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    images = load_images(array, _HOW)
    assert images.array is array
    assert not cache_folder().exists()
    assert load_images(array.copy(order="F"), _HOW).content == images.content
    array[3, 5, 7, 2] ^= 1
    assert load_images(array, _HOW).content != images.content


@pytest.mark.parametrize(("shape", "channels"), [((4, 9, 5), 1), ((4, 9, 5), 3), ((4, 9, 5, 3), 1), ((4, 6, 8, 1), 3)])
def test_arrays_are_resized_and_converted(shape: tuple[int, ...], channels: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    how = replace(_HOW, channels=channels)
    mode = "L" if channels == 1 else "RGB"
    expected = [np.asarray(Image.fromarray(one.squeeze()).convert(mode).resize((8, 6), 2)) for one in array]
    for _ in range(2):
        assert np.array_equal(load_images(array, how).array, np.reshape(expected, (4, 6, 8, channels)))
    assert files() == [".npy"]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 6, 8, 3), dtype=np.float32),
        np.zeros((6, 8), dtype=np.uint8),
        np.zeros((2, 6, 8, 5), dtype=np.uint8),
        np.zeros((2, 6, 8, 2), dtype=np.uint8),
    ],
)
def test_arrays_of_another_kind_are_refused(array: Any) -> None:
    with pytest.raises(DataError, match=r"must be uint8 N,H,W or N,H,W,C"):
        load_images(array, _HOW)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "bench-cache"
    for value in ("", None):
        monkeypatch.setenv("BENCH_CACHE", "") if value == "" else monkeypatch.delenv("BENCH_CACHE")
        assert cache_folder().name == "visionbench"
