"""`bench mistakes`: what a run got wrong, on the terminal."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.completion import RUN

if TYPE_CHECKING:
    from bench.record import Run
    from bench.wrong_answers import Mistakes, Sample

__all__ = ["mistakes"]

#: Lines of the table of confused classes.
_CONFUSIONS = 10

#: Kind -> the guess, and the title of its table.
_PAIR_TITLES = {
    "false accept": ("same", "false accepts: different, taken for the same"),
    "false reject": ("different", "false rejects: the same, taken for different"),
}


@click.command()
@click.argument("run", shell_complete=RUN.shell_complete)
@click.option("-k", "--count", "count", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option("--split", type=click.Choice(["test", "validation"]), help="Default: test, where it was predicted.")
@click.option("--class", "class_name", metavar="NAME", help="Only what is of this class, or was taken for it.")
@click.option("--uncertain", is_flag=True, help="The least certain answers instead, right ones too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a CSV table.")
def mistakes(
    run: str, *, count: int, split: str | None, class_name: str | None, uncertain: bool, as_json: bool, as_csv: bool
) -> None:
    """List a run's worst mistakes, the most confident first, and the classes that it confuses.

    Of pairs: the false accepts and the false rejects, those farthest from the threshold first.

    \b
    bench mistakes RUN -k 50
    bench mistakes RUN --class stop --split validation
    bench mistakes RUN --uncertain --csv > uncertain.csv
    """
    from bench.run_names import find
    from bench.wrong_answers import look

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    recorded = find(run)
    found = look(recorded, split=split, count=count, class_name=class_name, uncertain=uncertain)
    if as_json:
        from bench.console import print_json

        print_json(asdict(found))
    elif as_csv:
        _print_csv(found)
    else:
        _print_heading(found, _root(recorded, found.samples))
        _print_samples(found, uncertain=uncertain)
        if found.threshold is None:
            _print_confusions(found)


def _root(run: Run, samples: Sequence[Sample]) -> str:
    """The folder that the ids are paths below; "" where they are none, or the images are not here."""
    root = str((run.info().get("dataset") or {}).get("root") or "")
    return root if root and samples and (Path(root) / samples[0].id).is_file() else ""


def _print_heading(found: Mistakes, root: str) -> None:
    from rich.text import Text

    from bench.console import stdout

    what = "images" if found.threshold is None else "pairs"
    chosen = f" of {_clean(found.chosen_class)} or taken for it" if found.chosen_class else ""
    console = stdout()
    console.print(Text(f"{found.run}: {found.wrong:,} of {found.num_samples:,} {found.split} {what}{chosen} are wrong"))
    if root:
        console.print(Text(f"paths below {_clean(root)}", style="dim"), soft_wrap=True)
    if found.threshold is not None:
        console.print(f"same from a score of {found.threshold:.4f} on")


def _print_samples(found: Mistakes, *, uncertain: bool) -> None:
    if not found.samples:
        return
    if found.threshold is None:
        heads = ("image", "true class", "guess", "p(guess)", "p(true)")
        title = "the least certain" if uncertain else "the most confident mistakes"
        _print_titled(title, heads, map(_class_cells, found.samples), right=(3, 4))
    elif uncertain:
        _print_titled("the least certain", ("pair", "true class", "guess", "score"), map(_pair_cells, found.samples))
    else:
        counts = {one.guess: one.count for one in found.confusions}
        for kind, (guess, title) in _PAIR_TITLES.items():
            part = [(_clean(one.id), f"{one.probability:.4f}") for one in found.samples if one.kind == kind]
            if part:
                _print_titled(f"{counts[guess]:,} {title}", ("pair", "score"), part)


def _print_confusions(found: Mistakes) -> None:
    from bench.console import stdout

    shown = found.confusions[:_CONFUSIONS]
    if not shown:
        return
    rows = [(_clean(one.true_class), _clean(one.guess), f"{one.count:,} of {one.samples:,}") for one in shown]
    _print_titled("", ("true class", "taken for", "times"), rows)
    if (rest := len(found.confusions) - _CONFUSIONS) > 0:
        stdout().print(f"and {rest:,} more; --json lists them all", style="dim")


def _print_titled(
    title: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, right: tuple[int, ...] = ()
) -> None:
    from rich.table import Table
    from rich.text import Text

    from bench.console import stdout

    console, cells = stdout(), list(rows)
    console.print()
    if title:
        console.print(title, style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    flush = right or (len(heads) - 1,)
    for index, head in enumerate(heads):
        # A path is copied from here: it stays whole where it fits at all, and names of classes are folded instead.
        whole = index in flush or (not index and max(len(row[0]) for row in cells) <= console.width // 2)
        table.add_column(head, justify="right" if index in flush else "left", overflow="fold", no_wrap=whole)
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def _class_cells(sample: Sample) -> tuple[str, ...]:
    return *_answer(sample), f"{sample.probability:.4f}", f"{sample.true_probability:.4f}"


def _pair_cells(sample: Sample) -> tuple[str, ...]:
    return *_answer(sample), f"{sample.probability:.4f}"


def _answer(sample: Sample) -> tuple[str, str, str]:
    right = " (right)" if sample.kind == "right" else ""
    return _clean(sample.id), _clean(sample.true_class), _clean(sample.guess) + right


def _clean(text: str | None) -> str:
    """A name as a terminal may show it: a file's name can hold control codes."""
    return "".join(letter if letter.isprintable() else "?" for letter in text or "")


def _print_csv(found: Mistakes) -> None:
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(("id", "kind", "true_class", "guess", "probability", "true_probability"))
    for one in found.samples:
        table.writerow((one.id, one.kind, one.true_class, one.guess, one.probability, one.true_probability))
