"""What the augmentations share: types of options, one draw for every image, and choosing between two batches."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import AfterValidator, Field

__all__ = [
    "Fill",
    "Interval",
    "PaddingMode",
    "PositiveInterval",
    "Probability",
    "beta",
    "choose",
    "luminance",
    "select",
    "symmetric",
    "uniform",
]


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("the first number must not be greater than the second")  # pydantic reports it
    return interval


Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
#: (low, high), both included.
Interval: TypeAlias = Annotated[tuple[float, float], AfterValidator(_ordered)]
PositiveInterval: TypeAlias = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ordered)
]
#: What lies outside an image: `fill`, its outermost pixels, or its mirror image (torchvision's names).
PaddingMode: TypeAlias = Literal["constant", "edge", "symmetric"]
#: The grey level of "constant" padding, 0 black to 1 white.
Fill: TypeAlias = Annotated[float, Field(ge=0, le=1)]


def symmetric(value: float | tuple[float, float]) -> tuple[float, float]:
    """A single number d as the interval (-d, d); an interval as it is."""
    return value if isinstance(value, tuple) else (-value, value)


def uniform(
    images: torch.Tensor, interval: tuple[float, float], generator: torch.Generator, *, draws: int = 1
) -> torch.Tensor:
    """Independent uniform draws from an interval: N for one draw an image, N,draws for more."""
    low, high = interval
    shape = (len(images),) if draws == 1 else (len(images), draws)
    drawn = torch.rand(shape, generator=generator, device=images.device)
    return drawn.mul_(high - low).add_(low)


def beta(images: torch.Tensor, alpha: float, generator: torch.Generator) -> torch.Tensor:
    """One draw an image from Beta(alpha, alpha), N float32 in 0..1."""
    # torch.distributions takes no generator; this is the sampler beneath it. Gamma draws for a small alpha underflow
    # float32, hence float64.
    shape = torch.full((2, len(images)), alpha, dtype=torch.float64, device=images.device)
    first, second = torch._standard_gamma(shape, generator=generator).clamp_min(1e-300)  # noqa: SLF001 - see above
    share: torch.Tensor = first / (first + second)
    return share.float()


def choose(images: torch.Tensor, p: float, generator: torch.Generator) -> torch.Tensor:
    """Which images are changed: N booleans, each true with probability p."""
    return torch.rand(len(images), generator=generator, device=images.device) < p


def select(mask: torch.Tensor, altered: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """`altered` where the mask (N, or any shape that broadcasts to N,C,H,W) is true, `images` elsewhere, both bit for bit.

    With a weight of 0 or 1 lerp returns its operands exactly, and on a CPU it is several times faster than torch.where.
    """
    mask = mask[:, None, None, None] if mask.ndim == 1 else mask
    return torch.lerp(images, altered, mask.to(images.dtype))


def luminance(images: torch.Tensor) -> torch.Tensor:
    """The grey version N,1,H,W by the weights of ITU-R BT.601, as in torchvision; grey images as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images[:, :1], images[:, 1:2], images[:, 2:]
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
