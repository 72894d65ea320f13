"""`bench search --show`: a study on the terminal, as JSON, and as a page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from bench.console import duration, print_json, print_table, stdout
from bench.search.summary import summarise
from bench.search.wording import (
    counts,
    missed_text,
    name_of,
    none_text,
    params_text,
    pruning,
    reference_text,
    setting,
    time_spent,
    value_text,
    winner_text,
)
from bench.words import shorten

if TYPE_CHECKING:
    from optuna import Study

    from bench.recipe import Recipe

__all__ = ["print_study", "show"]

_COLUMNS = 79
_BAR = 24
_MOST_ROWS = 12
_MOST_PARAMETERS = 8
_STYLES = {"best": "green", "knee": "magenta", "best/knee": "green"}


def show(study: Study, *, html: Path | None = None, as_json: bool = False) -> None:
    """Print a study, or one JSON object of it, and write its page where `html` says."""
    summary = summarise(study)
    page = None
    if html is not None:
        from bench.search.page import write_study_page

        write_study_page(study, html)
        page = html.resolve()
    if as_json:
        print_json({**summary, **({"page": str(page)} if page else {})})
        return
    _print_summary(summary)
    if page:
        stdout().print(Text(f"page: {page}"), soft_wrap=True)


def print_study(study: Study, recipe: Recipe | None = None) -> None:
    """What a study came to, within 80 columns: best or front, noise, parameters, importances, history, winner.

    `recipe` is the one that was searched, where it is known: its file is named.
    """
    _print_summary(summarise(study), None if recipe is None else str(recipe.path))


def _print_summary(summary: Mapping[str, Any], recipe: str | None = None) -> None:
    _say(f"study {summary['study']}" + (f" of {recipe}" if recipe else ""))
    _say(*filter(None, (counts(summary), time_spent(summary), pruning(summary))))
    for one in summary["causes"]:
        _say(f"{one['trials']} failed: {one['error']}", style="red")
    _print_chosen(summary)
    if summary["noise"]:
        _say(summary["noise"]["text"], style="yellow" if summary["noise"]["within"] else "")
    if text := reference_text(summary):
        _say(text)
    _print_parameters(summary)
    _print_importances(summary)
    _print_history(summary)
    for winner in summary["winners"]:
        _say(f"retrained: {winner_text(winner)}", style="green")
    _print_next(summary)


def _print_chosen(summary: Mapping[str, Any]) -> None:
    """The front, or the best trials of a single objective."""
    names = [one["metric"] for one in summary["objectives"]]
    rows = {row["number"]: row for row in summary["trials"]}
    numbers = summary["front"] or _ranked(summary)
    if not numbers:
        _print_nearest(summary)
        return
    stdout().print()
    _say("Pareto front, best first" if summary["front"] else "the best trials")
    kept = numbers[:_MOST_ROWS]
    kept += [one for one in (summary["knee"],) if one is not None and one not in kept]
    table: list[tuple[str | Text, ...]] = []
    for number in kept:
        row = rows[number]
        mark = "/".join(which for which in ("best", "knee") if number == summary[which])
        values = [value_text(name, value) for name, value in zip(names, row["values"], strict=True)]
        cost = duration(row["seconds"]) if row["seconds"] is not None else ""
        table.append((str(number), *values, cost, Text(mark, style=_STYLES.get(mark, ""))))
    heads = ["trial", *map(_head, names), "time", ""]
    room = _COLUMNS - max(sum(_widths(heads, table)) + 2 * len(heads), 0)
    if room >= 16:  # noqa: PLR2004  # less says nothing
        heads.append("parameters")
        table = [(*row, params_text(rows[n]["params"], room)) for n, row in zip(kept, table, strict=True)]
    print_table(heads, table, right=range(len(names) + 2))
    if len(numbers) > len(kept):
        _say(f"and {len(numbers) - len(kept)} more (--json, --html)")


def _print_nearest(summary: Mapping[str, Any]) -> None:
    found = summary["nearest"]
    if found is None:
        _say(none_text(summary["states"]))
        return
    _say(
        f"no trial satisfies every constraint; trial {found['number']} comes nearest and misses {missed_text(found['constraints'])}",
        style="yellow",
    )


def _print_parameters(summary: Mapping[str, Any]) -> None:
    number = summary["best"] if summary["knee"] is None else summary["knee"]
    if number is None:
        return
    params = next(row["params"] for row in summary["trials"] if row["number"] == number)
    if not params:
        return
    stdout().print()
    _say(f"parameters of trial {number}, {'the best' if summary['knee'] is None else 'the knee'}")
    for key, value in params.items():
        name = shorten(key, 38)
        stdout().print(Text(f"  {name:38}  {shorten(setting(value), _COLUMNS - 42)}"))


def _print_importances(summary: Mapping[str, Any]) -> None:
    for metric, shares in summary["importances"].items():
        stdout().print()
        _say(f"what mattered for {name_of(metric)}")
        for key, share in list(shares.items())[:_MOST_PARAMETERS]:
            bar = "█" * round(_BAR * share)
            stdout().print(Text(f"  {shorten(key, 38):38}  {share:4.0%}  {bar}"))


def _print_history(summary: Mapping[str, Any]) -> None:
    """When the first objective rose, or fell: the last few steps."""
    metric = summary["objectives"][0]["metric"]
    steps: list[str] = []
    last = None
    for one in summary["history"]:
        if one["best"][0] != last:
            last = one["best"][0]
            steps.append(f"{value_text(metric, last)} (trial {one['number']})")
    if len(steps) > 1:
        stdout().print()
        _say(f"{name_of(metric)}, the best so far: " + ", ".join(steps[-6:]))


def _print_next(summary: Mapping[str, Any]) -> None:
    number = summary["best"] if summary["knee"] is None else summary["knee"]
    if number is not None:
        stdout().print()
        _say(f"its recipe: bench recipe --from-trial {number} --study {summary['study']}", style="dim")


def _ranked(summary: Mapping[str, Any]) -> list[int]:
    """The best trial, then the others by value, as many as are shown."""
    if summary["best"] is None:
        return []
    sign = -1 if summary["objectives"][0]["direction"] == "maximize" else 1
    others = [row for row in summary["trials"] if row["state"] == "complete" and row["number"] != summary["best"]]
    ordered = sorted(others, key=lambda row: sign * row["values"][0])
    return [summary["best"], *(row["number"] for row in ordered[:4])]


def _head(metric: str) -> str:
    return name_of(metric).replace("validation ", "val ")


def _widths(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[int]:
    columns = zip(*rows, strict=True)
    return [max(len(head), *map(len, column)) for head, column in zip(heads, columns, strict=True)]


def _say(*sentences: str, style: str = "") -> None:
    """Sentences, wrapped at 79 columns."""
    for sentence in sentences:
        for line in textwrap.wrap(sentence, _COLUMNS, break_long_words=False, break_on_hyphens=False):
            stdout().print(Text(line, style=style), soft_wrap=True)
