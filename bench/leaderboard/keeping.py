"""The leaderboard of a folder of recipes: leaderboard.json holds the facts, and a page between two marks the tables.

`python -m bench.leaderboard.keeping` writes the tables anew from the facts, as they are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.files import write_json, write_text
from bench.leaderboard.board import Board, build, sections_of
from bench.leaderboard.facts import Entry, entry_of
from bench.leaderboard.markdown import render, replaced
from bench.leaderboard.recipes import recipe_files

__all__ = ["FACTS", "Kept", "kept_board", "read_entries", "refresh", "update"]

#: Lies beside the page.
FACTS = "leaderboard.json"
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """What an update did: recipes by name, and whether the page changed. `dropped` are those whose file has changed."""

    page: Path
    board: Board
    measured: tuple[str, ...]
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    changed: bool

    def as_json(self) -> dict[str, Any]:
        """What happened, without the board."""
        names = {name: list(getattr(self, name)) for name in ("measured", "kept", "dropped")}
        return {"page": str(self.page.resolve()), **names, "changed": self.changed}


def update(page: Path, experiments: Sequence[str] = ()) -> Kept:
    """Put the recorded runs of the recipes beside the page into its facts, and the tables of all facts into the page.

    Recipes that are not among the runs keep their entry, unless their file has changed or gone since. Raises BenchError
    where the page has no marks or the facts are damaged, RecipeError as `build` does; nothing is written then.
    """
    replaced(page, "")
    earlier = read_entries(page.parent / FACTS)
    board = build(experiments, recipes=page.parent)
    measured = {entry.recipe for entry in board.entries}
    current = _current(page.parent, (entry for entry in earlier if entry.recipe not in measured))
    kept = [entry for entry in current if entry.recipe not in measured]
    merged = replace(kept_board(page.parent, [*board.entries, *kept]), left_out=board.left_out)
    write_json(page.parent / FACTS, {"schema": _SCHEMA, "entries": [entry.as_json() for entry in merged.entries]})
    left = {entry.recipe for entry in kept}
    dropped = {entry.recipe for entry in earlier} - measured - left
    names = [tuple(sorted(group)) for group in (measured, left, dropped)]
    return Kept(page, merged, names[0], names[1], names[2], _write(page, merged))


def refresh(page: Path) -> bool:
    """Write the tables anew from the facts. Returns whether that changed the page."""
    return _write(page, kept_board(page.parent, read_entries(page.parent / FACTS)))


def kept_board(folder: Path, entries: Sequence[Entry]) -> Board:
    """The board of these entries, and which of the folder's recipes have none."""
    present = {entry.recipe for entry in entries}
    missing = tuple(file.name for file in recipe_files(folder) if file.name not in present)
    return Board(sections_of(entries), not_measured=missing)


def read_entries(path: Path) -> tuple[Entry, ...]:
    """The entries of a file of facts; none where there is no file. Raises BenchError where it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != _SCHEMA:
            raise BenchError(f"{path}: schema {values['schema']}, this version reads {_SCHEMA}")
        return tuple(entry_of(entry) for entry in values["entries"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as cause:
        hint = "take it from the repository again, or remove it: the recorded runs fill a new one"
        raise BenchError(f"{path} is damaged: {cause}", hint=hint) from cause


def _current(folder: Path, entries: Iterable[Entry]) -> list[Entry]:
    """The entries whose recipe file still says what was measured."""
    digests = {file.name: file.digest for file in recipe_files(folder)}
    return [entry for entry in entries if digests.get(entry.recipe) == entry.recipe_digest]


def _write(page: Path, board: Board) -> bool:
    new = replaced(page, render(board))
    if new == page.read_text(encoding="utf-8"):
        return False
    write_text(page, new)
    return True


if __name__ == "__main__":
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "recipes/README.md")
    sys.stdout.write(f"{file}: {'rewritten' if refresh(file) else 'up to date'}\n")
