"""Exact to the parameter: what the recipes of published systems build, layer by layer, against numbers written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from bench.errors import Unsupported
from bench.kinds import PAIR_CLASSES, DataSpec
from bench.recipe import load
from bench.stages.model import build
from bench_plugins.models.cnn import cnn

RECIPES = Path(__file__).parent.parent.parent / "recipes"


class Layer(NamedTuple):
    """A layer with weights or a window: its class, what leaves it of one image, and its parameters."""

    kind: str
    shape: tuple[int, ...]
    parameters: int = 0


def conv(channels_in: int, kernel: int, shape: tuple[int, int, int]) -> Layer:
    return Layer("Conv2d", shape, channels_in * kernel**2 * shape[0] + shape[0])


def linear(features: int, units: int) -> Layer:
    return Layer("Linear", (units,), features * units + units)


def norm(*shape: int) -> Layer:
    return Layer("BatchNorm2d" if len(shape) > 1 else "BatchNorm1d", shape, 2 * shape[0])


def pool(*shape: int) -> Layer:
    return Layer("MaxPool2d", shape)


class System(NamedTuple):
    """The model of a recipe for colour images of `size` pixels, or the twin of one that compares pairs."""

    size: int
    num_classes: int
    parameters: int
    layers: tuple[Layer, ...]


LENET = (conv(3, 5, (6, 26, 26)), pool(6, 13, 13), conv(6, 5, (16, 9, 9)), pool(16, 4, 4))
PAIRS = 0  # instead of a number of classes

SYSTEMS = {
    "stl10_logistic": System(64, 10, 122_890, (linear(3 * 64 * 64, 10),)),
    "stl10_ann": System(
        *(64, 10, 27_960_202),
        (
            linear(3 * 64 * 64, 2048),
            *(linear(2048, 1024), norm(1024)),
            *(linear(1024, 512), norm(512)),
            *(linear(512, 256), norm(256)),
            *(linear(256, 128), norm(128)),
            linear(128, 10),
        ),
    ),
    "stl10_cnn": System(
        *(64, 10, 162_064),
        (
            *(conv(3, 3, (12, 62, 62)), norm(12, 62, 62), pool(12, 31, 31)),
            *(conv(12, 3, (12, 29, 29)), norm(12, 29, 29), pool(12, 14, 14)),
            *(conv(12, 3, (42, 12, 12)), norm(42, 12, 12), pool(42, 4, 4)),
            *(linear(42 * 4 * 4, 200), linear(200, 100), linear(100, 10)),
        ),
    ),
    # 2,800 + 108,120 + 151,340 in the convolutions, 720 in their BatchNorms, 112,200 + 20,100 + 1,010 behind them.
    "stl10_cnn_wide": System(
        *(64, 10, 396_290),
        (
            *(conv(3, 3, (100, 62, 62)), norm(100, 62, 62), pool(100, 31, 31)),
            *(conv(100, 3, (120, 29, 29)), norm(120, 29, 29), pool(120, 7, 7)),
            *(conv(120, 3, (140, 5, 5)), norm(140, 5, 5), pool(140, 2, 2)),
            *(linear(140 * 2 * 2, 200), linear(200, 100), linear(100, 10)),
        ),
    ),
    "gtsrb_lenet1": System(30, 43, 47_531, (*LENET, linear(16 * 4 * 4, 120), linear(120, 84), linear(84, 43))),
    "gtsrb_lenet2": System(
        *(30, 43, 47_939),
        (*LENET, linear(16 * 4 * 4, 120), norm(120), linear(120, 84), norm(84), linear(84, 43)),
    ),
    "gtsrb_lenet3": System(
        *(30, 43, 47_939),
        (
            *LENET,
            *(conv(16, 4, (120, 1, 1)), norm(120, 1, 1)),
            *(conv(120, 1, (84, 1, 1)), norm(84, 1, 1)),
            conv(84, 1, (43, 1, 1)),
        ),
    ),
    "lfw_siamese": System(
        *(105, PAIRS, 38_960_448),
        (
            *(conv(3, 10, (64, 96, 96)), pool(64, 48, 48)),
            *(conv(64, 7, (128, 42, 42)), pool(128, 21, 21)),
            *(conv(128, 4, (128, 18, 18)), pool(128, 9, 9)),
            *(conv(128, 4, (256, 6, 6)), linear(256 * 6 * 6, 4096)),
        ),
    ),
    "lfw_siamese_bn": System(
        *(105, PAIRS, 38_960_448 + 640),
        (
            *(conv(3, 10, (64, 96, 96)), pool(64, 48, 48), norm(64, 48, 48)),
            *(conv(64, 7, (128, 42, 42)), pool(128, 21, 21), norm(128, 21, 21)),
            *(conv(128, 4, (128, 18, 18)), pool(128, 9, 9), norm(128, 9, 9)),
            *(conv(128, 4, (256, 6, 6)), linear(256 * 6 * 6, 4096)),
        ),
    ),
    # 4,736 + 51,264 + 73,856 + 147,584 + 295,168 in the convolutions, 1,216 in their BatchNorms, 524,800 + 131,328 behind.
    "lfw_siamese_250": System(
        *(250, PAIRS, 1_229_952),
        (
            *(conv(3, 7, (32, 82, 82)), pool(32, 41, 41), norm(32, 41, 41)),
            *(conv(32, 5, (64, 41, 41)), pool(64, 20, 20), norm(64, 20, 20)),
            *(conv(64, 3, (128, 20, 20)), pool(128, 10, 10), norm(128, 10, 10)),
            *(conv(128, 3, (128, 10, 10)), pool(128, 5, 5), norm(128, 5, 5)),
            *(conv(128, 3, (256, 5, 5)), pool(256, 2, 2), norm(256, 2, 2)),
            *(linear(256 * 2 * 2, 512), linear(512, 256)),
        ),
    ),
    "smoking_cnn": System(
        *(256, 2, 16_870_721),
        (
            *(conv(3, 3, (32, 256, 256)), pool(32, 128, 128)),
            *(conv(32, 3, (64, 128, 128)), pool(64, 64, 64)),
            *(conv(64, 3, (128, 64, 64)), pool(128, 32, 32)),
            *(linear(128 * 32 * 32, 128), linear(128, 1)),
        ),
    ),
}


def build_system(name: str) -> nn.Module:
    """The recipe's model, without memory for its numbers."""
    system = SYSTEMS[name]
    recipe = load(RECIPES / f"{name}.toml")
    assert recipe.data.size == system.size
    size = (system.size, system.size)
    if system.num_classes == PAIRS:
        spec = DataSpec("verification", PAIR_CLASSES, 3, size)
    else:
        spec = DataSpec("classification", tuple(map(str, range(system.num_classes))), 3, size)
    with torch.device("meta"):
        model = build(recipe.model, spec)
    return model.get_submodule("twin" if system.num_classes == PAIRS else "")


def layers_of(model: nn.Module, size: int) -> list[Layer]:
    """The layers as one image passes them."""
    passed = []

    def note(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        parameters = sum(parameter.numel() for parameter in layer.parameters())
        passed.append(Layer(type(layer).__name__, tuple(output.shape[1:]), parameters))

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d | nn.MaxPool2d):
            layer.register_forward_hook(note)
    model.eval()(torch.zeros(1, 3, size, size, device="meta"))
    return passed


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_published_system_is_exact_to_the_parameter(name: str) -> None:
    system, model = SYSTEMS[name], build_system(name)
    assert layers_of(model, system.size) == list(system.layers)
    assert sum(layer.parameters for layer in system.layers) == system.parameters
    assert sum(parameter.numel() for parameter in model.parameters()) == system.parameters


def test_counted_with_its_running_statistics_the_twin_has_38961728_parameters() -> None:
    """Keras counts the running means and variances, which are not trained."""
    twin = build_system("lfw_siamese_bn")
    statistics = [buffer for name, buffer in twin.named_buffers() if name.endswith(("running_mean", "running_var"))]
    assert sum(buffer.numel() for buffer in statistics) == 640
    assert sum(tensor.numel() for tensor in (*statistics, *twin.parameters())) == 38_961_728


def test_dropout_stands_behind_the_hidden_layers_with_batch_norm() -> None:
    rates = [layer.p for layer in build_system("stl10_ann").modules() if isinstance(layer, nn.Dropout)]
    assert rates == [0, 0.1, 0.08, 0.05, 0.03]


def test_a_single_logit_is_for_two_classes() -> None:
    three = DataSpec("classification", ("cat", "dog", "owl"), 3, (32, 32))
    with pytest.raises(Unsupported, match="single_logit is one output for two classes, but there are 3") as error:
        cnn(three, single_logit=True)
    assert "bce" in (error.value.hint or "")
    assert cnn(three)(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
