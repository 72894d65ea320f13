"""What every figure of a run is made with: colours, an empty figure, and a PNG that is not too large."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from bench.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BEST", "QUIET", "TRAIN", "VALIDATION", "new_figure", "save_figure"]

#: Colours that stay apart for the colour-blind (Okabe and Ito, 2008): blue, vermilion, green, grey.
TRAIN, VALIDATION, BEST, QUIET = "#0072B2", "#D55E00", "#009E73", "#777777"

_DPI = 150
_MOST_BYTES = 300_000


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches; without pyplot there is no global state, and threads may draw."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Photographs get fewer colours until the file is small enough to be looked at over a network."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    for colors in (256, 128, 64, 32):
        if stream.tell() <= _MOST_BYTES:
            break
        picture = Image.open(stream).convert("RGB").quantize(colors, dither=Image.Dither.NONE)
        stream = io.BytesIO()
        picture.save(stream, format="png", optimize=True, dpi=(_DPI, _DPI))
    with atomic(path) as partial:
        partial.write_bytes(stream.getvalue())
