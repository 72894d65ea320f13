"""Tone curves: changes of an image that only ask for a channel's old level to give its new one."""

from __future__ import annotations

import torch

__all__ = ["LEVELS", "apply_curves", "equalizing_curves", "quantise"]

#: Levels of an 8-bit image, on which equalising and posterising are defined.
LEVELS = 256


def quantise(images: torch.Tensor) -> torch.Tensor:
    """The 8-bit level of every pixel, N,C,H*W integers."""
    return images.flatten(2).mul(LEVELS - 1).round_().long()


def apply_curves(curves: torch.Tensor, levels: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Images of a shape from a curve an image and channel (N,C,256 in 0..1) and their levels."""
    return curves.expand(-1, levels.shape[1], -1).gather(2, levels).view(shape)


def equalizing_curves(levels: torch.Tensor) -> torch.Tensor:
    """Curves that make a channel's levels equally frequent, N,C,256 in 0..1; Pillow's integer arithmetic.

    A channel of so few levels that Pillow leaves it alone keeps its levels.
    """
    count, channels, pixels = levels.shape
    # Whole numbers: their sums are the same in any order, so a GPU repeats them exactly.
    histogram = torch.zeros((count, channels, LEVELS), dtype=torch.int32, device=levels.device)
    histogram.scatter_add_(2, levels, histogram.new_ones(1).expand_as(levels))
    below = histogram.cumsum(dim=2, dtype=torch.int32)
    brightest = levels.amax(dim=2, keepdim=True)
    step = (pixels - histogram.gather(2, brightest)) // (LEVELS - 1)
    curves = (below - histogram + step // 2) // step.clamp_min(1)
    unchanged = torch.arange(LEVELS, dtype=torch.int32, device=levels.device)
    return torch.where(step > 0, curves.clamp_max(LEVELS - 1), unchanged) / (LEVELS - 1)
