"""What bench export shows: a column a file, and what the gate found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from bench.console import print_table, stdout

if TYPE_CHECKING:
    from bench_export.export_run import Exported

__all__ = ["as_values", "print_exports"]


def as_values(one: Exported) -> dict[str, Any]:
    """An export as plain values, for --json."""
    return {
        "file": str(one.path),
        "precision": one.precision,
        "accepted": one.accepted,
        "bytes": _size(one.path),
        "gate": one.report,
        "departure": one.departure,
        "exporter": dict(one.card.exporter),
        "quantisation": one.card.quantisation,
        "registration": asdict(one.registration) if one.registration else None,
    }


def print_exports(done: Sequence[Exported]) -> None:
    """The table, and below it where the files lie and why they are registered as they are."""
    rows: list[tuple[str, Callable[[Exported], str | Text]]] = [
        ("gate", _verdict),
        ("same answers", lambda one: _share(one.report["agreement"])),
        ("largest difference", lambda one: _number(one.report["max_difference"])),
        ("mean difference", lambda one: _number(one.report["mean_difference"])),
        ("accuracy, trained", lambda one: _share(one.report["accuracy"].get("trained"))),
        ("accuracy, exported", lambda one: _share(one.report["accuracy"].get("exported"))),
        ("points gained", lambda one: _signed(one.report["accuracy"].get("difference_points"))),
        ("  95 % interval", _interval),
        ("layers in float", _kept_float),
        ("size", lambda one: f"{_size(one.path) / 1e6:.2f} MB" if one.path.is_file() else "-"),
    ]
    shown = [(name, [cell(one) for one in done]) for name, cell in rows]
    print_table(
        ["", *(one.precision for one in done)],
        [(name, *cells) for name, cells in shown if any(str(cell) != "-" for cell in cells)],
    )
    report = done[0].report
    console = stdout()
    note = f" ({report['note']})" if report["note"] else ""
    console.print(f"judged on {report['samples']:,} {report['split']} samples, in batches of 1, 2 and 7{note}")
    for one in done:
        how = one.card.quantisation
        if how and len(how["kept_float"]) == how["layers"]:  # int8 in name only
            console.print(f"{one.precision}: {how['remark']}")
        if one.path.is_file():
            console.print(f"{one.precision}: {one.path}", soft_wrap=True)
        if one.registration:
            kind = one.registration
            console.print(f"  {kind.model} version {kind.version} is the {kind.alias}: {kind.reason}")


def _verdict(one: Exported) -> Text:
    return Text("passed", style="green") if one.accepted else Text("missed", style="bold red")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _interval(one: Exported) -> str:
    low, high = one.report["accuracy"].get("interval_points", (None, None))
    return "-" if low is None else f"[{low:+.2f}, {high:+.2f}]"


def _kept_float(one: Exported) -> str:
    how = one.card.quantisation
    return "-" if how is None else f"{len(how['kept_float'])} of {how['layers']}"


def _size(path: Path) -> int:
    """Bytes of a file and of the weights beside it."""
    if not path.is_file():  # it could not be made
        return 0
    beside = path.with_name(f"{path.name.replace('.rejected', '')}.data")
    return path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)
