"""One image file -> one uint8 array, the same way for training, prediction and serving. Needs no torch."""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["BadImage", "Box", "Decoding", "decode", "fit", "no_size_warnings", "open_upright"]

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

#: Left, top, right and bottom in pixels; right and bottom are excluded.
Box: TypeAlias = tuple[int, int, int, int]

#: Modes of 16 bits a pixel; Pillow's own conversion to 8 bits clips them, ours scales.
_DEEP_MODES = {"I;16", "I;16L", "I;16B", "I;16N", "I"}
_LARGEST = 2**16 - 1


class BadImage(ValueError):
    """An image that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an image becomes an array of `size` (height, width) and `channels` (1 or 3)."""

    size: tuple[int, int]
    channels: int = 3
    resize: Literal["squash", "crop", "pad"] = "squash"
    filter: str = "bilinear"
    max_megapixels: float = 100.0


def decode(source: Path | bytes, how: Decoding, *, box: Box | None = None) -> NDArray[np.uint8]:
    """Decode, turn upright (EXIF), convert, cut to a box and resize one image to uint8 H,W,C.

    Transparent pixels are laid on white; 16-bit grey is scaled to 8 bits. Raises BadImage for what is empty,
    truncated, no image at all, or larger than the limit, and for a box that is not inside.
    """
    return fit(open_upright(source, channels=how.channels, max_megapixels=how.max_megapixels, box=box), how)


def open_upright(
    source: Path | bytes, *, channels: int, max_megapixels: float = 100.0, box: Box | None = None
) -> Image.Image:
    """An image at its own size: decoded, upright (EXIF), 8-bit grey or RGB, cut to a box. Raises BadImage as `decode`."""
    stream: BinaryIO | Path = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(stream) as image:
            _check_size(image, max_megapixels)
            upright = _convert(ImageOps.exif_transpose(image), channels)
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadImage(_what_it_is(source)) from None
    except Exception as cause:  # on damaged files Pillow's decoders raise whatever they stumble over
        raise BadImage(f"damaged: {cause}") from cause
    return upright if box is None else _cut(upright, box)


def fit(image: Image.Image, how: Decoding) -> NDArray[np.uint8]:
    """Resize an upright 8-bit grey or RGB image by the policy; uint8 H,W,C."""
    height, width = how.size
    filter_ = FILTERS[how.filter]
    if image.size != (width, height):
        if how.resize == "squash":
            image = image.resize((width, height), filter_)
        else:
            image = _keep_ratio(image, (width, height), filter_, how)
    array = np.asarray(image, dtype=np.uint8)
    return array.reshape(height, width, how.channels)


@contextmanager
def no_size_warnings() -> Iterator[None]:
    """Let `decode` alone judge sizes: Pillow's global limit only warns, and from threads it cannot be caught.

    Its other warnings, on damaged EXIF data, say nothing of the pixels and are dropped too.
    """
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _cut(image: Image.Image, box: Box) -> Image.Image:
    left, top, right, bottom = box
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise BadImage(f"the box {list(box)} is not inside its {image.width} x {image.height} pixels")
    return image.crop(box)


def _check_size(image: Image.Image, limit: float) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > limit:
        raise BadImage(f"{megapixels:.0f} megapixels, the limit is {limit:g}")


def _keep_ratio(image: Image.Image, size: tuple[int, int], filter_: Image.Resampling, how: Decoding) -> Image.Image:
    """Scale so that the image covers the target and is cropped, or fits into it and is padded with black."""
    width, height = size
    scales = (width / image.width, height / image.height)
    scale = max(scales) if how.resize == "crop" else min(scales)
    scaled = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if scaled[0] * scaled[1] > max(how.max_megapixels * 1e6, width * height):  # a strip, which would fill the memory
        raise BadImage(f"{image.width} x {image.height} pixels are too narrow to crop to {width} x {height}")
    if scaled != image.size:
        image = image.resize(scaled, filter_)
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    return image.crop((left, top, left + width, top + height))  # beyond the edges, crop pads with black


def _convert(image: Image.Image, channels: int) -> Image.Image:
    """To "L" or "RGB"."""
    if image.mode in _DEEP_MODES:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > _LARGEST:
            raise BadImage(f"32-bit values {values.min()}..{values.max()}; convert it to 8 or 16 bits")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise BadImage("floating-point pixels; convert it to 8 or 16 bits")
    elif image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, with_alpha)
    return image.convert("L" if channels == 1 else "RGB")


def _what_it_is(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        start = source[:64]
    else:
        with source.open("rb") as file:
            start = file.read(64)
    if not start:
        return "empty file"
    if start.lstrip()[:1] == b"<":
        return "not an image but HTML or XML (a failed download?)"
    return f"not an image that Pillow knows (it starts with {start[:8]!r})"
