"""The report's HTML: one file that holds its styles, its script and its images, and loads nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.reporting.confusion import matrix

if TYPE_CHECKING:
    from bench.reporting.chapter import Chapter

__all__ = ["render"]

_FOLDER = Path(__file__).parent
_WORST_SLICES = 15


def render(
    title: str,
    chapters: Sequence[Chapter],
    *,
    comparison: str = "",
    notes: Sequence[str] = (),
    left_out: Sequence[tuple[str, str]] = (),
) -> str:
    """The page of a run, or of several with their comparison before them. Everything from outside is escaped.

    `comparison` is HTML of our own; `left_out` are runs that are not shown, each with the reason.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "" if value is None else f"{value:.2%}"
    environment.filters["interval"] = lambda ends: "" if ends is None else f"[{ends[0]:.1%}, {ends[1]:.1%}]"
    environment.filters["number"] = _number
    environment.filters["ours"] = Markup  # our own SVG
    return environment.get_template("page.html.jinja").render(
        title=title,
        notes=notes,
        left_out=left_out,
        comparison=Markup(comparison),  # noqa: S704  # made by bench.comparison, which escapes
        chapters=[_told(chapter) for chapter in chapters],
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),  # noqa: S704  # our own file
        script=Markup((_FOLDER / "page.js").read_text(encoding="utf-8")),  # noqa: S704  # our own file
        store=_store(chapters),
    )


def _number(value: float | None) -> str:
    """Three significant digits, no powers of ten: 0.427, 4.20, 73.3, 1,557."""
    if value is None:
        return ""
    places = 2 - math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
    return f"{value:,.{min(3, max(0, places))}f}"


def _told(chapter: Chapter) -> dict[str, Any]:
    """What the template needs of a chapter, under short names."""
    judged = chapter.judged
    return {
        "run": chapter.recorded.run.name,
        "label": Path(str(chapter.recorded.info.get("recipe") or "run")).stem,
        "id": chapter.prefix,
        "whole": chapter.whole,
        "status": chapter.recorded.status,
        "error": str(chapter.recorded.info.get("error") or ""),
        "notes": chapter.notes,
        "judged": judged,
        "pairs": chapter.recorded.pairs,
        "calibration": chapter.calibration,
        "table": chapter.table,
        "no_table": chapter.no_table,
        "matrix": matrix(judged) if judged is not None and chapter.whole else None,
        "recipe": chapter.recorded.recipe_text.strip(),
        "slices": chapter.slices,
        "worst_slices": chapter.slices[:_WORST_SLICES],
        "bar_start": math.floor(10 * min((one.low for one in chapter.slices), default=0.0)) / 10,
        "kinds": list(dict.fromkeys(one.kind for one in chapter.slices)),
        "images": chapter.album is not None,
        **chapter.shown,
    }


def _store(chapters: Sequence[Chapter]) -> dict[str, Any]:
    """What the script needs: each chapter's cells and classes, and the pictures that no gallery has in the page already."""
    pictures: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for chapter in chapters:
        if not chapter.whole or chapter.judged is None:
            continue
        inline = {p.key for gallery in chapter.shown["galleries"] for one in gallery.shown for p in one.pictures}
        if chapter.album is not None:
            for key, picture in chapter.album.all().items():
                uri = "" if key in inline else picture.uri
                pictures[key] = [uri, picture.width, picture.height, int(picture.sharp)]
        told[chapter.prefix] = {
            "classes": chapter.judged.classes,
            "cells": chapter.shown["cells"],
            "pairs": chapter.judged.pairs,
        }
    return {"pictures": pictures, "chapters": told}
