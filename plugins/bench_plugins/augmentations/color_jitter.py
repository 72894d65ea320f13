"""Change brightness, contrast, saturation and hue of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import AfterValidator, Field

from bench_plugins.augmentations._batch import (
    Interval,
    Probability,
    choose,
    luminance,
    select,
    symmetric,
    uniform,
)

if TYPE_CHECKING:
    from bench.kinds import Augmentation

__all__ = ["color_jitter"]


def _not_negative(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] < 0:
        raise ValueError("a factor is at least 0")  # pydantic reports it
    return interval


_Factor = Annotated[float, Field(ge=0)] | Annotated[Interval, AfterValidator(_not_negative)]
_Turn = Annotated[float, Field(ge=-0.5, le=0.5)]


def color_jitter(
    *,
    p: Probability = 1.0,
    brightness: _Factor = 0.2,
    contrast: _Factor = 0.2,
    saturation: _Factor = 0.2,
    hue: Annotated[float, Field(ge=0, le=0.5)] | tuple[_Turn, _Turn] = 0.0,
) -> Augmentation:
    """Change brightness, contrast, saturation and hue of each image.

    A factor is drawn from the interval given, or from (max(0, 1 - x), 1 + x) for a number x; 1 changes nothing. `hue` is
    a shift in turns of the colour circle, from (-h, h) for a number h up to 0.5. Grey images (one channel) have no
    saturation and no hue to change. Torchvision's ColorJitter, always in the order of the names (there it is drawn).
    """
    factors = [_factors(given) for given in (brightness, contrast, saturation)]
    turns = symmetric(hue)

    def augment(
        images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = choose(images, p, generator)
        bright, strong, vivid = (uniform(images, factor, generator)[:, None, None, None] for factor in factors)
        jittered = (images * bright).clamp_(0, 1)
        mean = luminance(jittered).mean(dim=(1, 2, 3), keepdim=True)
        jittered = torch.lerp(mean, jittered, strong).clamp_(0, 1)
        if images.shape[1] == 3:  # noqa: PLR2004 - red, green, blue
            jittered = torch.lerp(luminance(jittered), jittered, vivid).clamp_(0, 1)
            if turns != (0.0, 0.0):
                jittered = _turn_hue(jittered, uniform(images, turns, generator))
        return select(chosen, jittered, images), targets

    return augment


def _factors(given: float | tuple[float, float]) -> tuple[float, float]:
    return given if isinstance(given, tuple) else (max(0.0, 1 - given), 1 + given)


def _turn_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Colour images with their hue shifted by N parts of a turn; lightest and darkest channel keep their levels.

    The formula without cases: https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative.
    """
    red, green, blue = images.unbind(dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    divisor = chroma.clamp_min(torch.finfo(images.dtype).tiny)  # grey: all differences are 0, and so is the hue
    sextant = torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    sextant = torch.where(value == red, (green - blue) / divisor, sextant) + 6 * turns[:, None, None]
    starts = torch.arange(3, -2, -2, device=images.device)[None, :, None, None]  # 5, 3, 1 less 2: red, green, blue
    distance = sextant[:, None] + starts
    distance = distance.sub_((distance / 6).round_(), alpha=6).abs_()  # on the circle of six, as remainder, but faster
    share = distance.neg_().add_(2).clamp_(0, 1)
    return torch.addcmul(value[:, None], chroma[:, None], share, value=-1).clamp_(0, 1)
