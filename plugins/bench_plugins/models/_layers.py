"""What several models are made of: option types, values per layer, fully connected heads."""

from collections.abc import Sequence
from typing import Annotated, TypeAlias

from pydantic import Field
from torch import nn

from bench.errors import Unsupported
from bench.kinds import DataSpec

__all__ = ["Rate", "Width", "head", "num_logits", "per_layer"]

#: A probability with which values are dropped.
Rate: TypeAlias = Annotated[float, Field(ge=0, lt=1)]

#: A number of units or channels.
Width: TypeAlias = Annotated[int, Field(ge=1)]


def per_layer(option: str, given: float | Sequence[float], num_layers: int) -> tuple[float, ...]:
    """One value for each layer: a lone value holds for all, a short list is filled up with 0 (or false).

    Raises Unsupported, naming the option, where the list is longer than there are layers.
    """
    if not isinstance(given, Sequence):
        return (given,) * num_layers
    if len(given) > num_layers:
        message = f"{option} has {len(given)} values for {num_layers} layers"
        raise Unsupported(message, hint=f"give at most {num_layers}, or one value for all")
    return (*given, *(0,) * (num_layers - len(given)))


def head(
    in_features: int, num_classes: int, *, hidden: Sequence[int] = (), dropout: float | Sequence[float] = 0.0
) -> nn.Sequential:
    """Features N,in_features -> logits N,num_classes through hidden layers with ReLU.

    There is a dropout in front of each linear layer, the classifier included, so names in a state dict do not depend
    on the rates.
    """
    widths = (*hidden, num_classes)
    layers: list[nn.Module] = []
    for width, rate in zip(widths, per_layer("dropout", dropout, len(widths)), strict=True):
        if layers:
            layers.append(nn.ReLU())
        layers += [nn.Dropout(rate), nn.Linear(in_features, width)]
        in_features = width
    return nn.Sequential(*layers)


def num_logits(model: str, spec: DataSpec, *, single: bool) -> int:
    """One output a class, or a single one for two classes. Raises Unsupported where there are not two."""
    if not single:
        return spec.num_classes
    if spec.num_classes != 2:  # noqa: PLR2004 -- two
        message = f"{model}: single_logit is one output for two classes, but there are {spec.num_classes}"
        raise Unsupported(message, hint="leave single_logit out: the loss bce takes one output a class, too")
    return 1
