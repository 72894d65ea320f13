"""A comparison on the terminal, readable at 80 columns and without colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from bench.comparison.columns import Column, accuracy_text, figures_of
from bench.comparison.model import Comparison, Entry, TestSet, Verdict
from bench.comparison.wording import (
    best_text,
    difference_text,
    family_text,
    grouped,
    method_texts,
    p_text,
    runs_text,
    set_text,
    value_text,
    value_texts,
    verdict_text,
)
from bench.console import print_table, stdout
from bench.words import shorten

__all__ = ["print_comparison"]

_GAP = 2
_LABEL = 20
_FEW_PAIRS = 10
_MOST_VERDICTS = 20
_FEW_ENTRIES = 4
_LEAST_ROOM = 18
_MOST_KEYS = 40
_MOST_VALUES = 6
_MOST_SPANS = 6
_LONGEST = 48

#: What stands behind a run that is several.
_MEANS = {
    "seeds": "xN: the mean of N seeds, with its interval by Student's t.",
    "folds": "xN: the mean of N runs over folds, plus or minus its standard error.",
}


@dataclass(frozen=True, slots=True)
class _Column:
    """A column as it is printed; of those that find no room the one with the least `keep` goes first."""

    head: str
    cells: list[str]
    right: bool = False
    keep: int = 10

    @property
    def width(self) -> int:
        return max(map(cell_len, [self.head, *self.cells]))

    def lines(self) -> list[str]:
        """Head and cells, each as wide as the column."""
        width, texts = self.width, [self.head, *self.cells]
        return [
            " " * (width - cell_len(text)) + text if self.right else text + " " * (width - cell_len(text))
            for text in texts
        ]


def print_comparison(comparison: Comparison, *, page: Path | None = None) -> None:
    """Entries by test set, verdicts, what differs, what was left out, and where the page is."""
    if not comparison.entries:
        _say("nothing to compare: no run can be used")
    for place, test_set in enumerate(comparison.test_sets):
        if place:
            stdout().print()
        _print_set(comparison, test_set)
    if len(comparison.test_sets) > 1:
        stdout().print()
        _say("Entries of different test sets are not compared with each other.", style="yellow")
    if comparison.num_pairs:
        stdout().print()
        _say(f"{family_text(comparison)}; intervals are 95 %, each of its pair alone.", style="dim")
        for text in method_texts(comparison):
            _say(text, style="dim")
    _print_differences(comparison)
    _print_left_out(comparison)
    if page is not None:
        stdout().print(Text(f"page: {page.resolve()}"), soft_wrap=True)


def _print_set(comparison: Comparison, test_set: TestSet) -> None:
    own = set(test_set.entries)
    entries = [entry for entry in comparison.entries if entry.number in own]
    _say(f"{set_text(test_set)} of the {comparison.split} split", style="bold")
    names, costs = _columns(entries)
    if _width([*names, *costs]) <= stdout().width:
        _print_columns([*names, *costs])
    else:
        _print_columns(names)
        if len(costs) > 1:
            stdout().print()
            _print_columns([names[0], *costs])
    stdout().print()
    for note in test_set.notes:
        _say(f"note: {note}", style="yellow")
    _say(best_text(test_set, comparison))
    if len(entries) > 1 and any(entry.tested for entry in entries):
        many = any(entry.letters == "-" for entry in entries)
        said = "a under tie: no difference to the most accurate one is detectable."
        _say(said if many else "Entries that share a letter under tie cannot be told apart.", style="dim")
    for kind, text in _MEANS.items():
        if any(entry.kind == kind for entry in entries):
            _say(text, style="dim")
    _print_verdicts(comparison, test_set)


def _columns(entries: Sequence[Entry]) -> tuple[list[_Column], list[_Column]]:
    """Who it is and how accurate, and the other figures."""
    names = [
        _Column("", [str(entry.number) for entry in entries], right=True),
        _Column("recipe", [shorten(entry.label, _LABEL) for entry in entries]),
        _Column("run", [runs_text(entry) for entry in entries]),
        _Column("accuracy [95 %]", [accuracy_text(entry) for entry in entries]),
        _Column("tie", [entry.letters for entry in entries]),
    ]
    return names, [_figure(column, entries) for column in figures_of(entries)]


def _figure(column: Column, entries: Sequence[Entry]) -> _Column:
    text = column.name == "precision"
    return _Column(column.head, [column.text(entry) for entry in entries], right=not text, keep=column.keep)


def _print_columns(columns: Sequence[_Column]) -> None:
    """A table; columns go until it fits, and are named."""
    shown = list(columns)
    while _width(shown) > stdout().width and any(column.keep < 10 for column in shown):  # noqa: PLR2004
        shown.remove(min(shown, key=lambda column: column.keep))
    if _width(shown) <= stdout().width:
        lines = zip(*(one.lines() for one in shown), strict=True)
        text = Text("\n".join((" " * _GAP).join(cells).rstrip() for cells in lines))
        text.stylize("bold", 0, text.plain.index("\n"))
        stdout().print(text, soft_wrap=True)  # rich's tables take a millisecond a row
    else:
        flush = [place for place, column in enumerate(shown) if column.right]
        cells = zip(*(map(Text, one.cells) for one in shown), strict=True)
        print_table([one.head for one in shown], cells, right=flush)
    if hidden := [one.head for one in columns if one not in shown]:
        _say(f"no room for {', '.join(hidden)} (--csv, --json, --html)", style="dim")


def _width(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + _GAP * len(columns)


def _print_verdicts(comparison: Comparison, test_set: TestSet) -> None:
    """All of few pairs, otherwise those with the best."""
    tested = [e.number for e in comparison.entries if e.tested and e.number in set(test_set.entries)]
    if test_set.best is None or len(tested) < 2:  # noqa: PLR2004
        return
    stdout().print()
    few = len(tested) * (len(tested) - 1) // 2 <= _FEW_PAIRS
    verdicts = comparison.among(tested) if few else comparison.against(test_set.best)
    if not few:
        _say("Against the most accurate one (--json has all pairs):")
    rows = [_verdict_row(one) for one in verdicts[:_MOST_VERDICTS]]
    print_table(("verdict", "points [95 %]", "p"), rows, right=(2,))
    if len(verdicts) > _MOST_VERDICTS:
        rest = verdicts[_MOST_VERDICTS:]
        better = sum(one.differs for one in rest)
        _say(f"and {len(rest):,} more: better than {better:,} of them (--json)", style="dim")


def _verdict_row(verdict: Verdict) -> tuple[Text, str, str]:
    text = Text(verdict_text(verdict), style="green" if verdict.differs else "dim")
    return text, difference_text(verdict), p_text(verdict.adjusted)


def _print_differences(comparison: Comparison) -> None:
    found = comparison.differences
    if len(comparison.entries) < 2:  # noqa: PLR2004
        return
    stdout().print()
    if not found:
        _say("The recipes do not differ.")
        return
    _say("What differs between the recipes", style="bold")
    shown = dict(list(found.items())[:_MOST_KEYS])
    numbers = [entry.number for entry in comparison.entries]
    room = (stdout().width - max(map(len, shown)) - _GAP * (len(numbers) + 1)) // len(numbers)
    if len(numbers) <= _FEW_ENTRIES and room >= _LEAST_ROOM:
        rows = [
            [Text(key), *(Text(shorten(one, room)) for one in value_texts(values))] for key, values in shown.items()
        ]
        print_table(("key", *map(str, numbers)), rows)
    else:
        print_table(
            ("key", "values (entries)"), [(Text(key), Text(_values(values, numbers))) for key, values in shown.items()]
        )
    if len(found) > len(shown):
        _say(f"and {len(found) - len(shown)} more keys (--json, --html)", style="dim")


def _values(values: Iterable[Any], numbers: Sequence[int]) -> str:
    """0.001 (1, 3), 0.003 (2): each value with its entries; of many only how many, and from where to where."""
    of_value: dict[str, list[int]] = {}
    kept = list(values)
    for text, number in zip(value_texts(kept), numbers, strict=True):
        of_value.setdefault(text, []).append(number)
    if len(of_value) <= _MOST_VALUES:
        return ", ".join(f"{shorten(text, _LONGEST)} ({_spans(own)})" for text, own in of_value.items())
    plain = [one for one in kept if isinstance(one, int | float) and not isinstance(one, bool)]
    ends = f", {value_text(min(plain))} to {value_text(max(plain))}" if len(plain) == len(kept) else ""
    return f"{len(of_value)} values{ends}"


def _spans(numbers: Sequence[int]) -> str:
    """1-4, 7."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    if len(spans) > _MOST_SPANS:
        return f"{len(numbers)} entries"
    return ", ".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)


def _print_left_out(comparison: Comparison) -> None:
    if not comparison.left_out:
        return
    stdout().print()
    _say("Left out", style="bold")
    rows = [
        (Text(name), Text(f"{'shown, ' if shown else ''}{reason}"))
        for name, _, reason, shown in grouped(comparison.left_out)
    ]
    print_table(("run", "why"), rows)


def _say(text: str, style: str = "") -> None:
    stdout().print(Text(text, style=style))
