"""Augmentation where images have no targets of their own, and none may be mixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from bench.errors import RecipeError

if TYPE_CHECKING:
    from bench.kinds import Augmentation

__all__ = ["augment_pairs", "own_targets"]


def augment_pairs(augment: Sequence[Augmentation], pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Augment the images N,C,H,W of pairs, each by itself.

    Raises RecipeError for an augmentation that changes targets: mixed images show nobody.
    """
    own = own_targets(len(pixels)).to(pixels.device)
    for augmentation in augment:
        pixels, after = augmentation(pixels, own, generator)
        if after is not own and not torch.equal(after, own):
            name = getattr(augmentation, "__qualname__", type(augmentation).__qualname__).partition(".")[0]
            raise RecipeError(
                f"augment: {name} mixes images and their targets, which pairs do not allow",
                hint=f"take {name} out of the recipe",
            )
    return pixels


def own_targets(count: int) -> torch.Tensor:
    """Targets count,2 for the images of pairs, which have no label: no two alike, so that mixing any two shows."""
    share = torch.linspace(0, 1, count)[:, None]
    return torch.cat([1 - share, share], 1)
