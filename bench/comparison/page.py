"""The page of a comparison: one HTML file that needs no network; and its inside, as a part of other pages."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.comparison.columns import Column, accuracy_text, figures_of
from bench.comparison.model import Comparison, Entry, TestSet, Verdict
from bench.comparison.plots import pareto_plots
from bench.comparison.wording import (
    best_text,
    difference_text,
    family_text,
    grouped,
    method_texts,
    p_text,
    runs_text,
    set_text,
    value_texts,
    verdict_text,
)
from bench.errors import BenchError
from bench.files import write_text

__all__ = ["section", "write"]

_MOST_IN_MATRIX = 24
_MOST_VERDICTS = 300
_MOST_TO_DOWNLOAD = 20_000
_FEW_ENTRIES = 10


def write(comparison: Comparison, path: Path) -> None:
    """Write the page, whole or not at all. Raises BenchError where that is impossible."""
    names = sorted({entry.experiment for entry in comparison.entries})
    title = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004
    text = _render("page.html.jinja", comparison, title=title or "nothing to compare")
    try:
        write_text(path, text)
    except OSError as cause:
        raise BenchError(f"{path}: cannot be written: {cause.strerror}", hint="--html FILE names another") from cause


def section(comparison: Comparison) -> str:
    """The comparison as an HTML fragment for a page with the style of ours: tables, verdicts, plots, differences.

    Everything from outside is escaped. Its own rules and its script hold inside the fragment only.
    """
    return _render("section.html.jinja", comparison)


def _render(template: str, comparison: Comparison, **more: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    few = len(comparison.entries) <= _FEW_ENTRIES
    return environment.get_template(template).render(
        sets=[_set(comparison, place, one) for place, one in enumerate(comparison.test_sets)],
        labels=[(entry.number, entry.label) for entry in comparison.entries],
        differences=[(key, value_texts(values)) for key, values in comparison.differences.items()],
        keys_down=few,
        left_out=grouped(comparison.left_out),
        family=family_text(comparison),
        methods=method_texts(comparison),
        download=_download(comparison),
        **more,
    )


def _download(comparison: Comparison) -> str | None:
    """Everything as JSON; None where that would be most of the page."""
    if comparison.num_pairs > _MOST_TO_DOWNLOAD:
        return None
    return base64.b64encode(json.dumps(comparison.as_json(), ensure_ascii=False, default=str).encode()).decode()


def _set(comparison: Comparison, place: int, test_set: TestSet) -> dict[str, Any]:
    from markupsafe import Markup

    entries = [entry for entry in comparison.entries if entry.test_set == place]
    tested = sorted((entry for entry in entries if entry.tested), key=lambda entry: entry.number)
    columns = figures_of(entries)
    few = len(tested) <= _MOST_IN_MATRIX
    verdicts: Sequence[Verdict] = ()
    if test_set.best is not None and len(tested) > 1:
        numbers = [entry.number for entry in tested]
        verdicts = comparison.among(numbers) if few else comparison.against(test_set.best)
    plots = pareto_plots(entries, f"comparison-{place}")
    return {
        "title": f"{set_text(test_set)} of the {comparison.split} split",
        "best": best_text(test_set, comparison),
        "decided": bool(verdicts) and not test_set.tied,
        "judged": bool(verdicts),
        "notes": test_set.notes,
        "heads": [(column.head, column.meaning, column.name == "precision") for column in columns],
        "rows": [_row(entry, columns, test_set) for entry in entries],
        "matrix": _matrix(tested, verdicts) if few and verdicts else None,
        "verdicts": [_verdict(one) for one in verdicts[:_MOST_VERDICTS]],
        "hidden": max(0, len(verdicts) - _MOST_VERDICTS),
        "all_pairs": few,
        "plots": [(title, Markup(drawn)) for title, drawn in plots],  # noqa: S704  # our own SVG
    }


def _row(entry: Entry, columns: Sequence[Column], test_set: TestSet) -> dict[str, Any]:
    low, high = entry.interval
    cells = [(column.text(entry), column.value(entry), column.name == "precision") for column in columns]
    return {
        "number": entry.number,
        "label": entry.label,
        "run": runs_text(entry),
        "accuracy": accuracy_text(entry),
        "value": entry.accuracy,
        "ends": (100 * low, 100 * high),
        "letters": entry.letters,
        "leading": entry.number == test_set.best or entry.number in test_set.tied,
        "cells": [(text, "" if value is None else value, left) for text, value, left in cells],
    }


def _matrix(entries: Sequence[Entry], verdicts: Sequence[Verdict]) -> list[tuple[int, str, list[tuple[str, str, str]]]]:
    """Row by row (number, label, cells); a cell is (sign, kind, what it means), seen from the row."""
    known: dict[tuple[int, int], tuple[str, str, str]] = {}
    for one in verdicts:
        meaning = f"{verdict_text(one)}; {difference_text(one)} points, p {p_text(one.adjusted)}"
        points = f"{100 * one.difference:.2f}"
        known[one.first, one.second] = (f"+{points}", "good" if one.differs else "same", meaning)
        known[one.second, one.first] = (f"\N{MINUS SIGN}{points}", "worse" if one.differs else "same", meaning)
    return [
        (row.number, row.label, [known.get((row.number, other.number), ("", "self", "")) for other in entries])
        for row in entries
    ]


def _verdict(verdict: Verdict) -> dict[str, Any]:
    parts = [
        f"{part.test}: p {p_text(part.p)}, [{100 * part.low:+.2f}, {100 * part.high:+.2f}]" for part in verdict.parts
    ]
    return {
        "text": verdict_text(verdict),
        "differs": verdict.differs,
        "points": difference_text(verdict),
        "p": p_text(verdict.adjusted),
        "own": p_text(verdict.p),
        "how": "; ".join(parts) or verdict.test,
    }
