"""The leaderboard as Markdown, and the place in a file where it stands."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.errors import BenchError
from bench.leaderboard.board import Board, Section
from bench.leaderboard.facts import Entry
from bench.leaderboard.wording import (
    HOW_CHOSEN,
    HOW_TIED,
    accuracy_text,
    remarks,
    score,
    score_name,
    setups,
    standing_text,
    time_text,
)

__all__ = ["BEGIN", "END", "render", "replaced"]

_COLUMNS = 120
_ABOUT = "Ties are in italics. Published is what the report of a system states, on its own data."

BEGIN, END = "<!-- leaderboard: begin -->", "<!-- leaderboard: end -->"


def render(board: Board) -> str:
    """The tables, a dataset each, and what the words in them mean."""
    parts = [_wrapped(f"{HOW_CHOSEN} {HOW_TIED} {_ABOUT}"), *(_section(section) for section in board.sections)]
    if not board.sections:
        parts.append("Nothing has been measured yet.")
    if board.not_measured:
        parts.append(_wrapped(f"Not measured: {', '.join(board.not_measured)}."))
    return "\n\n".join(parts)


def replaced(path: Path, table: str) -> str:
    """The file's text with `table` between its marks. Raises BenchError where the file or the marks are missing."""
    try:
        old = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        reason = getattr(cause, "strerror", None) or str(cause)
        raise BenchError(f"{path}: cannot be read: {reason}", hint="--write FILE names the file to keep") from cause
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        missing = " and ".join(mark for mark, found in ((BEGIN, begin), (END, END in old)) if not found) or END
        raise BenchError(
            f"{path}: no place for the leaderboard: {missing} is missing",
            hint=f"add the two lines {BEGIN} and {END} where it shall stand, in this order",
        )
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _section(section: Section) -> str:
    return "\n".join([f"### {section.title}", "", *_rows(section), "", *setups(section.entries)])


def _rows(section: Section) -> Iterator[str]:
    entries = section.entries
    heads = ["recipe", "test accuracy [95 %]", "against the leader", "published"]
    heads += [score_name(entries), "parameters", "training", "remarks"]
    rows = [_cells(entry) for entry in entries]
    shown = [index for index in range(len(heads)) if any(row[index] for row in rows)]
    yield _line(heads[index] for index in shown)
    yield "|" + "---|" * len(shown)
    for row in rows:
        yield _line(row[index] for index in shown)


def _cells(entry: Entry) -> list[str]:
    name = entry.recipe + (f" ({entry.changes})" if entry.changes else "")
    cells = [name, accuracy_text(entry, space=" "), standing_text(entry.standing)]
    cells += ["" if entry.published is None else f"{100 * entry.published:.1f} %"]
    cells += [score(entry), f"{entry.parameters:,}", time_text(entry), remarks(entry)]
    cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]
    if entry.standing.verdict == "tied":
        return [f"*{cell}*" if cell else "" for cell in cells]
    if entry.standing.verdict == "leader":
        return [f"**{cell}**" if index < 2 else cell for index, cell in enumerate(cells)]  # noqa: PLR2004
    return cells


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, _COLUMNS, break_long_words=False, break_on_hyphens=False))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
