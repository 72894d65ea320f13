"""A multilayer perceptron on pixels."""

import math
from typing import Annotated

from pydantic import Field
from torch import nn

from bench.kinds import DataSpec
from bench_plugins.models._layers import Rate, Width, per_layer

__all__ = ["mlp"]


def mlp(
    spec: DataSpec,
    *,
    hidden: Annotated[tuple[Width, ...], Field(min_length=1)] = (512, 256),
    dropout: Rate | tuple[Rate, ...] = 0.0,
    batch_norm: bool | tuple[bool, ...] = False,
    bias: bool = False,
) -> nn.Module:
    """Fully connected layers with ReLU on the pixels.

    Images N,C,H,W -> logits N,num_classes. Each hidden layer is linear, BatchNorm, ReLU, dropout. `dropout` and
    `batch_norm` hold for all hidden layers, or are listed from the first one on (those beyond the list have none).
    `bias` keeps the bias of the layers that a BatchNorm follows, which it cancels; the others always have one.

    Raises Unsupported where a list is longer than `hidden`.
    """
    rates = per_layer("dropout", dropout, len(hidden))
    normalised = per_layer("batch_norm", batch_norm, len(hidden))
    layers: list[nn.Module] = [nn.Flatten()]
    num_features = spec.channels * math.prod(spec.image_size)
    for width, rate, norm in zip(hidden, rates, normalised, strict=True):
        layers.append(nn.Linear(num_features, width, bias=bias or not norm))
        layers += [nn.BatchNorm1d(width)] if norm else []
        layers += [nn.ReLU(), nn.Dropout(rate)]
        num_features = width
    layers.append(nn.Linear(num_features, spec.num_classes))
    return nn.Sequential(*layers)
