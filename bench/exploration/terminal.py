"""What `bench data` prints: compact tables for 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from bench.console import print_table
from bench.words import shorten

if TYPE_CHECKING:
    from bench.exploration.command import Exploration
    from bench.exploration.doctor import Finding
    from bench.exploration.survey import Survey

__all__ = ["print_exploration"]

_COLUMNS = 79
_BAR = 20
_NAME = 24
_MOST_CLASSES = 50
_SHOWN = 5
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def print_exploration(found: Exploration, page: Path) -> None:
    """Splits, classes, files, and the findings with their first cases (unreadable files all)."""
    summary = found.summary
    verification = summary["task"] == "verification"
    _print_splits(summary, verification=verification)
    _print_classes(summary)
    _print_files(summary)
    console = Console(highlight=False)
    console.print()
    for finding in found.findings:
        _print_finding(console, found.survey, finding)
    if not found.findings:
        console.print("no leak, duplicate, unreadable file, imbalance or empty image was found")
    console.print(Text(f"page: {page}"), soft_wrap=True)


def _print_splits(summary: Mapping[str, Any], *, verification: bool) -> None:
    groups = "identities" if verification else "groups"
    rows = [
        (
            name,
            f"{split['images']:,}",
            "" if split["pairs"] is None else f"{split['pairs']:,}",
            f"{split['groups']['count']:,}" if split["groups"] else "",
            f"{len(split['folds'])}" if split["folds"] else "",
        )
        for name, split in summary["splits"].items()
    ]
    heads = ("split", "images", "pairs", groups, "folds")
    kept = [column for column in range(len(heads)) if any(row[column] for row in rows)]
    cells = [tuple(row[column] for column in kept) for row in rows]
    print_table(tuple(heads[column] for column in kept), cells, right=range(1, len(kept)))
    if summary["divided"] and set(summary["divided"]) != set(summary["splits"]):
        sizes = ", ".join(f"{name} {sum(counts.values()):,}" for name, counts in summary["divided"].items())
        what = "pairs" if verification else "images"
        Console(highlight=False).print(Text(f"a run uses {sizes} {what}", style="dim"))


def _print_classes(summary: Mapping[str, Any]) -> None:
    counts = summary["divided"] or {name: split["classes"] for name, split in summary["splits"].items()}
    largest = max((number for classes in counts.values() for number in classes.values()), default=1) or 1
    first = next(iter(counts))
    rows: list[tuple[str | Text, ...]] = []
    for name in summary["classes"][:_MOST_CLASSES]:
        numbers = [f"{classes[name]:,}" for classes in counts.values()]
        bar = "█" * max(1 if counts[first][name] else 0, round(_BAR * counts[first][name] / largest))
        rows.append((Text(shorten(name, _NAME)), *numbers, Text(bar, style="cyan")))
    Console(highlight=False).print()
    print_table(("class", *counts, ""), rows, right=range(1, len(counts) + 1))
    hidden = len(summary["classes"]) - _MOST_CLASSES
    if hidden > 0:
        Console(highlight=False).print(Text(f"and {hidden:,} more classes (--json lists them)", style="dim"))


def _print_files(summary: Mapping[str, Any]) -> None:
    images = summary["images"]
    rows: list[tuple[str, Text]] = []
    if images["width"]:
        for side in ("width", "height"):
            low, middle, high = (f"{images[side][key]:,.0f}" for key in ("min", "median", "max"))
            shown = f"{low} pixels" if low == high else f"{low} to {high} pixels, median {middle}"
            rows.append((side, Text(shown)))
        rows.append(("formats", Text(_tally(images["formats"]))))
        rows.append(("modes", Text(_tally(images["modes"]))))
    if summary["colours"]:
        rows += [
            (name, Text(", ".join(f"{value:.3f}" for value in summary["colours"][name]))) for name in ("mean", "std")
        ]
    dark = sorted(summary["brightness"].items(), key=lambda entry: entry[1]["mean"])
    if dark:
        ends = (dark[0], dark[-1])
        rows.append(("brightness", Text(" to ".join(f"{v['mean']:.2f} ({shorten(n, _NAME)})" for n, v in ends))))
    for name, split in summary["splits"].items():
        if split["groups"]:
            spread = split["groups"]["images"]
            shown = f"{spread['min']:.0f} to {spread['max']:.0f} images, median {spread['median']:.0f}"
            rows.append((f"{name} groups", Text(shown)))
    Console(highlight=False).print()
    print_table(("files", ""), rows)


def _print_finding(console: Console, survey: Survey, finding: Finding) -> None:
    head = Text(f"{finding.severity}: ", style=_STYLES[finding.severity])
    console.print(head + Text(f"{finding.count:,} {finding.title}", style="bold"))
    shown = finding.cases if finding.key == "unreadable" else finding.cases[:_SHOWN]
    for case in shown:
        for line in _lines(survey, case.images, case.detail):
            console.print(Text(f"  {line}"), soft_wrap=True)
    if len(finding.cases) > len(shown):
        console.print(
            Text(f"  and {len(finding.cases) - len(shown):,} more (on the page, --json lists all)", style="dim")
        )
    indented = textwrap.fill(finding.advice, _COLUMNS, initial_indent="  ", subsequent_indent="  ")
    console.print(Text(indented, style="dim"))


def _lines(survey: Survey, images: Sequence[int], detail: str) -> Iterator[str]:
    """A case in one line where it is short, otherwise a line a file."""
    names = [survey.names[index] for index in images]
    line = " = ".join(names) + (": " if names and detail else "") + detail
    if len(line) <= _COLUMNS - 2 or len(names) < 2:  # noqa: PLR2004  # less the indent; one name cannot be divided
        yield line
        return
    yield names[0]
    for name in names[1:]:
        yield f"  = {name}"
    if detail:
        yield f"    {detail}"


def _tally(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in values.items())
