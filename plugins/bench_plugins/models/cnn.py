"""A plain convolutional network for small images."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from bench.errors import Unsupported
from bench.kinds import DataSpec
from bench_plugins.models._layers import Rate, Width, head, num_logits

__all__ = ["cnn"]

KERNEL = 3


class ConvNet(nn.Module):
    """Blocks of convolutions, then pooling over all positions or none, then a fully connected head."""

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Images N,C,H,W -> features N,F."""
        return self.features(images)  # type: ignore[no-any-return]  # torch types a module's call as Any

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        """Features N,F -> logits N,num_classes."""
        return self.classifier(features)  # type: ignore[no-any-return]  # as above

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images N,C,H,W -> logits N,num_classes."""
        return self.forward_head(self.forward_features(images))


def cnn(
    spec: DataSpec,
    *,
    channels: Annotated[tuple[Width, ...], Field(min_length=1)] = (32, 64, 128),
    convs_per_block: Annotated[int, Field(ge=1, le=8)] = 2,
    pools: Width | tuple[Width, ...] = 2,
    padding: bool = True,
    batch_norm: bool = True,
    bias: bool = False,
    global_pool: bool = True,
    hidden: tuple[Width, ...] = (),
    dropout: Rate | tuple[Rate, ...] = 0.0,
    single_logit: bool = False,
) -> nn.Module:
    """Blocks of 3 x 3 convolutions, for images of 8 to 64 pixels.

    Images N,C,H,W -> logits N,num_classes. A block is `convs_per_block` times convolution, BatchNorm, ReLU, then a
    max-pool of its entry in `pools` (one value holds for all; 1 pools nothing). `global_pool` averages over the
    positions that are left; otherwise they are flattened. `dropout` acts in front of each fully connected layer, the
    classifier included. `bias` keeps the convolutions' biases although a BatchNorm cancels them. `single_logit` makes
    it N,1, one output for two classes, for the loss bce.

    Raises Unsupported where a block shrinks the image below one pixel, the lengths of the lists do not agree, or
    `single_logit` meets more than two classes.
    """
    num_outputs = num_logits("cnn", spec, single=single_logit)
    windows = (pools,) * len(channels) if isinstance(pools, int) else pools
    if len(windows) != len(channels):
        message = f"cnn: pools has {len(windows)} values for {len(channels)} blocks"
        raise Unsupported(message, hint=f"give {len(channels)}, one for each entry of channels, or one value")
    shrink = 0 if padding else (KERNEL - 1) * convs_per_block
    height, width = _size_after(spec.image_size, channels, windows, shrink)
    layers: list[nn.Module] = []
    in_channels = spec.channels
    for out_channels, window in zip(channels, windows, strict=True):
        for _ in range(convs_per_block):
            layers += _convolution(in_channels, out_channels, padding=padding, batch_norm=batch_norm, bias=bias)
            in_channels = out_channels
        layers += [nn.MaxPool2d(window)] if window > 1 else []
    layers += [nn.AdaptiveAvgPool2d(1)] if global_pool else []
    num_features = in_channels * (1 if global_pool else height * width)
    classifier = head(num_features, num_outputs, hidden=hidden, dropout=dropout)
    return ConvNet(nn.Sequential(*layers, nn.Flatten()), classifier)


def _convolution(
    in_channels: int, out_channels: int, *, padding: bool, batch_norm: bool, bias: bool
) -> list[nn.Module]:
    bias = bias or not batch_norm
    convolution = nn.Conv2d(in_channels, out_channels, KERNEL, padding=KERNEL // 2 * padding, bias=bias)
    norm: list[nn.Module] = [nn.BatchNorm2d(out_channels)] if batch_norm else []
    return [convolution, *norm, nn.ReLU()]


def _size_after(
    image_size: tuple[int, int], channels: Sequence[int], windows: Sequence[int], shrink: int
) -> tuple[int, int]:
    """Height and width behind the last block, at least 1."""
    height, width = image_size
    for number, window in enumerate(windows, start=1):
        before = f"{height} x {width}"
        height, width = max(0, height - shrink) // window, max(0, width - shrink) // window
        if height < 1 or width < 1:
            message = (
                f"cnn: block {number} of {len(windows)} ({channels[number - 1]} channels, pool {window}) shrinks "
                f"{before} to {height} x {width} pixels for images of {image_size[0]} x {image_size[1]}"
            )
            raise Unsupported(message, hint="larger images, smaller pools, fewer blocks or padding = true")
    return height, width
