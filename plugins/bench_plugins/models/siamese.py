"""A Siamese network: two images through one convolutional twin, and a distance between its outputs."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import nn

from bench.errors import Unsupported
from bench.kinds import DataSpec
from bench.schema import Table
from bench_plugins.models._layers import Rate, Width, per_layer
from bench_plugins.models._pairs import DistanceName, PairNet, distance_between, require_verification

__all__ = ["Block", "siamese"]

Activation: TypeAlias = Literal["sigmoid", "relu", "none"]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "none": nn.Identity}


class Block(Table):
    """A table of `[[model.blocks]]`: convolution, ReLU, max-pool, BatchNorm, dropout, in this order."""

    channels: Width = Field(description="output channels of the convolution")
    kernel: Width = Field(description="its side in pixels")
    stride: Width = Field(default=1, description="its step in pixels")
    padding: int = Field(default=0, ge=0, description="zeros on every side of its input, in pixels")
    pool: Width = Field(default=1, description="side and step of the max-pool; 1: none")
    batch_norm: bool = Field(default=False, description="BatchNorm behind the pool")
    dropout: Rate = Field(default=0.0, description="probability with which a value is dropped")


#: The network of Koch et al. 2015.
KOCH = (
    Block(channels=64, kernel=10, pool=2),
    Block(channels=128, kernel=7, pool=2),
    Block(channels=128, kernel=4, pool=2),
    Block(channels=256, kernel=4),
)


class Siamese(PairNet):
    """`twin` maps an image to its embedding, `distance` compares two of them."""

    def __init__(self, twin: nn.Sequential, distance: nn.Module) -> None:
        super().__init__(distance)
        self.twin = twin
        self.distance = distance

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Images N,C,H,W -> embeddings N,F."""
        return self.twin(images)  # type: ignore[no-any-return]  # torch types a module's call as Any

    def forward_head(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Embeddings N,F of both sides -> logits or distances N,1."""
        return self.distance(first, second)  # type: ignore[no-any-return]  # as above


def siamese(
    spec: DataSpec,
    *,
    blocks: Annotated[tuple[Block, ...], Field(min_length=1)] = KOCH,
    embedding: Annotated[tuple[Width, ...], Field(min_length=1)] = (4096,),
    embedding_activation: Activation | tuple[Activation, ...] = "sigmoid",
    embedding_dropout: Rate | tuple[Rate, ...] = 0.0,
    embedding_batch_norm: bool | tuple[bool, ...] = False,
    distance: DistanceName = "weighted_l1",
) -> nn.Module:
    """Two images through one convolutional network, compared by a distance of their embeddings.

    Images N,C,H,W twice -> N,1. Each table of `blocks` is convolution, ReLU, max-pool, BatchNorm, dropout; each entry
    of `embedding` is linear, BatchNorm, activation, dropout, with one value for all of them or a list from the first
    on (`embedding_activation` one for each). `distance` weighted_l1 and cosine give the logit of "same", for the loss
    bce, euclidean a distance for the loss contrastive. Both sides go through the twin as one batch. 105 x 105 x 3 and
    the defaults: 38,960,448 parameters in the twin.

    Raises Unsupported for data that are no pairs, for a block that shrinks the image below one pixel, and for lists of
    another length. Source: Koch, Zemel, Salakhutdinov 2015, Siamese neural networks for one-shot image recognition.
    """
    require_verification("siamese", spec)
    height, width = _size_after(spec.image_size, blocks)
    features = _features(spec.channels, blocks)
    num_features = blocks[-1].channels * height * width
    dense = _embedding(
        num_features,
        embedding,
        activation=embedding_activation,
        dropout=embedding_dropout,
        batch_norm=embedding_batch_norm,
    )
    twin = nn.Sequential(OrderedDict(features=features, embedding=dense))
    return Siamese(twin, distance_between(distance, embedding[-1]))


def _features(in_channels: int, blocks: Sequence[Block]) -> nn.Sequential:
    """Images N,C,H,W -> features N,F."""
    layers: list[nn.Module] = []
    for block in blocks:
        parts = OrderedDict[str, nn.Module](
            convolution=nn.Conv2d(in_channels, block.channels, block.kernel, block.stride, block.padding),
            activation=nn.ReLU(),
        )
        if block.pool > 1:
            parts["pool"] = nn.MaxPool2d(block.pool)
        if block.batch_norm:
            parts["norm"] = nn.BatchNorm2d(block.channels)
        parts["dropout"] = nn.Dropout(block.dropout)
        layers.append(nn.Sequential(parts))
        in_channels = block.channels
    return nn.Sequential(*layers, nn.Flatten())


def _embedding(
    num_features: int,
    widths: Sequence[int],
    *,
    activation: Activation | tuple[Activation, ...],
    dropout: float | Sequence[float],
    batch_norm: bool | Sequence[bool],
) -> nn.Sequential:
    """Features N,F -> embeddings N,widths[-1]."""
    activations = (activation,) * len(widths) if isinstance(activation, str) else activation
    if len(activations) != len(widths):
        message = f"siamese: embedding_activation has {len(activations)} values for {len(widths)} layers"
        raise Unsupported(message, hint=f"give {len(widths)}, one for each entry of embedding, or one value")
    rates = per_layer("embedding_dropout", dropout, len(widths))
    normalised = per_layer("embedding_batch_norm", batch_norm, len(widths))
    layers: list[nn.Module] = []
    for width, name, rate, norm in zip(widths, activations, rates, normalised, strict=True):
        parts = OrderedDict[str, nn.Module](linear=nn.Linear(num_features, width))
        if norm:
            parts["norm"] = nn.BatchNorm1d(width)
        parts |= OrderedDict(activation=_ACTIVATIONS[name](), dropout=nn.Dropout(rate))
        layers.append(nn.Sequential(parts))
        num_features = width
    return nn.Sequential(*layers)


def _size_after(image_size: tuple[int, int], blocks: Sequence[Block]) -> tuple[int, int]:
    """Height and width behind the last block, at least 1."""
    size = image_size
    for number, block in enumerate(blocks, start=1):
        before = size
        size = _shrunk(before[0], block), _shrunk(before[1], block)
        if min(size) < 1:
            message = (
                f"siamese: block {number} of {len(blocks)} ({block.channels} channels, kernel {block.kernel}, pool "
                f"{block.pool}) shrinks {before[0]} x {before[1]} to {size[0]} x {size[1]} pixels for images of "
                f"{image_size[0]} x {image_size[1]}"
            )
            raise Unsupported(message, hint="larger images, smaller kernels or pools, padding, or fewer blocks")
    return size


def _shrunk(pixels: int, block: Block) -> int:
    """What a block leaves of a side; 0 where the kernel does not fit."""
    room = pixels + 2 * block.padding - block.kernel
    return (room // block.stride + 1) // block.pool if room >= 0 else 0


def _example(_: Path) -> dict[str, object]:
    """Koch's network is for 105 pixels and takes seconds; the checks take a small one."""
    blocks = [{"channels": 8, "kernel": 5, "pool": 2, "batch_norm": True}, {"channels": 16, "kernel": 3, "pool": 4}]
    return {"blocks": blocks, "embedding": [32]}


siamese.example = _example  # type: ignore[attr-defined]  # the conformance checks look for this attribute
