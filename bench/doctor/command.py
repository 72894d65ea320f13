"""`bench doctor`: parse, examine, print."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.doctor.finding import Finding

__all__ = ["doctor"]

#: Columns of the listing, in characters.
_STATE_WIDTH, _NAME_WIDTH = 9, 20

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(*, as_json: bool) -> None:
    """Look for what is wrong with this installation, and say what to do about it.

    Versions that do not fit each other, CUDA seen or not and why, disk space, MLflow's store, plugins. Exits with 1
    where there is a problem; a warning leaves it at 0.

    \b
    bench doctor
    bench doctor --json | jq '.findings[] | select(.state == "problem")'
    """
    from bench.console import TerminalProgress, print_json
    from bench.doctor import examine

    TerminalProgress().note("looking around, which takes some seconds")
    found = examine()
    counts = {state: sum(one.state == state for ones in found.values() for one in ones) for state in _STYLES}
    if as_json:
        listed = [{"area": area, **one.as_json()} for area, ones in found.items() for one in ones]
        print_json({"findings": listed, "problems": counts["problem"], "warnings": counts["warning"]})
    else:
        _print(found, counts)
    sys.exit(1 if counts["problem"] else 0)


def _print(found: Mapping[str, list[Finding]], counts: Mapping[str, int]) -> None:
    """A line a finding, its remedy below it; texts are wrapped beside their marks."""
    from rich.text import Text

    from bench.console import stdout

    console = stdout()
    room = min(_NAME_WIDTH, max((len(one.name) for ones in found.values() for one in ones), default=0))
    for area, ones in found.items():
        console.print(Text(area, style="bold"))
        for one in ones:
            lines = _lines(one, room, console.width)
            head, rest = lines[0][:_STATE_WIDTH], lines[0][_STATE_WIDTH:]
            console.print(Text.assemble((head, _STYLES[one.state]), rest), soft_wrap=True)
            for line in lines[1:]:
                console.print(Text(line), soft_wrap=True)
    words = [f"{counts[state]} {state}{'' if counts[state] == 1 else 's'}" for state in ("problem", "warning")]
    console.print(Text(", ".join(words), style="bold"))


def _lines(one: Finding, room: int, width: int) -> list[str]:
    """State and name in columns, then text and remedy; a name too long for its column takes a line of its own."""
    indent = " " * (_STATE_WIDTH + room + 2)
    head = f"{one.state:{_STATE_WIDTH}}{one.name:{room}}  "
    lines = [head] if len(head) > len(indent) else []
    begin = indent if lines else head
    for text, start in ((one.text, begin), (one.remedy and f"-> {one.remedy}", indent)):
        lines += textwrap.wrap(text, width, initial_indent=start, subsequent_indent=indent) if text else []
    return [line.rstrip() for line in lines]
