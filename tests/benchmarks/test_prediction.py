"""What `bench predict` and `Predictor.predict` add to onnxruntime: pytest -m benchmark -s tests/benchmarks/test_prediction.py."""

from __future__ import annotations

import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from side_by_side import compare, seconds_of, table

from bench_export import load
from bench_export.card import Card, Preprocessing, write_card
from bench_export.predictor import Predictor

pytestmark = pytest.mark.benchmark

SIZE, CLASSES, BATCH = 64, 10, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STARTS = 15
LONGEST_START_S = 0.6
MOST_ADDED = 0.05


class FromPixels(torch.nn.Module):
    """MobileNetV2 from uint8 N,H,W,3 to probabilities, as an exported file is, but for the resize."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = torchvision.models.mobilenet_v2(num_classes=CLASSES).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        return self.model((pixels - mean) / std).softmax(1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mobilenet") / "model.onnx"
    example = (torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8),)
    axes = {"images": {0: "N"}, "probabilities": {0: "N"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter says that it is the older one
        torch.onnx.export(
            FromPixels(), example, str(made), input_names=["images"], output_names=["probabilities"], dynamic_axes=axes,
            opset_version=18, dynamo=False,
        )  # fmt: skip
    names = tuple(f"class {number}" for number in range(CLASSES))
    write_card(made, Card("classification", names, Preprocessing((SIZE, SIZE), 3, "squash", "bilinear", MEAN, STD)))
    return made


@pytest.fixture(scope="module")
def predictor(path: Path) -> Predictor:
    return load(path, device="cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    made = []
    for number in range(256):
        small = Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8))
        made.append(folder / f"{number}.jpg")
        small.resize((640, 480), Image.Resampling.BICUBIC).save(made[-1], quality=90)
    return made


def test_one_image_is_answered_at_once(path: Path, photos: list[Path]) -> None:
    bench = str(Path(sys.executable).with_name("bench"))
    commands = {
        "bench predict, one image": [bench, "predict", str(path), str(photos[0])],
        "import onnxruntime, PIL and click": [sys.executable, "-c", "import onnxruntime, PIL.Image, click"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS + 1):
        for name, command in commands.items():
            seconds[name].append(seconds_of(lambda c=command: subprocess.run(c, check=True, capture_output=True)))
    sys.stderr.write("\n")
    table({name: statistics.median(values[1:]) for name, values in seconds.items()}, f"s (median of {STARTS})")
    table({name: min(values) for name, values in seconds.items()}, "s (best)")
    # Neighbours on the same cores only ever add to it.
    assert min(seconds["bench predict, one image"]) <= LONGEST_START_S


@pytest.mark.parametrize("kind", ["array", "list"])
def test_predict_adds_little_to_the_session(predictor: Predictor, kind: str) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    images = batch if kind == "array" else list(batch)
    ours: list[float] = []
    bare: list[float] = []

    def timed(seconds: list[float], work: Callable[[], object]) -> float:
        seconds.append(seconds_of(work))
        return seconds[-1]

    compare(
        f"{BATCH} images as {kind}: session.run over predict",
        lambda: timed(ours, lambda: predictor.predict(images, batch_size=BATCH)),
        lambda: timed(bare, lambda: predictor.session.inference.run(None, {"images": batch})),
        rounds=150,
    )
    added = min(ours) / min(bare) - 1  # what neighbours add is left out of both
    sys.stderr.write(f"  predict adds {added:.2%} to the best of {len(bare)}\n")
    assert added <= MOST_ADDED


def test_files_are_decoded_while_the_session_runs(predictor: Predictor, photos: list[Path]) -> None:
    def one_after_the_other() -> None:
        for start in range(0, len(photos), BATCH):
            predictor.run(np.stack([predictor.prepare(photo) for photo in photos[start : start + BATCH]]))

    ratios = compare(
        "256 JPEGs of 640 x 480: decode, then run, over predict",
        lambda: seconds_of(lambda: predictor.predict(photos, batch_size=BATCH)),
        lambda: seconds_of(one_after_the_other),
        rounds=9,
    )
    assert ratios.median > 1
