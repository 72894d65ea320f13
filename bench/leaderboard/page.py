"""The leaderboard as a page: one HTML file that needs no network and no script."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.files import write_text
from bench.leaderboard.wording import (
    HOW_CHOSEN,
    HOW_TIED,
    accuracy_text,
    left_out_text,
    noted,
    remarks,
    score,
    score_name,
    setups,
    standing_text,
    time_text,
)
from bench.svg import INK, QUIET, hue, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench.leaderboard.board import Board, Section
    from bench.leaderboard.facts import Entry

__all__ = ["render", "write_page"]

#: How a verdict is coloured.
_BADGES = {"leader": "good", "tied": "note", "behind": "", "not tested": "warning"}

#: Of more entries the plot would be taller than a screen.
_MOST_DRAWN = 30


def write_page(board: Board, path: Path) -> None:
    """Write the page of a board, whole or not at all. Raises BenchError where that is impossible."""
    try:
        write_text(path, render(board))
    except OSError as cause:
        raise BenchError(f"{path}: cannot be written: {cause.strerror}", hint="--html PATH names another") from cause


def render(board: Board) -> str:
    """The page's HTML. Everything from outside is escaped; the board is in it to download."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        sections=[_section(section, f"intervals{index}") for index, section in enumerate(board.sections)],
        not_measured=board.not_measured,
        left_out=left_out_text(board.left_out),
        how=(HOW_CHOSEN, HOW_TIED),
        download=base64.b64encode(json.dumps(board.as_json(), indent=2).encode()).decode(),
    )


def _section(section: Section, name: str) -> dict[str, Any]:
    from markupsafe import Markup

    names, notes = noted(section.entries)
    drawn = dict(zip(names[:_MOST_DRAWN], section.entries, strict=False))
    plot = svg(lambda axes: _draw(axes, drawn), name, width_in=5.4, height_in=0.8 + 0.28 * len(drawn))
    return {
        "title": section.title,
        "score": score_name(section.entries),
        "published": any(entry.published is not None for entry in section.entries),
        "rows": [_row(entry, label) for entry, label in zip(section.entries, names, strict=True)],
        "notes": notes,
        "setups": setups(section.entries),
        "plot": Markup(plot) if len(drawn) > 1 else "",  # noqa: S704  # our own SVG
    }


def _row(entry: Entry, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "accuracy": accuracy_text(entry, space="\u2009").partition(" ")[::2],  # the page may break a line there
        "verdict": standing_text(entry.standing).partition(" (")[::2],
        "badge": _BADGES[entry.standing.verdict],
        "tied": entry.standing.verdict == "tied",
        "published": "" if entry.published is None else f"{100 * entry.published:.1f}\u2009%",
        "score": score(entry),
        "parameters": f"{entry.parameters:,}",
        "time": time_text(entry),
        "remarks": remarks(entry),
    }


def _draw(axes: Axes, entries: Mapping[str, Entry]) -> None:
    """Accuracies with their intervals by name, the first on top; ties in grey."""
    for place, entry in enumerate(entries.values()):
        colour = {"leader": hue(0), "tied": QUIET}.get(entry.standing.verdict, INK)
        low, high = _ends(entry)
        axes.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=2.4, solid_capstyle="butt")
        axes.plot([100 * entry.accuracy], [place], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(entries)), list(entries), parse_math=False)
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.set_xlabel("test accuracy, %")
    axes.grid(visible=False, axis="y")


def _ends(entry: Entry) -> tuple[float, float]:
    """The ends of the interval; over folds a standard error either way, and a point where nothing is known."""
    if entry.standard_error is not None:
        return entry.accuracy - entry.standard_error, entry.accuracy + entry.standard_error
    return (
        entry.accuracy if entry.low is None else entry.low,
        entry.accuracy if entry.high is None else entry.high,
    )
