"""Erase a box of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field

from bench_plugins.augmentations._batch import PositiveInterval, Probability, choose, select
from bench_plugins.augmentations._boxes import draw_boxes, inside

if TYPE_CHECKING:
    from bench.kinds import Augmentation

__all__ = ["random_erasing"]


def random_erasing(
    *,
    p: Probability = 0.5,
    scale: PositiveInterval = (0.02, 0.33),
    ratio: PositiveInterval = (0.3, 3.3),
    value: Annotated[float, Field(ge=0, le=1)] | Literal["random"] = 0.0,
) -> Augmentation:
    """Overwrite a random box of each image with probability p.

    `scale` is the box's share of the image's area, uniform; `ratio` its height / width, log-uniform. It is filled with the
    grey level `value`, 0 black to 1 white, or for "random" with uniform noise. An image that no box of ten fits is left as
    it is. Torchvision's RandomErasing, on images before normalisation; Zhong et al. 2017, arXiv:1708.04896. Cutout (DeVries
    & Taylor 2017, arXiv:1708.04552) is a fixed square: p = 1, ratio = [1, 1] and scale = [s, s].
    """
    width_by_height = (1 / ratio[1], 1 / ratio[0])

    def augment(
        images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = choose(images, p, generator)
        boxes, fits = draw_boxes(images, scale, width_by_height, generator)
        erased = inside(boxes, images) & (chosen & fits)[:, None, None, None]
        return select(erased, _patch(images, value, generator), images), targets

    return augment


def _patch(images: torch.Tensor, value: float | Literal["random"], generator: torch.Generator) -> torch.Tensor:
    if value == "random":
        return torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return torch.full_like(images[:1], value)
