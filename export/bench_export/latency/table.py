"""What `bench latency` prints: verdicts and tables for 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from bench.console import print_table, stdout
from bench.words import shorten
from bench_export.latency.wording import (
    MEASURE_TEXTS,
    MEASURES,
    compared,
    digits,
    heading,
    interval,
    recommended,
    refusals,
    runs_on,
    speed,
    speed_name,
    tuning,
    unit_of,
    verdict,
)

__all__ = ["print_report"]

_COLUMNS = 79
_NAME = 14
_LEVELS = ("50", "90", "99")


def print_report(record: Mapping[str, Any]) -> None:
    """The record of `bench latency`: what was timed, percentiles with 95 % intervals, verdicts, conditions."""
    for line in heading(record):
        _say(line, style="dim")
    for measure in MEASURES:
        _print_percentiles(record, measure)
    for reason in refusals(record, _LEVELS):
        _say(f"- {reason}", style="dim")
    _print_throughput(record)
    _print_costs(record["candidates"])
    _print_batches(record.get("by_batch") or [])
    _print_verdicts(record)
    _print_conditions(record)


def _print_percentiles(record: Mapping[str, Any], measure: str) -> None:
    measured = [(one["name"], one["measures"][measure]) for one in record["candidates"] if measure in one["measures"]]
    if not any("value_ms" in level for _, values in measured for level in values["percentiles"].values()):
        return
    unit, scale = unit_of(record, measure)
    _say()
    _say(f"{MEASURES[measure]}, {unit} a query [95 %]: {MEASURE_TEXTS[measure]}", style="bold")
    rows = [(shorten(n, _NAME), *(_percentile(values, level, scale) for level in _LEVELS)) for n, values in measured]
    print_table(("candidate", *(f"p{level}" for level in _LEVELS)), rows)


def _percentile(values: Mapping[str, Any], level: str, scale: float) -> str:
    found = values["percentiles"].get(level) or {}
    if "value_ms" not in found:
        return "-"
    return interval(*(scale * found[key] for key in ("value_ms", "low_ms", "high_ms")))


def _print_throughput(record: Mapping[str, Any]) -> None:
    """Images a second in both measures, or the rate that the server scenario found."""
    candidates = record["candidates"]
    _say()
    _say(speed_name(record), style="bold")
    shown = [key for key in MEASURES if any(key in one["measures"] for one in candidates)]
    rows = [(shorten(one["name"], _NAME), *(speed(one["measures"].get(key)) for key in shown)) for one in candidates]
    print_table(("candidate", *(MEASURES[key] for key in shown)), rows, right=range(1, len(shown) + 1))


def _print_costs(candidates: Sequence[Mapping[str, Any]]) -> None:
    """Memory, size and cold start; energy only where some candidate's could be read."""
    energy = any(one.get("energy_j") is not None for one in candidates)
    heads = ["candidate", "memory", "file", "process", "session", "first run", *(["energy"] * energy)]
    rows = []
    for one in candidates:
        cold = one.get("cold_start") or {}
        row = [shorten(one["name"], _NAME), *(_with_unit(one.get(key), "MB") for key in ("peak_memory_mb", "size_mb"))]
        row += [_with_unit(cold.get(f"{part}_ms"), "ms") for part in ("process", "session", "first_run")]
        rows.append(row + [_with_unit(one.get("energy_j"), "J")] * energy)
    _say()
    print_table(heads, rows, right=range(1, len(heads)))
    _say("cold start: a new process until it can be used, the session, its first run", style="dim")
    for one in candidates:
        tuned = f"; {tuning(one)}" if one.get("tuning") else ""
        asked = ", ".join(name.removesuffix("ExecutionProvider") for name in one.get("providers_asked") or ())
        of = f"{one.get('runtime')}, {one.get('precision')}; asked for {asked or '?'}, runs on {runs_on(one)}{tuned}"
        _say(f"{one['name']}: {of}", style="dim")


def _print_batches(entries: Sequence[Mapping[str, Any]]) -> None:
    """Images a second against the batch, as many batches side by side as there is room for."""
    if not entries:
        return
    found = {
        (one["candidate"], one["batch"]): interval(one["samples_per_second"], one["low"], one["high"])
        for one in entries
    }
    batches = sorted({one["batch"] for one in entries})
    names = list(dict.fromkeys(one["candidate"] for one in entries))
    side_by_side = max(1, (_COLUMNS + 1 - _NAME) // (max(map(len, found.values())) + 2))
    _say()
    _say("throughput by batch, a second [95 %]", style="bold")
    for start in range(0, len(batches), side_by_side):
        shown = batches[start : start + side_by_side]
        rows = [(shorten(name, _NAME), *(found.get((name, batch), "-") for batch in shown)) for name in names]
        print_table(("candidate", *(f"batch {batch}" for batch in shown)), rows)


def _print_verdicts(record: Mapping[str, Any]) -> None:
    _say()
    for comparison in record["comparisons"]:
        _say(f"{verdict(comparison)} ({compared(comparison)})", style="bold")
    if chosen := recommended(record):
        _say(f"recommended: {', '.join(chosen)}", style="bold green")


def _print_conditions(record: Mapping[str, Any]) -> None:
    for sentence in _disturbances(record):
        _say(f"disturbed: {sentence}", style="yellow")
    if record["publishable"]:
        _say("publishable: LoadGen's rules on duration, queries and early stopping are kept")
        return
    for reason in record["why_not"] or ["the record does not say why"]:
        _say(f"not publishable: {reason}", style="yellow")


def _disturbances(record: Mapping[str, Any]) -> Iterator[str]:
    """What is not among the reasons against publishing already."""
    known = " ".join(record["why_not"])
    found = (record["conditions"].get("during") or {}).get("disturbances") or ()
    return (sentence for sentence in found if sentence not in known)


def _with_unit(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{digits(value)} {unit}"


def _say(line: str = "", *, style: str = "") -> None:
    """A sentence, wrapped within 80 columns whatever it is printed to."""
    console = stdout()
    for part in textwrap.wrap(line, _COLUMNS, subsequent_indent="  ", break_on_hyphens=False) or [""]:
        console.print(Text(part, style=style), soft_wrap=True)
