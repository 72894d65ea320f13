"""Rotate images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench_plugins.augmentations._batch import (
    Fill,
    Interval,
    PaddingMode,
    Probability,
    choose,
    select,
    symmetric,
    uniform,
)
from bench_plugins.augmentations._warp import affine_map, warp

if TYPE_CHECKING:
    from bench.kinds import Augmentation

__all__ = ["rotation"]


def rotation(
    *,
    p: Probability = 1.0,
    degrees: float | Interval = 15.0,
    padding_mode: PaddingMode = "constant",
    fill: Fill = 0.0,
) -> Augmentation:
    """Rotate each image about its centre by a random angle.

    The angle, counter-clockwise, is uniform in (-degrees, degrees), or in the interval given. The size stays; bilinear;
    the corners that come into view are `padding_mode`'s ("constant": the grey level `fill`, 0 black to 1 white).
    Torchvision's RandomRotation with an angle of its own for every image.
    """

    def augment(
        images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = choose(images, p, generator)
        angle = uniform(images, symmetric(degrees), generator)
        still, same_size = torch.zeros_like(angle), torch.ones_like(angle)
        source = affine_map(-angle, (still, still), same_size, still)
        warped = warp(images, source, padding_mode=padding_mode, fill=fill)
        return select(chosen, warped, images), targets

    return augment
