"""TrivialAugment: one operation at one strength, both drawn at random."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench_plugins.augmentations._batch import Fill, PaddingMode, Probability, choose, select, uniform
from bench_plugins.augmentations._operations import Operation, detailed, toned, warped

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from bench.kinds import Augmentation

    #: Images, operation, strength and sign (N each) -> images.
    _Work = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

__all__ = ["trivial_augment"]

_STRONGEST = 30  # strengths are 0..30 of thirty parts


def trivial_augment(*, p: Probability = 1.0, padding_mode: PaddingMode = "constant", fill: Fill = 0.0) -> Augmentation:
    """Change each image by one of 14 operations at a random strength.

    The wide space of Müller & Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation",
    arXiv:2103.10158, as in torchvision's TrivialAugmentWide: shears to 0.99, shifts to 32 pixels whatever the image's
    size, rotation to 135 degrees, brightness, colour, contrast and sharpness by factors of 0.01 to 1.99, posterise,
    solarise, autocontrast, equalise, identity. Bilinear (torchvision: nearest); `padding_mode` and `fill` (0 black to 1
    white) say what comes into view.
    """

    def augment(
        images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = choose(images, p, generator)
        operation = uniform(images, (0, len(Operation)), generator).floor() * chosen  # 0 is the identity
        strength = uniform(images, (0, _STRONGEST + 1), generator).floor() / _STRONGEST
        sign = uniform(images, (0, 2), generator).floor() * 2 - 1
        return _apply(images, operation, strength, sign, padding_mode, fill), targets

    return augment


def _apply(
    images: torch.Tensor,
    operation: torch.Tensor,
    strength: torch.Tensor,
    sign: torch.Tensor,
    padding_mode: PaddingMode,
    fill: float,
) -> torch.Tensor:
    """Every image by its own operation; each kind of work is done once, for all images that need it."""
    kinds: tuple[tuple[Operation, Operation, _Work], ...] = (
        (Operation.BRIGHTNESS, Operation.EQUALIZE, toned),
        (Operation.COLOR, Operation.SHARPNESS, detailed),
        (Operation.SHEAR_X, Operation.ROTATE, partial(warped, padding_mode=padding_mode, fill=fill)),
    )
    result = images
    for first, last, work in kinds:
        mask = (operation >= first) & (operation <= last)
        if images.device.type == "cpu":
            rows = mask.nonzero()[:, 0]
            done = work(images[rows], operation[rows], strength[rows], sign[rows])
            result = result.index_copy(0, rows, done)
        else:  # to count rows would wait for the device: cheaper to do all
            result = select(mask, work(images, operation, strength, sign), result)
    return result
