"""Mirror images left to right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

if TYPE_CHECKING:
    from bench.kinds import Augmentation

__all__ = ["horizontal_flip"]


def horizontal_flip(*, p: Annotated[float, Field(ge=0, le=1)] = 0.5) -> Augmentation:
    """Mirror each image left to right with probability p."""

    def augment(
        images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.rand(len(images), generator=generator, device=images.device) < p
        return torch.where(chosen[:, None, None, None], images.flip(-1), images), targets

    return augment
