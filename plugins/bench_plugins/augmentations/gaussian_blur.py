"""Blur images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch.nn.functional import conv2d, pad

from bench_plugins.augmentations._batch import PositiveInterval, Probability, choose, select, uniform

if TYPE_CHECKING:
    from bench.kinds import Augmentation

__all__ = ["gaussian_blur"]


def gaussian_blur(
    *,
    p: Probability = 0.5,
    sigma: PositiveInterval = (0.1, 2.0),
    kernel_size: Annotated[int, Field(ge=1)] | None = None,
) -> Augmentation:
    """Blur each image with probability p, by a random amount.

    `sigma`, the standard deviation of the Gaussian in pixels, is uniform in the interval, for every image anew.
    `kernel_size` is the filter's width in pixels, odd (an even one is widened by one pixel); by default it reaches three
    of the largest sigmas each way. Borders are mirrored. Torchvision's GaussianBlur.
    """
    radius = math.ceil(3 * sigma[1]) if kernel_size is None else kernel_size // 2

    def augment(
        images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = choose(images, p, generator)
        blurred = _blur(images, uniform(images, sigma, generator), radius)
        return select(chosen, blurred, images), targets

    return augment


def _blur(images: torch.Tensor, sigma: torch.Tensor, radius: int) -> torch.Tensor:
    """Each image blurred with its own sigma: down the columns, then along the rows."""
    count, channels, height, width = images.shape
    up, across = min(radius, height - 1), min(radius, width - 1)  # a mirror shows no more than the image
    # All images' channels as the groups of one convolution: every one meets its own kernel.
    planes = pad(images, (across, across, up, up), mode="reflect").reshape(1, count * channels, height + 2 * up, -1)
    groups = count * channels
    planes = conv2d(planes, _kernels(sigma, up, channels)[:, None, :, None], groups=groups)
    planes = conv2d(planes, _kernels(sigma, across, channels)[:, None, None, :], groups=groups)
    return planes.view(images.shape).clamp_(0, 1)


def _kernels(sigma: torch.Tensor, radius: int, channels: int) -> torch.Tensor:
    """Gaussian weights that sum to 1, N*channels,2*radius+1."""
    distance = torch.arange(-radius, radius + 1, device=sigma.device)
    return (-0.5 * (distance / sigma[:, None]) ** 2).softmax(dim=1).repeat_interleave(channels, dim=0)
