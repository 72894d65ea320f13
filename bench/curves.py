"""`bench curves`: the learning curves of one run or several, on the terminal."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bench.completion import RUN
from bench.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.history import History
    from bench.terminal_plot import Curve

__all__ = ["curves"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_STYLES = ("cyan", "magenta", "yellow", "green", "blue", "red")
_HEIGHT = 10
_MOST_COLUMNS = 100


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="RUN...", shell_complete=RUN.shell_complete)
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Draw this one, as val_loss; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def curves(names: tuple[str, ...], metrics: tuple[str, ...], *, as_json: bool) -> None:
    """Draw learning curves in the terminal, the best epoch marked.

    One run: loss and accuracy of training and validation. Several runs: the validation's, a letter for each run. RUN may
    be a group or an experiment.

    \b
    bench curves 20261126-041859-b4de-s0
    bench curves RUN RUN --metric val_loss --metric lr
    """
    from bench.history import read_histories
    from bench.run_names import resolve_all

    runs = list({run.folder: run for named in resolve_all(names) for run in named.runs}.values())
    found, damaged = read_histories(runs)
    _check(found, metrics)
    if damaged:
        from bench.console import TerminalProgress
        from bench.run_info import left_out

        TerminalProgress().warn(left_out(damaged))
    if as_json:
        from bench.console import print_json

        print_json({"runs": [_as_json(one, metrics) for one in found]})
    else:
        _show(found, metrics)


def _check(found: Sequence[History], metrics: Sequence[str]) -> None:
    """Raise RecipeError for a metric that no run has."""
    known = sorted({name for one in found for name in one.values})
    for metric in metrics:
        if known and metric not in known:
            from bench.registry import near_miss

            raise RecipeError(
                f"--metric: no run has {metric!r}{near_miss(metric, known) or '; known: ' + ', '.join(known)}"
            )


def _as_json(one: History, metrics: Sequence[str]) -> dict[str, Any]:
    values = {name: row for name, row in one.values.items() if not metrics or name in metrics}
    return {
        "name": one.name,
        "experiment": one.experiment,
        "status": one.status,
        "best_epoch": one.best_epoch or None,
        "epochs": list(one.epochs),
        "values": {name: [y if math.isfinite(y) else None for y in row] for name, row in values.items()},
    }


def _show(found: Sequence[History], metrics: Sequence[str]) -> None:
    from bench.console import stdout
    from bench.terminal_plot import can_draw

    console = stdout()
    unicode = can_draw(console.encoding)
    drawn = [one for one in found if one.epochs]
    panels = _panels(drawn, metrics)
    if len(found) == 1:
        _print_heading(found[0], console, sides=not metrics, unicode=unicode)
    else:
        _print_legend(found, [title for title, _ in panels], console, unicode=unicode)
    for title, part in panels:
        _print_panel(title, part, console, unicode=unicode)


def _print_heading(one: History, console: Console, *, sides: bool, unicode: bool) -> None:
    """One run in a line or two."""
    from rich.text import Text

    console.print(Text(f"{one.name} of {one.experiment}: {_state(one)}"))
    if one.epochs:
        of_sides = "t training (dotted), v validation, " if sides else ""
        console.print(Text(f"{of_sides}{'◆' if unicode else '*'} best epoch: {one.best_epoch}", style="dim"))


def _state(one: History) -> str:
    if not one.epochs:
        computed = one.status == "finished" and not one.planned
        return "computed in closed form, without epochs" if computed else f"{one.status}, no epoch has ended"
    count = f"{len(one.epochs)} epoch{'s' if len(one.epochs) > 1 else ''}"
    return count if one.status == "finished" else f"{count} of {one.planned}, {one.status}"


def _print_legend(found: Sequence[History], metrics: Sequence[str], console: Console, *, unicode: bool) -> None:
    """A line a run: its letter, name, epochs, and what it came to in its best epoch."""
    from rich.text import Text

    from bench.console import print_table

    apart = len({one.experiment for one in found}) > 1
    letters = iter(range(len(found)))
    rows: list[tuple[str | Text, ...]] = []
    for one in found:
        number = next(letters) if one.epochs else None
        mark = Text("") if number is None else Text(_letter(number), style=_STYLES[number % len(_STYLES)])
        best = [_number(name, one.best(name)) for name in metrics] if one.epochs else [""] * len(metrics)
        name = f"{one.experiment}/{one.name}" if apart else one.name
        rows.append((mark, name, _state(one), str(one.best_epoch or ""), *best))
    print_table(("", "run", "epochs", "best", *metrics), rows, right=range(3, 4 + len(metrics)))
    console.print(Text(f"{'◆' if unicode else '*'} best epoch", style="dim"))


def _print_panel(title: str, part: Sequence[Curve], console: Console, *, unicode: bool) -> None:
    from rich.text import Text

    from bench.terminal_plot import plot

    columns = min(shutil.get_terminal_size((80, 24)).columns, _MOST_COLUMNS)
    console.print()
    console.print(Text(title, style="bold"))
    percent = _is_share(title)
    for line in plot(part, x_label="epoch", width=columns - 1, height=_HEIGHT, percent=percent, unicode=unicode):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    for curve in part:
        if gaps := len(curve.points) - len(curve.finite()):
            whose = f"{curve.mark}: " if curve.mark else ""
            console.print(Text(f"{whose}no number in {gaps} epoch{'s' if gaps > 1 else ''}", style="yellow"))


def _number(metric: str, value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.2%}" if _is_share(metric) else f"{value:.4g}"


def _is_share(metric: str) -> bool:
    return metric.endswith("accuracy")


def _panels(drawn: Sequence[History], metrics: Sequence[str]) -> list[tuple[str, list[Curve]]]:
    """(title, curves) of each plot."""
    if metrics or len(drawn) > 1:
        names = metrics or _common(drawn)
        return [
            (
                name,
                [
                    _curve(one, name, _letter(number) if len(drawn) > 1 else "", number)
                    for number, one in enumerate(drawn)
                ],
            )
            for name in names
        ]
    parts = []
    for what in ("loss", "accuracy") if drawn else ():
        names = [name for name in (f"train_{what}", f"val_{what}") if name in drawn[0].values]
        parts.append((what, [_side(drawn[0], name) for name in names]))
    return parts


def _common(drawn: Sequence[History]) -> list[str]:
    """What is drawn of several runs: of the validation images where each run has them."""
    prefix = "val" if all("val_loss" in one.values for one in drawn) else "train"
    return [f"{prefix}_loss", f"{prefix}_accuracy"]


def _curve(one: History, metric: str, letter: str, number: int) -> Curve:
    from bench.terminal_plot import Curve

    style = _STYLES[number % len(_STYLES)]
    return Curve(one.points(metric), letter, style, best=float(one.best_epoch))


def _side(one: History, metric: str) -> Curve:
    from bench.terminal_plot import Curve

    trained = metric.startswith("train_")
    best = None if trained and f"val_{metric.removeprefix('train_')}" in one.values else float(one.best_epoch)
    return Curve(one.points(metric), "t" if trained else "v", _STYLES[1 - trained], dotted=trained, best=best)


def _letter(number: int) -> str:
    return _LETTERS[number % len(_LETTERS)]
