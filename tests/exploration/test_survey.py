"""One look at every image: sizes, hashes, boxes, reasons."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.exploration.held_out import divided
from bench.exploration.summary import summarise
from bench.exploration.survey import pixels_of, survey
from bench.images import BadImage
from bench.kinds import PAIR_CLASSES, Dataset, Split
from bench.tables import Data as Table

Texture = Callable[[int], Image.Image]


def test_a_file_is_described_as_it_is_stored_and_upright(tmp_path: Path, texture: Texture) -> None:
    image = texture(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    image.convert("L").save(tmp_path / "b.png")
    looks = survey(
        Dataset(("x", "y"), {"train": Split([tmp_path / "a.jpg", tmp_path / "b.png"], [0, 1])}), tmp_path
    ).looks
    assert [(look.width, look.height, look.format, look.mode) for look in looks] == [
        (80, 96, "JPEG", "RGB"),
        (96, 80, "PNG", "L"),
    ]
    grey = np.asarray(image.convert("L")) / 255
    assert looks[1].mean == pytest.approx([grey.mean()] * 3)
    assert looks[1].square == pytest.approx([(grey**2).mean()] * 3)


def test_the_same_pixels_in_two_formats_have_one_pixel_hash(tmp_path: Path, texture: Texture) -> None:
    for name in ("a.png", "a.bmp"):
        texture(1).save(tmp_path / name)
    split = Split([tmp_path / "a.png", tmp_path / "a.bmp"], [0, 1])
    first, second = survey(Dataset(("x", "y"), {"train": split}), tmp_path).looks
    assert first.pixel_hash == second.pixel_hash
    assert first.file_hash != second.file_hash


def test_boxes_cut_what_is_looked_at(tmp_path: Path, texture: Texture) -> None:
    image = texture(2)
    image.save(tmp_path / "a.png")
    boxes = np.array([[10, 20, 50, 60], [0, 0, 200, 10]])
    seen = survey(Dataset(("x", "y"), {"train": Split([tmp_path / "a.png"] * 2, [0, 1], boxes=boxes)}), tmp_path)
    assert (seen.looks[0].width, seen.looks[0].cut) == (96, (40, 40))
    assert np.array_equal(pixels_of(seen, 0), np.asarray(image)[20:60, 10:50])
    assert "not inside" in seen.looks[1].reason
    with pytest.raises(BadImage, match="not inside"):
        pixels_of(seen, 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<html></html>", "HTML"),
        (b"GIF89a nothing", "damaged|not an image"),
        (None, "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_noted_with_the_reason(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    seen = survey(Dataset(("x", "y"), {"train": Split([tmp_path / "a.jpg"], [0])}), tmp_path)
    assert len(seen.readable) == 0
    assert re.search(reason, seen.looks[0].reason)


def test_arrays_are_looked_at_like_files() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 9, 7), dtype=np.uint8)
    seen = survey(Dataset(("x", "y"), {"train": Split(images, [0, 1] * 3)}, channels=1), Path("nowhere"))
    assert seen.names[:2] == ("train/000000", "train/000001")
    assert (seen.looks[0].width, seen.looks[0].height, seen.looks[0].mode) == (7, 9, "L")
    assert summarise(seen, None)["colours"]["mean"] == [pytest.approx(images.mean() / 255, abs=1e-4)]


def test_groups_of_different_splits_are_never_one_group() -> None:
    images = np.zeros((4, 4, 4), dtype=np.uint8)
    splits = {name: Split(images, [0, 1, 0, 1], groups=[1, 1, 2, 2]) for name in ("train", "test")}
    groups = survey(Dataset(("x", "y"), splits, channels=1), Path()).groups
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) == 4


def test_the_summary_counts_classes_groups_and_folds() -> None:
    images = np.zeros((6, 4, 4), dtype=np.uint8)
    split = Split(images, [0, 0, 0, 0, 1, 1], groups=[1, 1, 1, 2, 3, 3], folds=[0, 0, 0, 1, 1, 1])
    found = summarise(survey(Dataset(("x", "y"), {"train": split}, channels=1), Path()), None)["splits"]["train"]
    assert found["classes"] == {"x": 4, "y": 2}
    assert found["groups"]["count"] == 3
    assert found["groups"]["histogram"] == {"1": 1, "2": 1, "3": 1}
    assert found["folds"] == {"0": 3, "1": 3}


def test_what_a_run_holds_out_is_known_without_decoding_again(tmp_path: Path, texture: Texture) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for number, path in enumerate(paths):
        texture(number).save(path)
    paths[3].write_bytes(b"")
    seen = survey(Dataset(("x", "y"), {"train": Split(paths, [0, 1] * 10)}), tmp_path)
    table = Table.model_validate({"validation": 0.2, "test": 0.2})
    seen, counts = divided(seen, table)
    assert sum(sum(classes.values()) for classes in counts.values()) == 19
    assert set(counts) == {"train", "validation", "test"}
    for name, classes in counts.items():
        chosen = [index for index, part in enumerate(seen.parts) if part == name and index != 3]
        assert len(chosen) == sum(classes.values())


def test_an_image_of_pairs_has_the_fold_of_its_pairs() -> None:
    images = np.zeros((4, 4, 4), dtype=np.uint8)
    split = Split(images, [1, 1], groups=["a", "a", "b", "b"], pairs=np.array([[0, 1], [2, 3]]), folds=[0, 1])
    seen = survey(Dataset(PAIR_CLASSES, {"train": split}, channels=1, task="verification"), Path())
    assert seen.parts == ("train fold 0", "train fold 0", "train fold 1", "train fold 1")
    assert [seen.label(index) for index in range(4)] == ["a", "a", "b", "b"]
