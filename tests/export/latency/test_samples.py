"""Where samples come from, and that every candidate gets the same ones."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from bench import record
from bench.errors import DataError
from bench.images import Decoding, decode
from bench_export.card import Card, read_card
from bench_export.gate.packing import pack
from bench_export.latency.samples import Samples, collect, read, write

HOW = Decoding((8, 8))


def _photographs(folder: Path, count: int, suffix: str = "png") -> list[str]:
    random = np.random.default_rng(0)
    (folder / "some").mkdir(parents=True)
    names = [f"some/{number}.{suffix}" for number in range(count)]
    for name in names:
        Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / name)
    return names


def _collect(
    *, card: Card | None = None, run: record.Run | None = None, data: Path | None = None, **more: int
) -> Samples:
    return collect(HOW, pairs=False, run=run, card=card, data=data, **{"seed": 0, **more})


def _card(toy_models: ModuleType, folder: Path, paths: list[list[str]]) -> Card:
    values = {"ids": None, "paths": paths, "boxes": None, "labels": [0] * len(paths), "best": [[]] * len(paths)}
    packed = {"split": "validation", "note": "", "files": True, "data": pack(json.dumps(values).encode())}
    card = read_card(toy_models.classifier(folder / "model.onnx", gate={"samples": packed}))
    assert card is not None
    return card


def test_a_folder_of_images_is_drawn_from_by_the_seed(tmp_path: Path) -> None:
    _photographs(tmp_path, 20)
    first, again, other = (_collect(data=tmp_path, seed=seed, count=5) for seed in (1, 1, 2))
    assert first.encoded == again.encoded != other.encoded
    assert len(first.encoded) == 5
    assert first.real
    assert str(tmp_path) in first.source
    described = first.described()
    assert (described["size"]["width"], described["size"]["height"], described["count"]) == (30, 20, 5)


def test_damaged_images_are_passed_over(tmp_path: Path) -> None:
    _photographs(tmp_path, 3)
    (tmp_path / "broken.png").write_bytes(b"<html>")
    assert len(_collect(data=tmp_path).encoded) == 3


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images in it"):
        _collect(data=tmp_path)


def test_a_folder_of_broken_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match="none of its 1 images can be used"):
        _collect(data=tmp_path)


def test_the_images_that_the_gate_saw_come_first(toy_models: ModuleType, tmp_path: Path) -> None:
    names = _photographs(tmp_path, 6)
    card = _card(toy_models, tmp_path, [[name] for name in names[:2]])
    found = _collect(card=card, data=tmp_path)
    assert found.source == "images that the export was judged by, each file as a whole"
    assert {part for sample in found.encoded for part in sample} == {(tmp_path / n).read_bytes() for n in names[:2]}


def test_a_run_whose_record_is_damaged_is_not_needed(toy_models: ModuleType, tmp_path: Path) -> None:
    names = _photographs(tmp_path / "images", 6)
    run = record.create("toy", group="20261126-120000-abcd", seed=0, recipe_text="", plan={})
    (run.folder / "run.json").write_text("{", encoding="utf-8")
    card = _card(toy_models, tmp_path, [[name] for name in names[:2]])
    assert len(_collect(card=card, run=run, data=tmp_path / "images").encoded) == 2


def test_a_name_that_leaves_the_folder_is_not_followed(toy_models: ModuleType, tmp_path: Path) -> None:
    _photographs(tmp_path / "elsewhere", 1)
    _photographs(tmp_path / "data", 1)
    card = _card(toy_models, tmp_path, [["../elsewhere/some/0.png"], [str(tmp_path / "elsewhere/some/0.png")]])
    assert "images below" in _collect(card=card, data=tmp_path / "data").source


def test_a_run_names_the_files_of_its_held_out_split(tmp_path: Path) -> None:
    names = _photographs(tmp_path / "data", 4)
    info = {"dataset": {"root": str(tmp_path / "data")}}
    run = record.create("toy", group="20261126-000000-0000", seed=0, recipe_text="", plan={}, **info)
    (run.folder / "predictions").mkdir()
    np.savez(run.folder / "predictions" / "test.npz", ids=np.array(names[:3]))
    found = _collect(run=run)
    assert len(found.encoded) == 3
    assert found.source == f"test images of run {run.name}, each file as a whole"


def test_without_real_images_they_are_made_up_and_said_to_be() -> None:
    found = _collect(count=3)
    assert not found.real
    assert found.source == "made-up photographs"
    assert decode(found.encoded[0][0], HOW).std() > 10
    assert _collect(count=3).encoded == found.encoded


def test_pairs_have_two_images(tmp_path: Path) -> None:
    _photographs(tmp_path, 5)
    found = collect(HOW, pairs=True, run=None, card=None, data=tmp_path, seed=0)
    assert [len(sample) for sample in found.encoded] == [2, 2]


def test_the_library_survives_its_way_to_another_process(tmp_path: Path) -> None:
    samples = Samples(((b"one", b"two"), (b"three", b"")), "here")
    write(samples, tmp_path)
    assert read(tmp_path) == [(b"one", b"two"), (b"three", b"")]


def test_made_up_photographs_are_jpegs_of_250_pixels() -> None:
    with Image.open(io.BytesIO(_collect(count=1).encoded[0][0])) as image:
        assert (image.format, image.size) == ("JPEG", (250, 250))


def test_pairs_cannot_be_made_of_one_image(tmp_path: Path) -> None:
    _photographs(tmp_path, 1)
    with pytest.raises(DataError, match="only one image in it"):
        collect(HOW, pairs=True, run=None, card=None, data=tmp_path, seed=0)


def test_a_run_without_a_folder_is_not_looked_for_in_the_present_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = _photographs(tmp_path, 4)
    run = record.create("toy", group="20261126-000000-0000", seed=0, recipe_text="", plan={})
    (run.folder / "predictions").mkdir()
    np.savez(run.folder / "predictions" / "validation.npz", ids=np.array(names))
    monkeypatch.chdir(tmp_path)
    assert not _collect(run=run, count=2).real


def test_that_boxes_are_not_cut_out_is_said(toy_models: ModuleType, tmp_path: Path) -> None:
    names = _photographs(tmp_path, 2)
    card = _card(toy_models, tmp_path, [[name] for name in names])
    assert _collect(card=card, data=tmp_path).source.endswith("each file as a whole")
