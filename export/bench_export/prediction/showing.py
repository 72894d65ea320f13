"""What `bench inspect` prints: the card as a table of two columns, or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.errors import RecipeError
from bench_export.card import Card, read_card
from bench_export.prediction.card_text import card_lines, file_lines, missing_lines
from bench_export.prediction.file_facts import FileFacts, facts_of
from bench_export.session import check_file, open_session

__all__ = ["plain_card", "show", "show_recipe"]


def show(path: Path, *, as_json: bool) -> None:
    """Open a file and print what it says. Raises BenchError where it cannot be opened."""
    session = open_session(path, device="cpu", threads=1, tuning={"graph_level": "none"})
    facts = facts_of(session)
    if as_json:
        _print_json(path, session.card, facts)
    elif session.card is None:
        _print(path.name, [*file_lines(facts), *missing_lines()])
    else:
        _print(path.name, [*card_lines(session.card), *file_lines(facts)])


def show_recipe(path: Path) -> None:
    """Print the recipe's text. Raises RecipeError for a file that has none."""
    check_file(path)
    card = read_card(path)
    if card is None or not card.recipe:
        raise RecipeError(f"{path} holds no recipe", hint="bench inspect says what it holds")
    sys.stdout.write(card.recipe if card.recipe.endswith("\n") else card.recipe + "\n")


def _print(title: str, lines: Iterable[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from bench.console import stdout

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    shown = ""
    for what, words in lines:
        table.add_row("" if what == shown else what, Text(words))
        shown = what
    console = stdout()
    console.print(Text(title, style="bold"))
    console.print(table)


def _print_json(path: Path, card: Card | None, facts: FileFacts) -> None:
    from bench.console import print_json

    names = ("name", "type", "shape")
    values: dict[str, Any] = asdict(facts)
    for key in ("inputs", "outputs"):
        values[key] = [dict(zip(names, one, strict=True)) for one in values[key]]
    missing = [] if card else [what for what, _ in missing_lines()][:2]
    print_json({"model": str(path), "file": values, "card": plain_card(card) if card else None, "missing": missing})


def plain_card(card: Card) -> dict[str, Any]:
    """The card without what only `bench verify` can read: the packed answers to its samples and probes."""
    values = asdict(card)
    if gate := values["gate"]:
        kept = {name: value for name, value in gate.items() if name != "probes"}
        if isinstance(samples := kept.get("samples"), dict):
            kept["samples"] = {"total": samples.get("total")}
        values["gate"] = kept
    return values
