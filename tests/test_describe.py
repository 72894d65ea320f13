"""bench describe: shapes, parameters and MACs, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from bench.describe import data_spec, describe
from bench.errors import DataError, PluginError, RecipeError
from bench.kinds import PAIR_CLASSES, DataSpec
from bench.recipe import Recipe, parse
from bench.stages.layers import ModelTable, examine

PICTURES = DataSpec("classification", ("a", "b", "c"), 3, (16, 16))
PAIRS = DataSpec("verification", PAIR_CLASSES, 3, (16, 16))

CONVOLUTION_MACS = 8 * 3 * 3 * 3 * 16 * 16
LINEAR_MACS = 8 * 16 * 16 * 5


class Twin(nn.Module):
    """One tower for both images, one after the other or both at once."""

    def __init__(self, *, at_once: bool) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(2048, 5)
        )
        self.head = nn.Linear(5, 1)
        self.at_once = at_once

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """N,C,H,W twice -> N,1."""
        if self.at_once:
            left, right = self.tower(torch.cat([first, second])).chunk(2)
        else:
            left, right = self.tower(first), self.tower(second)
        return self.head((left - right).abs())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 12))
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.unused = nn.Linear(2, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N,C,H,W -> N,12."""
        tokens = images.reshape(len(images), 64, 12) + self.token
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1)


def small() -> nn.Module:
    convolution = nn.Conv2d(3, 8, 3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(2048, 5))


def recipe(root: Path, model: str = 'name = "cnn"', rest: str = "", size: int = 32) -> Recipe:
    text = (
        f'[dataset]\nname = "image_folder"\nroot = "{root.as_posix()}"\n[data]\nsize = {size}\n[model]\n{model}\n{rest}'
    )
    return parse(text, path=Path("toy.toml"))


def by_name(table: ModelTable) -> dict[str, tuple[int, int]]:
    return {layer.name: (layer.parameters, layer.macs) for layer in table.layers}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes, whose files are no images."""
    for name in ("a", "b", "c"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.jpg").write_bytes(b"not an image")
    return tmp_path / "set"


def test_parameters_macs_and_activations_are_exact() -> None:
    table = examine(small(), PICTURES)
    assert by_name(table) == {
        "0": (8 * 3 * 9 + 8, CONVOLUTION_MACS),
        "1": (16, 0),
        "2": (0, 0),
        "3": (0, 0),
        "4": (2048 * 5 + 5, LINEAR_MACS),
    }
    assert [layer.output for layer in table.layers] == [(8, 16, 16)] * 3 + [(2048,), (5,)]
    assert [layer.activations for layer in table.layers] == [2048, 2048, 0, 0, 5]  # in place, and a view
    totals = table.totals()
    assert totals["parameters"] == totals["trained"] == 224 + 16 + 10245
    assert totals["buffers"] == 17
    assert totals["macs"] == CONVOLUTION_MACS + LINEAR_MACS
    assert totals["input_mb"] == pytest.approx(3 * 256 * 4 / 1e6)
    assert totals["activations_mb"] == pytest.approx(4101 * 4 / 1e6)
    assert totals["parameters_mb"] == pytest.approx((10485 + 17) * 4 / 1e6)


@pytest.mark.parametrize("at_once", [False, True])
def test_twins_share_parameters_but_compute_twice(at_once: bool) -> None:
    table = examine(Twin(at_once=at_once), PAIRS)
    assert by_name(table)["tower.0"] == (224, 2 * CONVOLUTION_MACS)
    assert by_name(table)["head"] == (6, 5)
    assert {layer.name: layer.calls for layer in table.layers} == {
        "tower.0": 2,
        "tower.1": 2,
        "tower.2": 2,
        "tower.3": 2,
        "head": 1,
    }
    assert table.unit == "pair"
    assert table.totals()["macs"] == 2 * (CONVOLUTION_MACS + LINEAR_MACS) + 5
    assert table.layers[0].activations == 2 * 2048


def test_attention_and_parameters_outside_of_layers_are_counted() -> None:
    table = examine(Attention(), PICTURES)
    products = 2 * 64 * 64 * 12  # queries with keys, weights with values
    projections = 64 * 12 * 36 + 64 * 12 * 12
    assert table.totals()["macs"] == products + projections
    assert by_name(table)["(model)"] == (12, 0)
    assert {layer.name: layer.calls for layer in table.layers}["unused"] == 0


def test_grouped_convolutions_count_what_they_compute() -> None:
    model = nn.Sequential(nn.Conv2d(3, 12, 3, groups=3, bias=False, stride=2), nn.Flatten())
    assert by_name(examine(model, PICTURES))["0"] == (12 * 9, 12 * 9 * 7 * 7)


def test_tied_weights_count_once() -> None:
    first, second = nn.Linear(768, 768), nn.Linear(768, 768)
    second.weight = first.weight
    table = examine(nn.Sequential(nn.Flatten(), first, second), PICTURES)
    assert table.totals()["parameters"] == 768 * 768 + 2 * 768
    assert table.totals()["macs"] == 2 * 768 * 768


def test_frozen_layers_are_told_apart_and_modes_stay() -> None:
    model = small().train()
    model[0].requires_grad_(requires_grad=False)
    model[1].eval()
    table = examine(model, PICTURES)
    assert [layer.frozen for layer in table.layers] == [224, 0, 0, 0, 0]
    assert table.totals()["frozen"] == 224
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]


def test_a_model_that_cannot_take_the_images_is_an_error_with_a_hint() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 20), nn.Flatten())
    with pytest.raises(PluginError, match="fails on images of 2x3x16x16") as caught:
        examine(model, PICTURES)
    assert caught.value.hint == "is data.size large enough for this model?"


def test_neither_weights_nor_readable_images_are_needed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = 'name = "mobilenet_v2"\npretrained = true\nweights = "nowhere.safetensors"\nfreeze = ["features"]'
    describe(recipe(folder, model), as_json=True)
    values = json.loads(capsys.readouterr().out)
    assert values["spec"]["classes"] == ["a", "b", "c"]
    assert values["totals"]["trained"] == 1280 * 3 + 3
    assert values["totals"]["frozen"] == 2_223_872
    assert len(values["layers"]) > 100


def test_the_table_fits_into_80_columns(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    describe(recipe(folder, 'name = "mobilenet_v2"\nfreeze = ["features"]', size=224), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert lines[0].rstrip() == "mobilenet_v2: 3x224x224 -> 3 classes"
    stem = next(line for line in lines if line.startswith("features.0.0 "))
    assert stem.split() == ["features.0.0", "Conv2d", "32x112x112", "864", "10.8", "M", "frozen"]
    assert any(line.split() == ["trained", "3,843"] for line in lines)


def test_a_siamese_network_is_shown_without_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    describe(recipe(tmp_path / "none", 'name = "siamese"', size=105), as_json=False, pairs=True)
    printed = capsys.readouterr().out
    assert "-> same or different" in printed
    assert "x2" in printed
    assert "MACs per pair" in printed


def test_missing_data_can_be_replaced_by_a_number_of_classes(tmp_path: Path) -> None:
    toy = recipe(tmp_path / "none")
    with pytest.raises(DataError, match="none") as caught:
        data_spec(toy)
    assert caught.value.hint is not None
    assert "--classes 10" in caught.value.hint
    assert data_spec(toy, num_classes=4) == DataSpec(
        "classification", ("class 0", "class 1", "class 2", "class 3"), 3, (32, 32)
    )


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(RecipeError, match="at least 2"):
        data_spec(recipe(tmp_path), num_classes=count)


def test_hardware_that_is_not_here_does_not_matter(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "a" / "2.png")
    spec = data_spec(recipe(folder, rest='[compute]\ndevice = "cuda:7"'))
    assert spec.num_classes == 3
