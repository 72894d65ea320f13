"""Paste a box of one image into another and mix their targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from bench_plugins.augmentations._batch import Probability, beta, choose, select, uniform
from bench_plugins.augmentations._boxes import Boxes, inside

if TYPE_CHECKING:
    from bench.kinds import Augmentation

__all__ = ["cutmix"]


def cutmix(*, p: Probability = 0.5, alpha: Annotated[float, Field(gt=0)] = 1.0) -> Augmentation:
    """Paste a box of another image into each; targets mix by area.

    The box has the image's shape and a share of its area drawn from Beta(alpha, alpha) for every image; it lies anywhere, and
    what reaches over the border is cut off. The target takes the partner's in the share of pixels that were really pasted.
    Partners are a random permutation of the batch. Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong
    Classifiers with Localizable Features", arXiv:1905.04899 (which draws one box a batch).
    """

    def augment(
        images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = choose(images, p, generator)
        partner = torch.randperm(len(images), generator=generator, device=images.device)
        boxes = _boxes(images, beta(images, alpha, generator) * chosen, generator)
        share = boxes.height * boxes.width / (images.shape[-2] * images.shape[-1])
        pasted = select(inside(boxes, images), images[partner], images)
        return pasted, torch.lerp(targets, targets[partner], share[:, None].to(targets.dtype))

    return augment


def _boxes(images: torch.Tensor, share: torch.Tensor, generator: torch.Generator) -> Boxes:
    """Boxes of a share of the image's area about a uniform centre, cut off at the border."""
    height, width = images.shape[-2:]
    top, bottom = _span(share.sqrt(), height, uniform(images, (0, height), generator))
    left, right = _span(share.sqrt(), width, uniform(images, (0, width), generator))
    return Boxes(top, left, bottom - top, right - left)


def _span(fraction: torch.Tensor, size: int, centre: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First pixel and the one after the last of a stretch of a fraction of `size` about a centre."""
    half = (0.5 * fraction * size).floor()
    middle = centre.floor()
    return (middle - half).clamp_min(0), (middle + half).clamp_max(size)
