"""A random box in every image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bench_plugins.augmentations._batch import uniform

__all__ = ["Boxes", "draw_boxes", "inside"]

_ATTEMPTS = 10  # as many as torchvision makes


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """One box an image, in whole pixels: four tensors of N floats."""

    top: torch.Tensor
    left: torch.Tensor
    height: torch.Tensor
    width: torch.Tensor


def draw_boxes(
    images: torch.Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Boxes, torch.Tensor]:
    """Boxes whose area is a fraction of the image uniform in `scale`, and whose width / height is log-uniform in `ratio`.

    The first of ten candidates that fits is taken, at a uniform position. Also returns N booleans: false where none
    fitted, and the box means nothing.
    """
    height, width = images.shape[-2:]
    area = uniform(images, scale, generator, draws=_ATTEMPTS) * (height * width)
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
    aspect = uniform(images, log_ratio, generator, draws=_ATTEMPTS).exp()
    widths, heights = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first of equal maxima
    box_width, box_height = widths.gather(1, first)[:, 0], heights.gather(1, first)[:, 0]
    top = (uniform(images, (0, 1), generator) * (height - box_height + 1)).floor()
    left = (uniform(images, (0, 1), generator) * (width - box_width + 1)).floor()
    return Boxes(top, left, box_height, box_width), fits.any(dim=1)


def inside(boxes: Boxes, images: torch.Tensor) -> torch.Tensor:
    """Which pixels lie in their image's box, N,1,H,W booleans."""
    rows = torch.arange(images.shape[-2], device=images.device) - boxes.top[:, None]
    columns = torch.arange(images.shape[-1], device=images.device) - boxes.left[:, None]
    in_rows = (rows >= 0) & (rows < boxes.height[:, None])
    in_columns = (columns >= 0) & (columns < boxes.width[:, None])
    return in_rows[:, None, :, None] & in_columns[:, None, None, :]
