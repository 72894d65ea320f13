"""Findings: what they call a fault, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from bench.errors import DataError
from bench.exploration.command import check, explore
from bench.exploration.doctor import Finding, examine
from bench.exploration.held_out import divided
from bench.exploration.survey import survey
from bench.kinds import PAIR_CLASSES, Dataset, Split
from bench.progress import Progress
from bench.recipe import Recipe
from bench.tables import Data as Table

Texture = Callable[[int], Image.Image]


@pytest.fixture
def pixels(texture: Texture) -> Callable[..., np.ndarray]:
    return lambda *seeds: np.stack([np.asarray(texture(seed)) for seed in seeds])


def findings(dataset: Dataset, size: tuple[int, int] = (32, 32)) -> dict[str, Finding]:
    return {finding.key: finding for finding in examine(survey(dataset, Path()), size, Progress())}


def test_a_clean_set_has_no_findings(pixels: Callable[..., np.ndarray]) -> None:
    assert findings(Dataset(("x", "y"), {"train": Split(pixels(*range(8)), [0, 1] * 4)})) == {}


def test_an_image_in_two_splits_is_a_leak_and_no_plain_duplicate(pixels: Callable[..., np.ndarray]) -> None:
    splits = {"train": Split(pixels(0, 1, 2), [0, 1, 0]), "test": Split(pixels(1, 3), [1, 0])}
    found = findings(Dataset(("x", "y"), splits))
    assert list(found) == ["exact_leaks"]
    assert found["exact_leaks"].cases[0].images == (1, 3)
    with pytest.raises(DataError, match="1 image that stands in more than one split"):
        check(tuple(found.values()))


def test_duplicates_within_a_split_do_not_fail_the_check(pixels: Callable[..., np.ndarray]) -> None:
    found = findings(Dataset(("x", "y"), {"train": Split(pixels(0, 1, 0), [0, 1, 0])}))
    assert list(found) == ["exact_duplicates"]
    check(tuple(found.values()))


def test_a_picture_with_two_labels_is_a_conflict(pixels: Callable[..., np.ndarray]) -> None:
    found = findings(Dataset(("cat", "dog"), {"train": Split(pixels(0, 1, 0), [0, 1, 1])}))
    assert found["label_conflicts"].cases[0].detail == "identical: 'cat' and 'dog'"


def test_a_face_with_two_names_is_a_conflict(pixels: Callable[..., np.ndarray]) -> None:
    split = Split(pixels(0, 1, 0, 2), [1, 1], groups=["ann", "ann", "bob", "bob"], pairs=np.array([[0, 1], [2, 3]]))
    found = findings(Dataset(PAIR_CLASSES, {"train": split}, task="verification"))
    assert found["label_conflicts"].cases[0].detail == "identical: 'ann' and 'bob'"


def test_a_copy_in_another_fold_is_a_leak(pixels: Callable[..., np.ndarray]) -> None:
    found = findings(Dataset(("x", "y"), {"train": Split(pixels(0, 1, 0, 2), [0, 1, 0, 1], folds=[0, 0, 1, 1])}))
    assert "exact_leaks" in found


def test_copies_that_the_held_out_split_divides_are_leaks(texture: Texture) -> None:
    images = [texture(seed) for seed in range(20)]
    copies = [ImageEnhance.Brightness(image).enhance(1.1) for image in images]
    split = Split(np.stack([np.asarray(image) for image in (*images, *copies)]), [0, 1] * 20)
    seen, _ = divided(
        survey(Dataset(("x", "y"), {"train": split}), Path()), Table.model_validate({"test": 0.5, "validation": 0.0})
    )
    found = {finding.key: finding for finding in examine(seen, (32, 32), Progress())}
    assert found["near_leaks"].count + found["near_duplicates"].count == 20
    assert found["near_leaks"].count == sum(seen.parts[index] != seen.parts[index + 20] for index in range(20)) > 0


def test_a_class_that_is_ten_times_rarer_is_named(pixels: Callable[..., np.ndarray]) -> None:
    images = pixels(*range(23))
    found = findings(Dataset(("often", "rare"), {"train": Split(images, [0] * 21 + [1] * 2)}))
    assert "often 21, rare 2 (10 to 1)" in found["imbalance"].cases[0].detail
    assert "imbalance" not in findings(Dataset(("often", "rare"), {"train": Split(images, [0] * 20 + [1] * 3)}))


def test_images_of_one_colour_and_very_small_ones_are_named(texture: Texture, tmp_path: Path) -> None:
    Image.new("RGB", (50, 50), (9, 9, 9)).save(tmp_path / "flat.png")
    texture(0).resize((7, 50)).save(tmp_path / "narrow.png")
    texture(1).resize((8, 8)).save(tmp_path / "just.png")
    paths = [tmp_path / name for name in ("flat.png", "narrow.png", "just.png")]
    found = findings(Dataset(("x", "y"), {"train": Split(paths, [0, 1, 0])}))
    assert found["constant"].cases[0].images == (0,)
    assert [case.images for case in found["tiny"].cases] == [(1,)]


def test_all_unreadable_files_are_listed_with_reasons(
    tmp_path: Path, texture: Texture, folder_recipe: Callable[..., Recipe]
) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        for number in range(3):
            texture(number + 10 * (name == "y")).save(tmp_path / name / f"{number}.png")
        for number in range(15):
            (tmp_path / name / f"bad{number:02d}.png").write_bytes(b"")
    exploration = explore(folder_recipe(tmp_path), Progress())
    assert [finding.key for finding in exploration.findings] == ["unreadable"]
    listed = exploration.as_json()["findings"][0]
    assert len(listed["cases"]) == listed["count"] == 30
    assert {case["detail"] for case in listed["cases"]} == {"empty file"}
    assert listed["cases"][0]["images"] == [{"name": "x/bad00.png", "split": "train", "label": "x"}]
    with pytest.raises(DataError, match="30 images that cannot be read"):
        check(exploration.findings)


def test_near_leaks_of_a_crowded_set_do_not_fail_the_check(texture: Texture) -> None:
    scene = np.stack([np.asarray(ImageEnhance.Brightness(texture(0)).enhance(0.9 + n / 500)) for n in range(120)])
    splits = {"train": Split(scene[:100], [0, 1] * 50), "test": Split(scene[100:], [0, 1] * 10)}
    found = findings(Dataset(("x", "y"), splits))
    assert found["near_leaks"].severity == "warning"
    assert "need not be copies" in found["near_leaks"].advice
    check(tuple(found.values()))
