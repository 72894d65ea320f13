"""What `bench reproduce` shows: what has changed, what was compared, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from bench.console import print_table, stdout

if TYPE_CHECKING:
    from bench.progress import Progress
    from bench.reproduction.changes import Change
    from bench.reproduction.evidence import Comparison, Paired
    from bench.reproduction.rerun import Prepared
    from bench.reproduction.verdict import Reproduction

__all__ = ["note_changes", "print_reproductions"]

_STYLES = {"identical": "green", "indistinguishable": "green", "different": "bold red", "undecided": "yellow"}


def note_changes(prepared: Sequence[Prepared], progress: Progress) -> None:
    """Say before the training what may keep it from giving the same bits."""
    named = {change.name: change for one in prepared for change in one.changes if change.matters}
    if named:
        shown = ", ".join(f"{one.name} ({one.recorded} -> {one.now})" for one in named.values())
        progress.note(f"changed since the record: {shown}")


def print_reproductions(found: Sequence[Reproduction]) -> None:
    """Changes once where they are the same for all, then for each run what was compared and the verdict."""
    console = stdout()
    shown: tuple[Change, ...] | None = None
    for one in found:
        prepared = one.rerun.prepared
        if prepared.changes != shown:
            _print_changes(prepared.changes)
            shown = prepared.changes
        console.print()
        console.print(Text(f"{prepared.run.name} of {prepared.info['experiment']}", style="bold"))
        _print_comparison(one.comparison)
        if one.comparison.departs and one.comparison.departs not in one.sentence:
            console.print(Text(f"first: {one.comparison.departs}"))
        console.print(Text(one.sentence, style=_STYLES[one.outcome]))
        console.print(Text(f"recorded in {one.rerun.run.folder}"), soft_wrap=True)
    if len(found) > 1:
        good = sum(one.outcome in {"identical", "indistinguishable"} for one in found)
        console.print()
        console.print(f"{good} of {len(found)} runs reproduced")


def _print_changes(changes: Sequence[Change]) -> None:
    if not changes:
        stdout().print("versions, hardware and code are the recorded ones")
        return
    rows = [
        tuple(
            Text(cell, style="" if one.matters else "dim") for cell in (one.name, one.recorded, one.now, _effect(one))
        )
        for one in changes
    ]
    print_table(("changed", "record", "now", ""), rows)


def _effect(change: Change) -> str:
    return "can change the numbers" if change.matters else ""


def _print_comparison(found: Comparison) -> None:
    rows: list[tuple[str, str, str, str]] = []
    if found.epochs:
        rows.append(("epochs", str(found.epochs), "", "differ" if found.departs else "identical"))
    for one in found.paired:
        name = "val accuracy" if one.split == "validation" else f"{one.split} accuracy"
        rows.append((name, _accuracy(one, one.right_then), _accuracy(one, one.right_now), _same(one)))
    if found.weights is not None:
        then, now = (f"sha256 {digest[:12]}" for digest in found.digests)
        rows.append(("weights", then, now, "identical" if found.weights else "differ"))
    if rows:
        print_table(("", "record", "now", ""), rows)
    for reason in found.lacking:
        stdout().print(Text(f"not compared: {reason}", style="yellow"))


def _accuracy(paired: Paired, right: int) -> str:
    value, low, high = paired.accuracy(right)
    return f"{value:.2%} [{low:.2%}, {high:.2%}]"


def _same(paired: Paired) -> str:
    if paired.identical:
        return "identical"
    return f"{paired.differing:,} differ" if paired.differing else "differ"
