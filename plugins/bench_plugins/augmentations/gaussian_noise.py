"""Add noise to images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from bench_plugins.augmentations._batch import Probability, choose, select

if TYPE_CHECKING:
    from bench.kinds import Augmentation

__all__ = ["gaussian_noise"]


def gaussian_noise(*, p: Probability = 0.5, std: Annotated[float, Field(ge=0)] = 0.05) -> Augmentation:
    """Add Gaussian noise to every pixel of an image with probability p.

    `std` is the standard deviation on the scale 0 black to 1 white; the sum is cut off at 0 and 1. Torchvision's
    GaussianNoise with mean 0.
    """

    def augment(
        images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = choose(images, p, generator)
        noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        noisy = noise.mul_(std).add_(images).clamp_(0, 1)
        return select(chosen, noisy, images), targets

    return augment
