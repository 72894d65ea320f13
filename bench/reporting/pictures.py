"""Small pictures for the report: each image is in the file once, however often it is shown."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.predictions import SavedPredictions
    from bench.reporting.opening import Opened

__all__ = ["Album", "Picture", "make_picture"]

_SIDE = 96  # pixels, the longer side
_QUALITY = 76  # of WebP
_SHARP = 48  # smaller ones are enlarged with their pixels to be seen


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of the file: `key` names it there, `uri` is its data, and its size on the page is in CSS pixels."""

    key: str
    uri: str
    width: int
    height: int
    sharp: bool


def make_picture(pixels: NDArray[np.uint8], key: str = "") -> Picture:
    """A thumbnail of an image H,W,C; smaller images keep their pixels."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    longest = max(image.size)
    width, height = (max(1, round(side * _SIDE / longest)) for side in image.size)
    if longest > _SIDE:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.convert("RGB").save(stream, format="WEBP", quality=_QUALITY, method=3)
    uri = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return Picture(key, uri, width, height, longest <= _SHARP)


class Album:
    """The pictures of one split of a run, made when they are first asked for; pairs have two."""

    def __init__(self, opened: Opened, predictions: SavedPredictions, *, prefix: str) -> None:
        self._images = opened.data.splits[predictions.split]
        self._prefix = prefix
        self._known: dict[int, Picture] = {}
        self.positions = opened.positions(predictions.split, predictions.ids.tolist(), predictions.labels)
        self.num_bytes = 0

    def of(self, sample: int) -> tuple[Picture, ...]:
        """The pictures of a predicted sample; () where the image is not here."""
        position = int(self.positions[sample])
        if position < 0:
            return ()
        return tuple(self._picture(row) for row in np.atleast_1d(self._images.rows[position]).tolist())

    def all(self) -> dict[str, Picture]:
        """Every picture that was asked for, by its key."""
        return {picture.key: picture for picture in self._known.values()}

    def _picture(self, row: int) -> Picture:
        if row not in self._known:
            self._known[row] = make_picture(self._images.images[row], f"{self._prefix}{row}")
            self.num_bytes += len(self._known[row].uri)
        return self._known[row]
