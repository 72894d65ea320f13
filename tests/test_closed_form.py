"""Models that are computed from the training images instead of trained: a whole run without an epoch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bench import record, registry, run
from bench.errors import Interrupted
from bench.kinds import DataSpec
from bench.progress import Progress
from bench.recipe import Recipe, parse
from bench.result_tables import print_result
from bench.stages import result
from bench_plugins.datasets.lfw_pairs import lfw_pairs

COMMON = """
[train]
epochs = 0
batch_size = 50
[compute]
precision = "{precision}"
memory_format = "contiguous"
threads = 1
"""
DIGITS = """
experiment = "means"
[dataset]
name = "digits"
[data]
size = 8
[model]
name = "nearest_mean"
"""
FACES = """
experiment = "whitened"
[dataset]
name = "lfw_pairs"
root = "{root}"
[data]
size = 8
validation = 0.25
[model]
name = "whitened"
"""


class NearestMean(nn.Module):
    """The negative squared distance to the mean of each class; it has no parameter at all."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        height, width = spec.image_size
        self.register_buffer("means", torch.zeros(spec.num_classes, spec.channels * height * width))
        self.dropout = nn.Dropout(0.9)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(images).flatten(1)  # type: ignore[no-any-return]

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return -torch.cdist(features, self.means).square()  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))

    def fit_features(self, batches: Iterable[torch.Tensor], *, labels: torch.Tensor) -> None:
        features = torch.cat([self.forward_features(images) for images in batches])
        for label in range(len(self.means)):  # type: ignore[arg-type]
            self.means[label] = features[labels == label].mean(0)  # type: ignore[index,operator]


class Whitened(nn.Module):
    """The distance of two faces, each pixel's difference divided by its deviation among pairs of one person."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        height, width = spec.image_size
        self.scale = nn.Parameter(torch.ones(spec.channels * height * width), requires_grad=False)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        distance = ((first - second).flatten(1) / self.scale).square().mean(1, keepdim=True).sqrt()
        return 2 - distance  # type: ignore[no-any-return]

    def fit_features(self, batches: Iterable[torch.Tensor], *, pairs: torch.Tensor, labels: torch.Tensor) -> None:
        images = torch.cat(list(batches)).flatten(1)
        first, second = images[pairs[labels == 1]].unbind(1)
        self.scale.copy_((first - second).std(0) + 1e-3)


def nearest_mean(spec: DataSpec) -> nn.Module:
    return NearestMean(spec)


def whitened(spec: DataSpec) -> nn.Module:
    return Whitened(spec)


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType("closed_form_toys")
    vars(module).update(nearest_mean=nearest_mean, whitened=whitened)
    monkeypatch.setitem(sys.modules, "closed_form_toys", module)

    def points(*, group: str) -> list[EntryPoint]:
        toys = ("nearest_mean", "whitened") if group == "bench.models" else ()
        return [*entry_points(group=group), *(EntryPoint(name, f"closed_form_toys:{name}", group) for name in toys)]

    monkeypatch.setattr(registry, "entry_points", points)
    registry.installed.cache_clear()
    yield
    registry.installed.cache_clear()


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    lfw_pairs.example(root)  # type: ignore[attr-defined]
    return root


def digits(*changes: str, precision: str = "fp32") -> Recipe:
    return parse(DIGITS + COMMON.format(precision=precision), path=Path("means.toml"), changes=changes)


def of_faces(root: Path, *changes: str) -> Recipe:
    text = FACES.format(root=root) + COMMON.format(precision="fp32")
    return parse(text, path=Path("whitened.toml"), changes=["train.loss=bce", "train.monitor=val_auroc", *changes])


def test_a_run_without_an_epoch_is_recorded_and_finished(capsys: pytest.CaptureFixture[str]) -> None:
    (finished,) = run.run(digits())
    info = finished.info()
    metrics = info["metrics"]
    assert info["status"] == "finished"
    assert (metrics["epochs"], metrics["best_epoch"], metrics["parameters"]) == (0, 0, 0)
    assert metrics["test_accuracy"] > 0.85  # nearest means reach about 90 % on these digits
    assert metrics["fit_seconds"] > 0
    assert finished.epochs() == []
    assert not finished.checkpoints.exists()
    assert {path.name for path in (finished.folder / "figures").iterdir()} >= {"confusion_test.png", "samples.png"}
    print_result([finished], "off")
    assert "test" in capsys.readouterr().out
