"""The operations of TrivialAugment, in the three kinds of work that they need."""

from __future__ import annotations

from enum import IntEnum, auto
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from bench_plugins.augmentations._batch import luminance
from bench_plugins.augmentations._tone import LEVELS, apply_curves, equalizing_curves, quantise
from bench_plugins.augmentations._warp import warp

if TYPE_CHECKING:
    from bench_plugins.augmentations._batch import PaddingMode

__all__ = ["Operation", "detailed", "toned", "warped"]


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


def toned(images: torch.Tensor, operation: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """The operations that are tone curves, computed on 256 levels instead of on every pixel."""
    levels = quantise(images)
    grey = torch.arange(LEVELS, device=images.device).expand(1, 1, LEVELS) / (LEVELS - 1)
    factor = 1 + 0.99 * strength * sign
    operation, strength, factor = (each[:, None, None] for each in (operation, strength, factor))
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


def detailed(images: torch.Tensor, operation: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """Colour and sharpness: what a grey or a smooth copy lacks, added or taken away."""
    sharpness = (operation == Operation.SHARPNESS)[:, None, None, None]
    detail = torch.where(sharpness, _rough(images), images - luminance(images))
    amount = (0.99 * strength * sign)[:, None, None, None]
    return torch.addcmul(images, detail, amount).clamp_(0, 1)


def _rough(images: torch.Tensor) -> torch.Tensor:
    """Images less their smooth copy: neighbours count 1/13 each, the pixel itself 5/13. Borders count as smooth."""
    if min(images.shape[-2:]) < 3:  # noqa: PLR2004 - no pixel has all its neighbours
        return torch.zeros_like(images)
    triples = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    nines = triples[..., :-2] + triples[..., 1:-1] + triples[..., 2:]
    inner = images[..., 1:-1, 1:-1]
    return pad((9 * inner - nines) / 13, (1, 1, 1, 1))


def warped(
    images: torch.Tensor,
    operation: torch.Tensor,
    strength: torch.Tensor,
    sign: torch.Tensor,
    *,
    padding_mode: PaddingMode,
    fill: float,
) -> torch.Tensor:
    """The geometric operations; shears keep the upper left corner where it is, as in torchvision."""
    height, width = images.shape[-2:]
    amount = strength * sign
    shear_x = 0.99 * amount * (operation == Operation.SHEAR_X)
    shear_y = 0.99 * amount * (operation == Operation.SHEAR_Y)
    pixels = (32 * strength).floor() * sign
    angle = (135 * amount * (operation == Operation.ROTATE)).deg2rad()
    dx = shear_x * (height / 2) - pixels * (operation == Operation.TRANSLATE_X)
    dy = shear_y * (width / 2) - pixels * (operation == Operation.TRANSLATE_Y)
    cosine, sine = angle.cos(), angle.sin()
    source = torch.stack((cosine, shear_x - sine, dx, shear_y + sine, cosine, dy), dim=-1)
    return warp(images, source.view(-1, 2, 3), padding_mode=padding_mode, fill=fill)
