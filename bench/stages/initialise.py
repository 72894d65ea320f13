"""Start the parameters of convolutions and fully connected layers from the distributions that a recipe names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bench.distributions import parse_distribution
from bench.errors import RecipeError

if TYPE_CHECKING:
    from bench.tables import Init

__all__ = ["initialise"]

#: The first word of a key of [init] -> the layers that it is about.
_LAYERS: Mapping[str, tuple[type[nn.Module], ...]] = {
    "conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    "linear": (nn.Linear,),
}

_FILL: Mapping[str, Callable[..., Any]] = {
    "normal": nn.init.normal_,
    "uniform": nn.init.uniform_,
    "constant": nn.init.constant_,
    "zeros": nn.init.zeros_,
    "ones": nn.init.ones_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    # He et al. 2015 derived them for ReLU; torch's own default is for a leaky one.
    "kaiming_uniform": lambda parameter: nn.init.kaiming_uniform_(parameter, nonlinearity="relu"),
    "kaiming_normal": lambda parameter: nn.init.kaiming_normal_(parameter, nonlinearity="relu"),
    "orthogonal": nn.init.orthogonal_,
}


def initialise(model: nn.Module, table: Init) -> None:
    """Fill the parameters that the recipe's [init] names, layer by layer in the model's order, in place.

    Draws from torch's global generator. Raises RecipeError where the model has nothing that a given key is about,
    ValueError where a distribution is none (`bench.distributions`).
    """
    given = {key: text for key, text in table if text}
    filled = set()
    for key, parameter in _parameters(model):
        if key in given:
            name, arguments = parse_distribution(given[key], weights=key.endswith("weight"))
            with torch.no_grad():
                _FILL[name](parameter, *arguments)
            filled.add(key)
    for key in given:
        if key not in filled:
            layer = "convolution" if key.startswith("conv") else "fully connected layer"
            what = f" with a {key.partition('_')[2]}" if key.endswith("bias") else ""
            raise RecipeError(f"init.{key}: the model has no {layer}{what}", hint=f"remove {key} from [init]")


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """(key of [init], parameter) of every layer that one is about."""
    for module in model.modules():
        for layer, kinds in _LAYERS.items():
            if isinstance(module, kinds):
                for part in ("weight", "bias"):
                    parameter = getattr(module, part)
                    if parameter is not None:
                        yield f"{layer}_{part}", parameter
