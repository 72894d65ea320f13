"""Inline SVG whose colours are a page's, so that plots follow its light or dark scheme; or files of their own."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HUES", "INK", "LINE", "QUIET", "hue", "standalone", "svg"]

#: How many colours the page's style sheet has.
HUES = 6

#: Colours that stand for the page's variables while matplotlib draws.
INK, QUIET, LINE = "#010203", "#010204", "#010205"
_HUE = "#0102{:02x}"
_FIRST_HUE = 16
_VARIABLES = {INK: "var(--ink)", QUIET: "var(--quiet)", LINE: "var(--line)"} | {
    _HUE.format(_FIRST_HUE + number): f"var(--hue{number})" for number in range(HUES)
}

#: The page's light scheme, for files of their own.
_LIGHT: Mapping[str, str] = {
    "var(--ink)": "#1b2330",
    "var(--quiet)": "#5c6675",
    "var(--line)": "#dfe3e9",
    "var(--hue0)": "#0072b2",
    "var(--hue1)": "#c05a00",
    "var(--hue2)": "#00805c",
    "var(--hue3)": "#a8437f",
    "var(--hue4)": "#806600",
    "var(--hue5)": "#4a5568",
}

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "lines.linewidth": 1.8,
}


def hue(number: int) -> str:
    """The page's colour of this number."""
    return _HUE.format(_FIRST_HUE + number % HUES)


def svg(draw: Callable[[Axes], None], name: str, *, width_in: float = 5.4, height_in: float = 3.6) -> str:
    """Draw on empty axes -> an SVG element with ids of its own and the page's colours and fonts.

    Sizes are inches of 72 points; the page scales them to its columns.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):  # type: ignore[arg-type]  # any name of a parameter
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<=\bid=")|(?<=href="#)|(?<=url\(#)', f"{name}-", text)
    text = re.sub(r'font-family: [^;"]*', "font-family: inherit", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would hold for the whole page
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    for side in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", text, count=1)
    return text


def standalone(element: str) -> str:
    """An SVG element of the page as a file of its own: the light scheme's colours on white, with a size."""
    for variable, colour in _LIGHT.items():
        element = element.replace(variable, colour)
    element = element.replace("font-family: inherit", "font-family: sans-serif")
    _, _, width, height = re.findall(r"[\d.]+", re.findall(r'viewBox="([^"]*)"', element)[0])
    size = f'width="{1.5 * float(width):.0f}" height="{1.5 * float(height):.0f}" style="background: #fff"'
    return '<?xml version="1.0" encoding="utf-8"?>\n' + element.replace("<svg", f"<svg {size}", 1)
