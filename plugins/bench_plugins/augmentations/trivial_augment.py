"""TrivialAugment: one operation at one strength, both drawn at random."""

from __future__ import annotations

from enum import IntEnum, auto
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from bench_plugins.augmentations._batch import Probability, choose, luminance, select, uniform
from bench_plugins.augmentations._tone import LEVELS, apply_curves, equalizing_curves, quantise
from bench_plugins.augmentations._warp import Fill, PaddingMode, warp

if TYPE_CHECKING:
    from bench.kinds import Augmentation

__all__ = ["Operation", "trivial_augment"]

_STRONGEST = 30  # strengths are 0..30 of thirty parts


class Operation(IntEnum):
    """The fourteen operations, by the kind of work they need: a tone curve, added detail, a warp."""

    IDENTITY = 0
    BRIGHTNESS = auto()
    CONTRAST = auto()
    POSTERIZE = auto()
    SOLARIZE = auto()
    AUTO_CONTRAST = auto()
    EQUALIZE = auto()
    COLOR = auto()
    SHARPNESS = auto()
    SHEAR_X = auto()
    SHEAR_Y = auto()
    TRANSLATE_X = auto()
    TRANSLATE_Y = auto()
    ROTATE = auto()


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
        changed = _apply(images, operation, strength, sign, padding_mode, fill)
        return changed, targets

    return augment


def _apply(
    images: torch.Tensor,
    operation: torch.Tensor,
    strength: torch.Tensor,
    sign: torch.Tensor,
    padding_mode: PaddingMode,
    fill: float,
) -> torch.Tensor:
    """Every image by its own operation. Each kind of work is done once for the whole batch: no waiting for a device."""
    signed = strength * sign * 0.99
    toned = _toned(images, operation, strength, signed)
    detailed = _detailed(images, operation, signed)
    warped = warp(images, _source(images, operation, strength, sign), padding_mode=padding_mode, fill=fill)
    result = select((operation >= Operation.BRIGHTNESS) & (operation < Operation.COLOR), toned, images)
    result = select((operation >= Operation.COLOR) & (operation < Operation.SHEAR_X), detailed, result)
    return select(operation >= Operation.SHEAR_X, warped, result)


def _toned(images: torch.Tensor, operation: torch.Tensor, strength: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
    """The operations that are tone curves, computed on 256 levels instead of on every pixel."""
    levels = quantise(images)
    grey = torch.arange(LEVELS, device=images.device).expand(1, 1, LEVELS) / (LEVELS - 1)
    operation, strength, factor = (each[:, None, None] for each in (operation, strength, 1 + signed))
    mean = luminance(images).mean(dim=(2, 3))[:, :, None]
    step = torch.exp2((6 * strength).round())  # 8 bits down to 2
    low, high = images.amin(dim=(2, 3))[:, :, None], images.amax(dim=(2, 3))[:, :, None]
    stretched = torch.where(high > low, (grey - low) / (high - low).clamp_min(1 / LEVELS), grey)
    solarized = torch.where(grey >= 1 - strength, 1 - grey, grey)
    curves = torch.where(operation == Operation.BRIGHTNESS, grey * factor, equalizing_curves(levels))
    curves = torch.where(operation == Operation.CONTRAST, torch.lerp(mean, grey, factor), curves)
    posterized = (grey * (LEVELS - 1) / step).floor() * step / (LEVELS - 1)
    curves = torch.where(operation == Operation.POSTERIZE, posterized, curves)
    curves = torch.where(operation == Operation.SOLARIZE, solarized, curves)
    curves = torch.where(operation == Operation.AUTO_CONTRAST, stretched, curves)
    return apply_curves(curves.clamp_(0, 1), levels, images.shape)


def _detailed(images: torch.Tensor, operation: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
    """Colour and sharpness: what a grey or a smooth copy lacks, added or taken away."""
    sharpness = (operation == Operation.SHARPNESS)[:, None, None, None]
    detail = torch.where(sharpness, _rough(images), images - luminance(images))
    return torch.addcmul(images, detail, signed[:, None, None, None]).clamp_(0, 1)


def _rough(images: torch.Tensor) -> torch.Tensor:
    """Images less their smooth copy: neighbours count 1/13 each, the pixel itself 5/13. Borders count as smooth."""
    if min(images.shape[-2:]) < 3:  # noqa: PLR2004 - no pixel has all its neighbours
        return torch.zeros_like(images)
    triples = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    nines = triples[..., :-2] + triples[..., 1:-1] + triples[..., 2:]
    inner = images[..., 1:-1, 1:-1]
    return pad((9 * inner - nines) / 13, (1, 1, 1, 1))


def _source(images: torch.Tensor, operation: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """Where each pixel comes from, N,2,3 (see `affine_map`); shears keep the upper left corner, as in torchvision."""
    height, width = images.shape[-2:]
    amount = strength * sign
    shear_x = 0.99 * amount * (operation == Operation.SHEAR_X)
    shear_y = 0.99 * amount * (operation == Operation.SHEAR_Y)
    pixels = (32 * strength).floor() * sign
    angle = (135 * amount * (operation == Operation.ROTATE)).deg2rad()
    dx = shear_x * (height / 2) - pixels * (operation == Operation.TRANSLATE_X)
    dy = shear_y * (width / 2) - pixels * (operation == Operation.TRANSLATE_Y)
    cosine, sine = angle.cos(), angle.sin()
    rows = (cosine, shear_x - sine, dx, shear_y + sine, cosine, dy)
    return torch.stack(rows, dim=-1).view(-1, 2, 3)
