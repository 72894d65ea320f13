"""Figures: what a person looks at; here only that they are there, sized and small."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench import record
from bench.files import write_json
from bench.kinds import DataSpec
from bench.stages import figures
from bench.stages.data import Data
from bench.stages.image_set import ImageSet

_LIMIT = 300_000


def _epochs(count: int, **values: float) -> list[dict[str, Any]]:
    given = {"train_loss": 1.0, "train_accuracy": 0.5, "lr": 1e-3, **values}
    return [{"epoch": n, "time": n, "values": {k: v / n for k, v in given.items()}} for n in range(1, count + 1)]


def _check(path: Path) -> tuple[int, int]:
    assert path.stat().st_size < _LIMIT
    assert list(path.parent.glob(".*")) == [], "nothing is left of the writing"
    with Image.open(path) as image:
        image.load()
        assert min(image.size) > 200
        return image.size


@pytest.mark.parametrize("count", [1, 30, 200])
def test_curves(count: int, tmp_path: Path) -> None:
    figures.draw_curves(_epochs(count, val_loss=1.0, val_accuracy=0.4), tmp_path / "a" / "curves.png", best_epoch=count)
    _check(tmp_path / "a" / "curves.png")


def test_curves_without_validation_or_with_a_loss_that_is_no_number(tmp_path: Path) -> None:
    figures.draw_curves(_epochs(3), tmp_path / "curves.png")
    figures.draw_curves(_epochs(3, val_loss=math.nan, val_accuracy=math.inf), tmp_path / "curves.png")
    _check(tmp_path / "curves.png")


@pytest.mark.parametrize(
    ("count", "name"),
    [(2, "smoking"), (10, ""), (20, "$a_{ long $name of a class "), (43, "sign"), (300, "")],
)
def test_confusion(count: int, name: str, tmp_path: Path) -> None:
    confusion = np.random.default_rng(0).integers(0, 12_000, (count, count))
    confusion[-1] = 0  # a class without images
    figures.draw_confusion(confusion.tolist(), [f"{name}{index}" for index in range(count)], tmp_path / "confusion.png")
    _check(tmp_path / "confusion.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_grids_of_noise_stay_small(channels: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 160, 160, channels), dtype=np.uint8)
    figures.draw_samples(images, ["a class with a very long name"] * 24, tmp_path / "samples.png")
    width, height = _check(tmp_path / "samples.png")
    assert width > height
    pixels = torch.from_numpy(images[:4]).permute(0, 3, 1, 2).float() / 255
    figures.draw_augmentations(pixels, [pixels * 2 - 0.5] * 6, tmp_path / "augmentations.png")
    _check(tmp_path / "augmentations.png")


def test_one_sample_is_enough(tmp_path: Path) -> None:
    figures.draw_samples(np.zeros((1, 8, 8, 1), dtype=np.uint8), ["a"], tmp_path / "samples.png")
    assert (tmp_path / "samples.png").is_file()


@pytest.mark.parametrize("text", ["short", "exactly-16-chars", "a rather long class name 17"])
def test_long_names_keep_both_ends(text: str) -> None:
    shown = figures._label(text, 16)
    assert len(shown) == min(len(text), 16)
    assert text.startswith(shown.partition("…")[0])
    assert text.endswith(shown.rpartition("…")[2])


def test_a_run_gets_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path))
    run = record.create("pets", group="g", seed=0, recipe_text="", plan={}, objective="val_loss")
    run.log_epoch(1, {"train_loss": 1.0, "val_loss": 2.0})
    result = {"classes": [{"name": "cat"}, {"name": "dog"}], "confusion": [[3, 1], [0, 4]]}
    write_json(run.folder / "evaluation.json", {"validation": result, "test": result})
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    train = ImageSet(images, np.arange(2, 9), np.arange(7) % 2, tuple("abcdefg"))
    data = Data(DataSpec("classification", ("cat", "dog"), 3, (8, 8)), {"train": train}, "f", (), resident=True)
    figures.draw_run(run, data, [lambda pixels, targets, _generator: (pixels.flip(3), targets)], best_epoch=1)
    assert {path.stem for path in (run.folder / "figures").iterdir()} == {
        "curves",
        "confusion_validation",
        "confusion_test",
        "samples",
        "augmentations",
    }
