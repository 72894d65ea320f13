"""Speed of the training loop, as ratios side by side on one machine."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from side_by_side import compare, seconds_of
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from bench.environment import detect
from bench.kinds import DataSpec
from bench.plan import draft
from bench.progress import Progress
from bench.recipe import parse
from bench.stages.batches import Source, one_hot
from bench.stages.data import Data
from bench.stages.image_set import ImageSet
from bench.stages.seeding import Generators
from bench.stages.setup import make_trainer, settle
from bench.stages.train import Trainer

pytestmark = pytest.mark.benchmark

RECIPE = """
[dataset]
name = "digits"
[data]
size = 64
validation = 0.0
[model]
name = "mobilenet_v2"
[[augment]]
name = "horizontal_flip"
[[augment]]
name = "affine"
[train]
epochs = 1000
batch_size = 64
"""
MODELS = {
    "mobilenet_v2": "model={name='mobilenet_v2'}",
    # The 162,064 parameters of the STL-10 report's convolutional network.
    "cnn": "model={name='cnn', channels=[12,12,42], convs_per_block=1, pools=[2,2,3], padding=false, bias=true, "
    "global_pool=false, hidden=[200,100]}",
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def _data(count: int, *, size: int = 64, classes: int = 10) -> Data:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = np.arange(count) % classes
    train = ImageSet(images, np.arange(count), labels, tuple(map(str, range(count))))
    names = tuple(f"class {label}" for label in range(classes))
    return Data(DataSpec("classification", names, 3, (size, size)), {"train": train}, "fingerprint", (), resident=True)


def _trainer(data: Data, folder: Path, device: str, *changes: str) -> Trainer:
    recipe = parse(RECIPE, path=Path("benchmark.toml"), changes=[*changes, f"compute.device={device}"])
    plan = settle(recipe, draft(recipe, detect()), data, Progress())
    return make_trainer(
        recipe, plan, data, seed=0, folder=folder, progress=Progress(), on_epoch=lambda _number, _values: None
    )


class _Repeated:
    """One prepared batch, again and again: the loop without any data."""

    def __init__(self, source: Source, generators: Generators) -> None:
        self.images = source.images
        self._steps = len(source)
        self._batch = next(source.shuffled(generators))

    def __len__(self) -> int:
        return self._steps

    def shuffled(self, _generators: Generators) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return itertools.repeat(self._batch, self._steps)

    def ordered(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self.shuffled(Generators.start(0, torch.device("cpu")))


def _epoch(trainer: Trainer) -> float:
    def work() -> None:
        trainer._train_epoch()
        if trainer.plan.device.startswith("cuda"):
            torch.cuda.synchronize()

    return seconds_of(work)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("model", "least"), [("mobilenet_v2", 0.95), ("cnn", 0.85)])
def test_data_and_augmentation_cost_little(model: str, least: float, device: str, tmp_path: Path) -> None:
    count = (20 if model == "mobilenet_v2" else 100) * 64
    with_data = _trainer(_data(count), tmp_path, device, MODELS[model])
    without = copy.copy(with_data)
    without.source = _Repeated(with_data.source, with_data.generators)
    ratios = compare(
        f"{model} on {device}: a repeated batch over data and augmentation",
        lambda: _epoch(with_data),
        lambda: _epoch(without),
        rounds=9,
    )
    assert ratios.median >= least


class _Loader:
    """What people write: files, PIL transforms, a DataLoader with two workers."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.images = source.images
        for number, (row, label) in enumerate(zip(source.images.images, source.images.labels, strict=True)):
            place = folder / f"{label:02d}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(row).save(place / f"{number:05d}.jpg", quality=90)
        affine = transforms.RandomAffine(10, translate=(0.1, 0.1), scale=(0.9, 1.1))
        steps = [
            transforms.RandomHorizontalFlip(),
            affine,
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
        files = datasets.ImageFolder(folder, transforms.Compose(steps))
        self._loader = DataLoader(files, 64, shuffle=True, num_workers=2, persistent_workers=True)

    def __len__(self) -> int:
        return len(self._loader)

    def shuffled(self, _generators: Generators) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in self._loader:
            yield images, one_hot(labels, 10)

    def ordered(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self.shuffled(Generators.start(0, torch.device("cpu")))


@pytest.mark.parametrize("model", MODELS)
def test_batches_come_faster_than_from_a_data_loader(model: str, tmp_path: Path) -> None:
    """The same tuned training step; only the source of its batches differs. What is left to gain is the loader's share."""
    count = (20 if model == "mobilenet_v2" else 60) * 64
    ours = _trainer(_data(count), tmp_path, "cpu", MODELS[model])
    theirs = copy.copy(ours)
    theirs.source = _Loader(ours.source, tmp_path / "files")
    name = f"{model}, the same step: DataLoader with PIL transforms over ours"
    assert compare(name, lambda: _epoch(ours), lambda: _epoch(theirs)).median > 1


#: The loop as people write it: a DataLoader, PIL transforms, torch's defaults. Prints the seconds of its second epoch.
PLAIN = """
import sys, time, torch
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms as T
train = datasets.ImageFolder(sys.argv[1], T.Compose([T.RandomHorizontalFlip(),
    T.RandomAffine(10, translate=(0.1, 0.1), scale=(0.9, 1.1)), T.ToTensor(), T.Normalize([0.5] * 3, [0.25] * 3)]))
nn = torch.nn
conv = lambda i, o, p: [nn.Conv2d(i, o, 3), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(p)]
net = models.mobilenet_v2(num_classes=10) if sys.argv[2] == "mobilenet_v2" else nn.Sequential(
    *conv(3, 12, 2), *conv(12, 12, 2), *conv(12, 42, 3), nn.Flatten(), nn.Linear(672, 200), nn.ReLU(),
    nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 10))
optimizer, loss = torch.optim.AdamW(net.parameters(), 1e-3), nn.CrossEntropyLoss()
loader = DataLoader(train, 64, shuffle=True, num_workers=2, persistent_workers=True)
for _ in range(2):
    start = time.perf_counter()
    for images, labels in loader:
        optimizer.zero_grad()
        loss(net(images), labels).backward()
        optimizer.step()
print(time.perf_counter() - start)
"""


@pytest.mark.parametrize(("model", "least"), [("mobilenet_v2", 1.5), ("cnn", 1.8)])
def test_faster_than_a_plain_loop_with_a_data_loader(model: str, least: float, tmp_path: Path) -> None:
    """Training throughput in fp32, ours with its calibrated layout and threads, theirs with torch's defaults."""
    count = (20 if model == "mobilenet_v2" else 60) * 64
    ours = _trainer(_data(count), tmp_path, "cpu", MODELS[model], "compute.precision=fp32")
    _Loader(ours.source, tmp_path / "files")
    command = [sys.executable, "-c", PLAIN, str(tmp_path / "files"), model]

    def plain() -> float:
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    name = f"{model} in fp32: plain loop, DataLoader and PIL transforms over ours"
    assert compare(name, lambda: _epoch(ours), plain).median >= least


@pytest.mark.parametrize("device", DEVICES)
def test_cached_features_are_twenty_times_faster_over_forty_epochs(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both train the same head on a frozen MobileNetV2, caching included; recomputing is timed for two epochs, times 20."""
    data = _data(5000)
    # Without dropout, whose random numbers would take half of the head's time on a CPU.
    pinned = (f"compute.{key}" for key in ("precision=fp32", "memory_format=channels_last", "threads=2"))
    frozen = ("model={name='mobilenet_v2', freeze=['features'], dropout=0.0}", "augment=[]", *pinned)
    folders = (tmp_path / str(number) for number in itertools.count())

    def cached() -> float:
        monkeypatch.setenv("BENCH_CACHE", str(next(folders)))  # a cache that is empty

        def work() -> None:
            trainer = _trainer(data, tmp_path, device, *frozen)
            for _ in range(40):
                trainer._train_epoch()

        return seconds_of(work)

    recomputing = _trainer(data, tmp_path, device, *frozen, "train.cache_features=off")
    ratios = compare(
        f"frozen MobileNetV2 on {device}, 40 epochs: recomputing over cached features",
        cached,
        lambda: 20 * (_epoch(recomputing) + _epoch(recomputing)),
        rounds=3,
    )
    assert ratios.median >= 20
