"""Rotate, shift, scale and shear images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bench_plugins.augmentations._batch import (
    Fill,
    Interval,
    PaddingMode,
    PositiveInterval,
    Probability,
    choose,
    select,
    symmetric,
    uniform,
)
from bench_plugins.augmentations._warp import affine_map, warp

if TYPE_CHECKING:
    import torch

    from bench.kinds import Augmentation

__all__ = ["affine"]

_Fraction = Annotated[float, Field(ge=0, le=1)]
_Steep = Annotated[float, Field(gt=-90, lt=90)]


def affine(
    *,
    p: Probability = 1.0,
    degrees: float | Interval = 10.0,
    translate: _Fraction | tuple[_Fraction, _Fraction] = 0.1,
    scale: PositiveInterval = (0.9, 1.1),
    shear: _Steep | Interval = 0.0,
    padding_mode: PaddingMode = "constant",
    fill: Fill = 0.0,
) -> Augmentation:
    """Rotate, shift, scale and shear each image about its centre.

    `degrees` (clockwise) and `shear` (degrees, along x) are drawn from the interval given, or from (-d, d) for a number
    d. `translate` is the largest shift as a fraction of width and height: one for both, or (horizontal, vertical).
    `scale` is a factor, above 1 enlarges. Bilinear; what comes into view is `padding_mode`'s ("constant": the grey level
    `fill`, 0 black to 1 white). Torchvision's RandomAffine, but with an angle of its own for every image and shifts that
    are not rounded to whole pixels.
    """
    shift_x, shift_y = translate if isinstance(translate, tuple) else (translate, translate)

    def augment(
        images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = images.shape[-2:]
        chosen = choose(images, p, generator)
        source = affine_map(
            uniform(images, symmetric(degrees), generator),
            (
                uniform(images, symmetric(shift_x * width), generator),
                uniform(images, symmetric(shift_y * height), generator),
            ),
            uniform(images, scale, generator),
            uniform(images, symmetric(shear), generator),
        )
        warped = warp(images, source, padding_mode=padding_mode, fill=fill)
        return select(chosen, warped, images), targets

    return augment
