"""LeNet: two convolutions and three fully connected layers, or the same as convolutions throughout."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import nn

from bench.errors import Unsupported
from bench.kinds import DataSpec
from bench_plugins.models._layers import Rate, per_layer
from bench_plugins.models.cnn import ConvNet

__all__ = ["lenet"]

CHANNELS = (6, 16)
KERNEL = 5
POOL = 2
HIDDEN = (120, 84)
#: The side of the first hidden layer where it is a convolution: what 30 x 30 pixels leave of the features.
HIDDEN_KERNEL = 4

_ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def lenet(
    spec: DataSpec,
    *,
    activation: Literal["relu", "tanh"] = "relu",
    batch_norm: bool = False,
    dropout: Rate | tuple[Rate, ...] = 0.0,
    fully_convolutional: bool = False,
) -> nn.Module:
    """LeNet: convolutions of 6 and 16 channels, 5 x 5, each with a 2 x 2 max-pool, then 120 and 84 units.

    Images N,C,H,W -> logits N,num_classes. The hidden layers are linear, BatchNorm (with `batch_norm`), activation,
    dropout (one rate, or one for each of the two). 30 x 30 x 3 and 43 classes: 47,531 parameters, 47,939 with
    `batch_norm`. The first of them has as many inputs as the images leave.

    `fully_convolutional` makes the three layers convolutions of 4 x 4, 1 x 1 and 1 x 1 pixels and sets `batch_norm`:
    the same 47,939 parameters for images of any size from 28 pixels on. Larger ones than 31 give logits at several
    positions, which are averaged.

    Raises Unsupported for images that a stage shrinks to nothing: below 16 pixels, 28 where fully convolutional.
    Source: LeCun et al. 1998, Gradient-based learning applied to document recognition.
    """
    act = _ACTIVATIONS[activation]
    height, width = _size_after(spec.image_size, smallest=HIDDEN_KERNEL if fully_convolutional else 1)
    features: list[nn.Module] = []
    in_channels = spec.channels
    for out_channels in CHANNELS:
        features += [nn.Conv2d(in_channels, out_channels, KERNEL), act(), nn.MaxPool2d(POOL)]
        in_channels = out_channels
    rates = per_layer("dropout", dropout, len(HIDDEN))
    if fully_convolutional:
        return ConvNet(nn.Sequential(*features), _convolutional_head(spec.num_classes, act, rates))
    num_features = in_channels * height * width
    classifier = _linear_head(num_features, spec.num_classes, act, rates, batch_norm=batch_norm)
    return ConvNet(nn.Sequential(*features, nn.Flatten()), classifier)


def _linear_head(
    num_features: int, num_classes: int, act: type[nn.Module], rates: Sequence[float], *, batch_norm: bool
) -> nn.Sequential:
    """Features N,F -> logits N,num_classes."""
    layers: list[nn.Module] = []
    for width, rate in zip(HIDDEN, rates, strict=True):
        norm = [nn.BatchNorm1d(width)] if batch_norm else []
        layers += [nn.Linear(num_features, width), *norm, act(), nn.Dropout(rate)]
        num_features = width
    return nn.Sequential(*layers, nn.Linear(num_features, num_classes))


def _convolutional_head(num_classes: int, act: type[nn.Module], rates: Sequence[float]) -> nn.Sequential:
    """Features N,16,H,W -> logits N,num_classes, averaged over the positions that the first convolution leaves."""
    layers: list[nn.Module] = []
    in_channels, kernel = CHANNELS[-1], HIDDEN_KERNEL
    for width, rate in zip(HIDDEN, rates, strict=True):
        layers += [nn.Conv2d(in_channels, width, kernel), nn.BatchNorm2d(width), act(), nn.Dropout(rate)]
        in_channels, kernel = width, 1
    return nn.Sequential(*layers, nn.Conv2d(in_channels, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _size_after(image_size: tuple[int, int], *, smallest: int) -> tuple[int, int]:
    """Height and width behind the second pool, at least `smallest`."""
    size = image_size
    for number, channels in enumerate(CHANNELS, start=1):
        before = size
        size = _shrunk(before[0]), _shrunk(before[1])
        if min(size) < 1:
            message = (
                f"lenet: stage {number} of {len(CHANNELS)} ({channels} channels, {KERNEL} x {KERNEL}, pool {POOL}) "
                f"shrinks {before[0]} x {before[1]} to {size[0]} x {size[1]} pixels for images of "
                f"{image_size[0]} x {image_size[1]}"
            )
            raise Unsupported(message, hint=f"both sides need at least {_least(smallest)} pixels")
    if min(size) < smallest:
        message = (
            f"lenet: the {smallest} x {smallest} convolution behind stage {len(CHANNELS)} shrinks {size[0]} x {size[1]} "
            f"to nothing for images of {image_size[0]} x {image_size[1]}"
        )
        raise Unsupported(
            message, hint=f"both sides need at least {_least(smallest)} pixels, or no fully_convolutional"
        )
    return size


def _shrunk(pixels: int) -> int:
    """What convolution and pool leave of a side."""
    return max(0, pixels - KERNEL + 1) // POOL


def _least(pixels: int) -> int:
    """The smallest side of which both stages leave so many pixels."""
    for _ in CHANNELS:
        pixels = pixels * POOL + KERNEL - 1
    return pixels
