"""The leaderboard on the terminal, within 80 columns."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from bench.console import print_table, stdout
from bench.leaderboard.wording import (
    HOW_CHOSEN,
    HOW_TIED,
    accuracy_text,
    left_out_text,
    noted,
    number_text,
    remarks,
    score,
    score_name,
    setups,
    standing_text,
    time_text,
)
from bench.record import runs_folder
from bench.words import shorten

if TYPE_CHECKING:
    from bench.leaderboard.board import Board, Section
    from bench.leaderboard.keeping import Kept

__all__ = ["print_board", "print_kept"]

_COLUMNS = 79
_WIDE = 110
_START = "start with: bench run recipes/quickstart.toml"
_LEAST_NAME = 12
_NUMBERS = {"report", "params", "train", "macro F1", "AUROC"}
_STYLES = {"leader": "bold", "tied": "dim"}


def print_board(board: Board, *, page: Path | None = None) -> None:
    """A table a dataset, what was left out, and how entries were chosen and tested."""
    for section in board.sections:
        _print_section(section)
        stdout().print()
    if not board.sections:
        sys.stderr.write(f"no finished run with a test split in {runs_folder()}; {_START}\n")
    if board.not_measured:
        _say(f"not measured: {', '.join(board.not_measured)}")
    _say(left_out_text(board.left_out))
    if board.sections:
        _say(HOW_CHOSEN, style="dim")
        _say(HOW_TIED, style="dim")
        if any(entry.published is not None for entry in board.entries):
            _say("report: what the report of a system states, on its own data.", style="dim")
    if page is not None:
        stdout().print(Text(f"page: {page.resolve()}"), soft_wrap=True)


def print_kept(kept: Kept) -> None:
    """What an update of the kept leaderboard did."""
    stdout().print()
    if kept.measured:
        _say(f"from the runs: {', '.join(kept.measured)}")
    if kept.kept:
        _say(f"kept as they were: {', '.join(kept.kept)}")
    if kept.dropped:
        _say(f"dropped, as their files have changed or gone: {', '.join(kept.dropped)}", style="yellow")
    _say(f"{kept.page}: {'rewritten' if kept.changed else 'up to date'}")


def _print_section(section: Section) -> None:
    entries = section.entries
    names, notes = noted(entries)
    columns = {"recipe": names} | _columns(section)
    used = sum(max(len(head), *map(len, cells)) + 2 for head, cells in columns.items() if head != "recipe")
    room = max(min(stdout().width, _WIDE) - used - 1, _LEAST_NAME)
    columns["recipe"] = [shorten(name, room) for name in names]
    styles = [_STYLES.get(entry.standing.verdict, "") for entry in entries]
    rows = [
        [Text(cell, style=style) for cell in row]
        for style, row in zip(styles, zip(*columns.values(), strict=True), strict=True)
    ]
    stdout().print(Text(section.title, style="bold"))
    print_table(list(columns), rows, right=[i for i, head in enumerate(columns) if head in _NUMBERS])
    for number, note in enumerate(notes, start=1):
        _say(f"[{number}] {note}", style="dim")
    for name, entry in zip(names, entries, strict=True):
        if text := remarks(entry):
            _say(f"{name}: {text}", style="dim")
    for line in setups(entries):
        _say(line, style="dim")


def _columns(section: Section) -> dict[str, list[str]]:
    """Heading -> cells, without those that are empty throughout; more of them where the terminal is wide."""
    entries = section.entries
    found: dict[str, list[str]] = {
        "accuracy [95 %]": [accuracy_text(entry) for entry in entries],
        "": [entry.standing.verdict for entry in entries],
        "report": ["" if entry.published is None else f"{100 * entry.published:.1f}%" for entry in entries],
        "params": [number_text(entry.parameters) for entry in entries],
        "train": [time_text(entry) for entry in entries],
    }
    if stdout().width >= _WIDE:
        found[""] = [standing_text(entry.standing) for entry in entries]
        found |= {score_name(entries): [score(entry) for entry in entries], "date": [entry.date for entry in entries]}
    return {head: cells for head, cells in found.items() if any(cells)}


def _say(text: str, *, style: str = "") -> None:
    """A text, wrapped at 79 columns; nothing where it is empty."""
    for line in textwrap.wrap(text, _COLUMNS, break_long_words=False, break_on_hyphens=False):
        stdout().print(Text(line, style=style), soft_wrap=True)
