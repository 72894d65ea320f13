"""Mix pairs of images and their targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from bench_plugins.augmentations._batch import Probability, beta, choose

if TYPE_CHECKING:
    from bench.kinds import Augmentation

__all__ = ["mixup"]


def mixup(*, p: Probability = 1.0, alpha: Annotated[float, Field(gt=0)] = 0.2) -> Augmentation:
    """Blend each image and its target with another of the batch.

    The partner's share is drawn from Beta(alpha, alpha) for every image: 0.2 mostly leaves one of the two dominant, 1 makes
    every share as likely, more tends to halves. Partners are a random permutation of the batch. Zhang et al. 2018, "mixup:
    Beyond Empirical Risk Minimization", arXiv:1710.09412 (which draws one share a batch).
    """

    def augment(
        images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = choose(images, p, generator)
        partner = torch.randperm(len(images), generator=generator, device=images.device)
        share = beta(images, alpha, generator) * chosen
        mixed = torch.lerp(images, images[partner], share[:, None, None, None].to(images.dtype))
        return mixed, torch.lerp(targets, targets[partner], share[:, None].to(targets.dtype))

    return augment
