"""Offline augmentation: a training set several times over, augmented once, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import psutil
import torch

from bench.errors import RecipeError
from bench.stages.image_set import ImageSet
from bench.stages.pair_augmentation import own_targets

if TYPE_CHECKING:
    from bench.kinds import Augmentation

__all__ = ["multiply"]

_PORTION = 256


def multiply(images: ImageSet, augment: Sequence[Augmentation], copies: int, *, seed: int) -> ImageSet:
    """The set as it is, followed by copies - 1 of it whose images are augmented, each by a draw of its own.

    Raises RecipeError where there is nothing to augment with, where an augmentation changes targets, and where the
    copies do not fit into half of the free memory.
    """
    if not augment:
        raise RecipeError("data.copies: copies without an [[augment]] would all be the same", hint="add an [[augment]]")
    rows = images.distinct_rows()
    count = len(rows)
    needed = copies * count * int(np.prod(images.images.shape[1:]))
    if needed > psutil.virtual_memory().available / 2:
        raise RecipeError(
            f"data.copies: {copies} copies of {count:,} images need {needed / 1e9:.1f} GB, more than half of what is free",
            hint="--set data.copies=1 augments anew in every epoch, which needs no memory",
        )
    array = np.empty((copies * count, *images.images.shape[1:]), dtype=np.uint8)
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, count, _PORTION):
        stop = min(start + _PORTION, count)
        array[start:stop] = images.images[rows[start:stop]]
        original = torch.from_numpy(array[start:stop]).permute(0, 3, 1, 2).float().div(255)
        for copy in range(1, copies):
            drawn = _augmented(original, own_targets(stop - start), augment, generator)
            array[copy * count + start : copy * count + stop] = drawn
    places = np.searchsorted(rows, images.rows) if images.rows.ndim > 1 else np.arange(count)
    return ImageSet(
        array,
        np.concatenate([places + copy * count for copy in range(copies)]),
        np.tile(images.labels, copies),
        tuple(f"{id_}#{copy}" if copy else id_ for copy in range(copies) for id_ in images.ids),
    )


def _augmented(
    images: torch.Tensor, targets: torch.Tensor, augment: Sequence[Augmentation], generator: torch.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """One draw of float N,C,H,W as uint8 N,H,W,C."""
    for augmentation in augment:
        images, after = augmentation(images, targets, generator)
        if after is not targets and not torch.equal(after, targets):
            raise RecipeError(
                "data.copies: an augmentation that mixes images and their targets cannot be made once and for all",
                hint="--set data.copies=1, or take mixup and cutmix out of the recipe",
            )
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = (
        images.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    )
    return pixels
