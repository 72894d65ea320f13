"""Cut out a part of an image and bring it to the image's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import AfterValidator, Field

from bench_plugins.augmentations._batch import Fill, PaddingMode, PositiveInterval, Probability, choose, select, uniform
from bench_plugins.augmentations._boxes import Boxes, draw_boxes
from bench_plugins.augmentations._warp import sample, warp

if TYPE_CHECKING:
    from bench.kinds import Augmentation

__all__ = ["crop"]


def _at_most_one(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[1] > 1:
        raise ValueError("a fraction of the image's area is at most 1")  # pydantic reports it
    return interval


def crop(
    *,
    p: Probability = 1.0,
    method: Literal["resized", "padded"] = "resized",
    scale: Annotated[PositiveInterval, AfterValidator(_at_most_one)] = (0.08, 1.0),
    ratio: PositiveInterval = (3 / 4, 4 / 3),
    padding: Annotated[int, Field(ge=0)] = 4,
    padding_mode: PaddingMode = "constant",
    fill: Fill = 0.0,
) -> Augmentation:
    """Cut out a random part of each image; the size stays the same.

    "resized" cuts out a box and enlarges it (bilinear): `scale` is its share of the image's area, uniform; `ratio` its
    width / height, log-uniform. Torchvision's RandomResizedCrop; small objects may want a scale from 0.5 on. "padded"
    puts `padding` pixels around the image and cuts out a window of the image's size, which shifts it by whole pixels:
    torchvision's RandomCrop with padding; `padding_mode` and `fill` (0 black to 1 white) say what is put around.
    """

    def augment(
        images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = choose(images, p, generator)
        if method == "padded":
            cropped = warp(
                images, _shifts(images, padding, generator), padding_mode=padding_mode, fill=fill, mode="nearest"
            )
        else:
            drawn, fits = draw_boxes(images, scale, ratio, generator)
            cropped = _resized(images, _or_central(drawn, fits, images, ratio))
        return select(chosen, cropped, images), targets

    return augment


def _shifts(images: torch.Tensor, padding: int, generator: torch.Generator) -> torch.Tensor:
    """Maps that shift by -padding..padding whole pixels each way, N,2,3."""
    steps = uniform(images, (0, 2 * padding + 1), generator, draws=2).floor() - padding
    still = torch.eye(2, device=images.device).expand(len(images), 2, 2)
    return torch.cat((still, steps[:, :, None]), dim=2)


def _or_central(boxes: Boxes, fits: torch.Tensor, images: torch.Tensor, ratio: tuple[float, float]) -> Boxes:
    """The boxes, and where none fitted the largest central one of an allowed ratio, as in torchvision."""
    height, width = images.shape[-2:]
    box_width = max(1, min(width, round(height * ratio[1])))
    box_height = max(1, min(height, round(width / ratio[0])))
    return Boxes(
        boxes.top.where(fits, (height - box_height) // 2),
        boxes.left.where(fits, (width - box_width) // 2),
        boxes.height.where(fits, box_height),
        boxes.width.where(fits, box_width),
    )


def _resized(images: torch.Tensor, boxes: Boxes) -> torch.Tensor:
    """Each image's box enlarged to the whole image. Nothing outside the box is read."""
    height, width = images.shape[-2:]
    x = _positions(boxes.left, boxes.width, width)[:, None, :].expand(-1, height, -1)
    y = _positions(boxes.top, boxes.height, height)[:, :, None].expand(-1, -1, width)
    return sample(images, torch.stack((x, y), dim=1), padding_mode="edge")


def _positions(start: torch.Tensor, length: torch.Tensor, size: int) -> torch.Tensor:
    """Where on one axis each of `size` output pixels is read, N,size in -1..1."""
    centres = (torch.arange(size, device=start.device) + 0.5) / size * length[:, None]
    inner = torch.minimum(centres.clamp_min(0.5), length[:, None] - 0.5)  # centres of the outermost pixels
    return (start[:, None] + inner) * (2 / size) - 1
