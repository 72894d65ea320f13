"""LeNet: both forms, sizes, and what it declines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bench.errors import Unsupported
from bench.kinds import DataSpec
from bench_plugins.models.lenet import lenet


def spec_of(height: int = 30, width: int = 30, *, channels: int = 3, num_classes: int = 43) -> DataSpec:
    return DataSpec("classification", tuple(map(str, range(num_classes))), channels, (height, width))


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def kinds_in(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model.modules() if not list(layer.children())]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 47_531),
        ({"batch_norm": True, "dropout": 0.5}, 47_939),
        ({"fully_convolutional": True}, 47_939),
        ({"fully_convolutional": True, "batch_norm": True}, 47_939),
    ],
)
def test_on_30_pixels_it_has_the_parameters_of_the_published_variants(options: dict[str, Any], expected: int) -> None:
    assert num_parameters(lenet(spec_of(), **options)) == expected


def test_hidden_layers_are_normalised_activated_and_dropped() -> None:
    model: Any = lenet(spec_of(), batch_norm=True, dropout=(0.2, 0.1))
    hidden = ["Linear", "BatchNorm1d", "ReLU", "Dropout"]
    assert kinds_in(model.classifier) == [*hidden, *hidden, "Linear"]
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.2, 0.1]
    with pytest.raises(Unsupported, match="dropout has 3 values for 2 layers"):
        lenet(spec_of(), dropout=(0.1, 0.1, 0.1))


def test_the_activation_holds_throughout() -> None:
    kinds = kinds_in(lenet(spec_of(), activation="tanh"))
    assert kinds.count("Tanh") == 4
    assert "ReLU" not in kinds


def test_convolutions_throughout_compute_what_fully_connected_layers_do() -> None:
    dense: Any = lenet(spec_of(), batch_norm=True).eval()
    sliding: Any = lenet(spec_of(), fully_convolutional=True).eval()
    state = {name: tensor.reshape(sliding.state_dict()[name].shape) for name, tensor in dense.state_dict().items()}
    sliding.load_state_dict(state)
    images = torch.rand(2, 3, 30, 30)
    torch.testing.assert_close(sliding(images), dense(images))


def test_a_larger_image_gives_the_average_of_its_windows() -> None:
    """32 pixels leave 5 x 5 positions, on which the 4 x 4 convolution stands in 2 x 2 places."""
    model: Any = lenet(spec_of(32, 32), fully_convolutional=True).eval()
    images = torch.rand(2, 3, 32, 32)
    features = model.forward_features(images)
    assert features.shape == (2, 16, 5, 5)
    windows = [features[:, :, top : top + 4, left : left + 4] for top in (0, 1) for left in (0, 1)]
    expected = torch.stack([model.forward_head(window) for window in windows]).mean(0)
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (28, 28), (32, 48), (64, 64)])
@pytest.mark.parametrize("fully_convolutional", [False, True])
def test_other_sizes(height: int, width: int, fully_convolutional: bool) -> None:
    if fully_convolutional and height < 28:
        with pytest.raises(Unsupported, match="4 x 4 convolution"):
            lenet(spec_of(height, width), fully_convolutional=True)
        return
    model = lenet(spec_of(height, width, channels=1, num_classes=5), fully_convolutional=fully_convolutional)
    assert model(torch.rand(2, 1, height, width)).shape == (2, 5)


def test_fully_connected_layers_follow_the_size() -> None:
    larger: Any = lenet(spec_of(64, 48))
    assert larger.classifier[0].in_features == 16 * 13 * 9


@pytest.mark.parametrize(
    ("size", "options", "message", "least"),
    [
        ((5, 30), {}, r"stage 1 of 2 \(6 channels, 5 x 5, pool 2\) shrinks 5 x 30 to 0 x 13 pixels", 16),
        ((30, 15), {}, r"stage 2 of 2 \(16 channels, 5 x 5, pool 2\) shrinks 13 x 5 to 4 x 0 pixels", 16),
        ((27, 30), {"fully_convolutional": True}, "4 x 4 convolution behind stage 2 shrinks 3 x 4 to nothing", 28),
        ((4, 4), {"fully_convolutional": True}, "stage 1 of 2 .* for images of 4 x 4", 28),
    ],
)
def test_too_small_an_image_is_declined_with_stage_and_remedy(
    size: tuple[int, int], options: dict[str, Any], message: str, least: int
) -> None:
    with pytest.raises(Unsupported, match=message) as error:
        lenet(spec_of(*size), **options)
    assert f"at least {least} pixels" in (error.value.hint or "")
    assert lenet(spec_of(least, least), **options)
