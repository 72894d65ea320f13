"""The latency page: one HTML file that needs no network and no script."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.files import write_text
from bench_export.latency.plots import HUES, batches_plot, distribution_plot, drift_plot
from bench_export.latency.wording import (
    MEASURE_TEXTS,
    MEASURES,
    SCENARIOS,
    compared,
    digits,
    heading,
    recommended,
    refusals,
    runs_on,
    speed,
    speed_name,
    tuning,
    unit_of,
    verdict,
)

__all__ = ["render", "write_page"]

_LEVELS = ("50", "90", "95", "99", "99.9")

#: Entries of the conditions that people read, in this order; the record has all of them.
_MACHINE = {
    "cpu": "processor",
    "instruction_sets": "instruction sets",
    "cores_usable": "cores that may be used",
    "cores_physical": "physical cores",
    "cores_logical": "logical cores",
    "threads_per_core": "threads a core",
    "cpu_quota": "quota, cores",
    "virtual": "virtual machine",
    "governor": "governor",
    "turbo": "turbo",
    "clock_max_mhz": "highest clock, MHz",
    "memory_gb": "memory, GiB",
    "gpu": "GPU",
    "os": "system",
    "kernel": "kernel",
    "versions": "versions",
}
_LOAD = {
    "busy_percent": "processor busy, %",
    "own_percent": "the measurement itself, %",
    "others_percent": "other processes, %",
    "others_percent_worst_second": "other processes, worst second, %",
    "steal_percent": "taken by the hypervisor, %",
    "load_average": "load average",
    "clock_mhz": "clock, MHz",
    "temperature_c": "temperature, °C",
    "throttled_periods": "stopped by the quota, times",
    "context_switches": "context switches",
    "memory_free_gb": "free memory, GiB",
    "busiest": "busiest other processes",
}
_PERIODS = ("before", "during", "after")


def write_page(record: Mapping[str, Any], path: Path) -> None:
    """Write the page of a record of `bench latency`, whole or not at all."""
    write_text(path, render(record))


def render(record: Mapping[str, Any]) -> str:
    """The page's HTML. Everything that comes from the record is escaped; the record itself is in it, as a download."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    candidates = record["candidates"]
    names = [one["name"] for one in candidates]
    plots = [(title, text, Markup(svg)) for title, text, svg in _plots(record, names) if svg]  # noqa: S704  # our own SVG
    return environment.get_template("page.html.jinja").render(
        record=record,
        title=_title(candidates),
        heading=heading(record),
        verdicts=_verdicts(record),
        recommended=recommended(record),
        speed_name=speed_name(record),
        disturbances=(record["conditions"].get("during") or {}).get("disturbances") or [],
        levels=_LEVELS,
        measures=[_percentiles(record, key) for key in _measures(candidates)],
        refused=refusals(record, _LEVELS),
        costs=[_costs(one) for one in candidates],
        energy=any(one.get("energy_j") is not None for one in candidates),
        legend=[(name, number % HUES) for number, name in enumerate(names)],
        plots=plots,
        machine=_named(_MACHINE, record["conditions"].get("machine") or {}),
        load=_load(record["conditions"]),
        scenario=SCENARIOS.get(record["scenario"], record["scenario"]),
        loadgen=_loadgen(candidates),
        download=base64.b64encode(json.dumps(record, indent=2).encode()).decode(),
    )


def _title(candidates: Sequence[Mapping[str, Any]]) -> str:
    """The file where there is one, otherwise the candidates."""
    files = {Path(one["file"]).name for one in candidates if one.get("file")}
    return files.pop() if len(files) == 1 else ", ".join(one["name"] for one in candidates)


def _measures(candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    return [key for key in MEASURES if any(key in one["measures"] for one in candidates)]


def _verdicts(record: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """(sentence, what was compared, whether a difference was found)."""
    return [
        (verdict(one), compared(one), not one["verdict"].startswith("no difference")) for one in record["comparisons"]
    ]


def _percentiles(record: Mapping[str, Any], measure: str) -> dict[str, Any]:
    """A measure's table: a row a candidate, each cell a value and its interval."""
    unit, scale = unit_of(record, measure)
    rows = []
    for number, one in enumerate(record["candidates"]):
        if measure in one["measures"]:
            values = one["measures"][measure]
            cells = [_cell(values["percentiles"].get(level) or {}, scale) for level in _LEVELS]
            facts = {"name": one["name"], "hue": number % HUES, "queries": values["queries"], "speed": speed(values)}
            rows.append({**facts, "cells": cells})
    return {"name": MEASURES[measure], "text": MEASURE_TEXTS[measure], "unit": unit, "rows": rows}


def _cell(found: Mapping[str, Any], scale: float) -> tuple[str, str]:
    """(value, interval); a dash where there is none."""
    if "value_ms" not in found:
        return "-", ""
    value, low, high = (digits(scale * found[key]) for key in ("value_ms", "low_ms", "high_ms"))
    return value, f"[{low}, {high}]"


def _costs(candidate: Mapping[str, Any]) -> dict[str, Any]:
    cold = candidate.get("cold_start") or {}
    numbers = {name: cold.get(f"{name}_ms") for name in ("process", "session", "first_run")}
    numbers |= {"memory": candidate.get("peak_memory_mb"), "file": candidate.get("size_mb")}
    numbers |= {"energy": candidate.get("energy_j")}
    shown = {name: "-" if value is None else digits(value) for name, value in numbers.items()}
    asked = ", ".join(one.removesuffix("ExecutionProvider") for one in candidate.get("providers_asked") or ())
    what = ", ".join(str(candidate[key]) for key in ("runtime", "precision") if candidate.get(key))
    threads = candidate.get("threads") or "default"
    words = {
        "what": what,
        "asked": asked or "?",
        "runs_on": runs_on(candidate),
        "threads": threads,
        "tuning": tuning(candidate),
    }
    return {"name": candidate["name"], **shown, **words}


def _plots(record: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, str, str | None]]:
    candidates = record["candidates"]
    dots = "Latency by percentile, stretched towards the slow end; dots carry the 95 % intervals of the percentiles."
    found = [(f"Latency, {MEASURES[key]}", dots, distribution_plot(candidates, key)) for key in _measures(candidates)]
    course = (
        "The median of each block against the candidate's own: where it is not level, the machine changed meanwhile."
    )
    measured = _measures(candidates)
    if measured:
        found.append((f"Course over time, {MEASURES[measured[0]]}", course, drift_plot(candidates, measured[0])))
    batches = record.get("by_batch") or []
    text = "Images a second by batch size, with 95 % intervals."
    return [*found, ("Throughput", text, batches_plot(batches, names))]


def _load(conditions: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """A row an entry: before, during and after; rows that say nothing are left out."""
    periods = [conditions.get(period) or {} for period in _PERIODS]
    rows = [(name, [_text(period.get(key)) for period in periods]) for key, name in _LOAD.items()]
    return [(name, cells) for name, cells in rows if any(cells)]


def _named(names: Mapping[str, str], values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, _text(values[key])) for key, name in names.items() if _text(values.get(key))]


def _loadgen(candidates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"name": one["name"], "measure": MEASURES[key], **one["measures"][key]["loadgen"]}
        for one in candidates
        for key in MEASURES
        if one["measures"].get(key, {}).get("loadgen")
    ]


def _text(value: Any) -> str:
    """A value for people; what is unknown is empty."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004  # no powers of ten
    if isinstance(value, Mapping):
        return _of_mapping(value)
    return ("; " if value and isinstance(value[0], Mapping) else ", ").join(map(_text, value))


def _of_mapping(values: Mapping[str, Any]) -> str:
    """Clocks with their range, a process with its share, anything else entry by entry."""
    if {"min", "median", "max"} <= values.keys():
        low, middle, high = (_text(values[key]) for key in ("min", "median", "max"))
        return middle if low == high else f"{middle} ({low} to {high})"
    if "percent_of_a_core" in values:
        return f"{values['name']}, {values['percent_of_a_core']:.0f} % of a core"
    return ", ".join(f"{key.replace('_', ' ')} {_text(item)}" for key, item in values.items() if item is not None)
