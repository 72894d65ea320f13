"""The words and numbers of a latency record that the terminal and the page share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "MEASURES",
    "MEASURE_TEXTS",
    "METRICS",
    "SCENARIOS",
    "UNHELD",
    "compared",
    "digits",
    "heading",
    "interval",
    "recommended",
    "refusals",
    "runs_on",
    "speed",
    "speed_name",
    "tuning",
    "unit_of",
    "valid",
    "verdict",
]

#: Key of a measure -> what people call it.
MEASURES = {"end_to_end": "end to end", "compute": "compute only"}

#: What each one times.
MEASURE_TEXTS = {
    "end_to_end": "from encoded images to answers",
    "compute": "from prepared arrays to answers",
}

#: What comparisons are about, for people.
METRICS = {
    "samples_per_second": "throughput",
    "qps": "queries/s; the range is what the search left open, no 95 % interval",
}

#: What marks a rate of the server scenario that did not hold.
UNHELD = "(!)"

#: MLPerf's scenarios as `--scenario` names them.
SCENARIOS = {
    "single": "single stream: the next query when the last is done",
    "multi": "multi-stream: queries of several images, the next when the last is done",
    "server": "server: queries arrive at random (Poisson), latency counts from the scheduled time",
    "offline": "offline: all images at once",
}

_DIGITS = 3
_SHORT_MS, _LONG_MS, _VERY_LONG_MS = 0.1, 10.0, 10_000.0


def digits(value: float) -> str:
    """Three significant digits, but no more than three decimals and no powers of ten: 0.634, 12.3, 1,250."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(float(f"{value:.{_DIGITS - 1}e}"))))
    return f"{value:,.{min(_DIGITS, max(0, _DIGITS - 1 - exponent))}f}"


def unit_of(record: Mapping[str, Any], measure: str) -> tuple[str, float]:
    """(unit, how many of it are a millisecond) in which a measure's percentiles are best read."""
    levels = [
        level
        for one in record["candidates"]
        for name, level in one["measures"].get(measure, {}).get("percentiles", {}).items()
        if "value_ms" in level and name != "99.9"  # a rare outlier must not choose the unit of all
    ]
    shortest = min((level["low_ms"] for level in levels), default=1.0)
    longest = max((level["high_ms"] for level in levels), default=1.0)
    if shortest < _SHORT_MS and longest < _LONG_MS:
        return "µs", 1e3
    return ("s", 1e-3) if longest >= _VERY_LONG_MS else ("ms", 1.0)


def interval(value: float, low: float, high: float) -> str:
    """A value with its 95 % interval."""
    return f"{digits(value)} [{digits(low)}, {digits(high)}]"


def runs_on(candidate: Mapping[str, Any]) -> str:
    """Providers, node by node where that is known: "CPU (98 nodes)"."""
    nodes = candidate.get("nodes") or {}
    if nodes:
        return ", ".join(f"{_short(name)} ({count} nodes)" for name, count in nodes.items())
    return ", ".join(_short(name) for name in candidate.get("providers_used") or ()) or "?"


def refusals(record: Mapping[str, Any], levels: Sequence[str]) -> list[str]:
    """Why some of these percentiles are missing: each reason once, with what it concerns."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for candidate in record["candidates"]:
        for measure in candidate["measures"].values():
            for level in levels:
                reason = measure["percentiles"].get(level, {}).get("refused")
                if reason:
                    places, names = found.setdefault(reason, ([], []))
                    places += [f"p{level}"] * (f"p{level}" not in places)
                    names += [candidate["name"]] * (candidate["name"] not in names)
    return [f"{', '.join(places)} of {', '.join(names)}: {reason}" for reason, (places, names) in found.items()]


def verdict(comparison: Mapping[str, Any]) -> str:
    """A comparison as a sentence that names both sides: "ort-int8 against ort: 7.1 % faster [5.9, 8.4]"."""
    text, a, b = (str(comparison[key]) for key in ("verdict", "a", "b"))
    text = text.removeprefix("B ")
    if text.startswith(f"{a} "):
        a, b = b, a
    return f"{b} against {a}: {text.removeprefix(f'{b} ')}"


def compared(comparison: Mapping[str, Any]) -> str:
    """What a comparison is about: "end to end, p50"."""
    measure, metric = comparison["measure"], comparison["metric"]
    return f"{MEASURES.get(measure, measure)}, {METRICS.get(metric, metric)}"


def recommended(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """(the candidate to ship or "none", why); None where the record does not say."""
    chosen = record.get("recommendation")
    return (str(chosen["candidate"] or "none"), str(chosen["reason"])) if chosen else None


def speed(values: Mapping[str, Any] | None) -> str:
    """What a measure achieved: the rate found in the server scenario, otherwise images a second."""
    if values is None:
        return "-"
    shown = digits(values.get("target_qps") or values["samples_per_second"])
    return f"{UNHELD} {shown}" if values.get("target_qps") and not valid(values) else shown


def valid(values: Mapping[str, Any]) -> bool:
    """Whether LoadGen grants a measure its figure."""
    return bool((values.get("loadgen") or {}).get("valid", True))


def speed_name(record: Mapping[str, Any]) -> str:
    """What `speed` is."""
    bound = record["settings"].get("bound_ms")
    if record["scenario"] != "server":
        return f"{_noun(record)}s a second"
    if not bound:
        return "queries a second"
    holds = f"p99 stays below {digits(bound)} ms"
    if all(valid(values) for one in record["candidates"] for values in one["measures"].values()):
        return f"queries a second at which {holds}"
    return f"queries a second that were asked; {UNHELD}: not so that {holds}"


def tuning(candidate: Mapping[str, Any]) -> str:
    """The session options that were chosen for it, and what they gained."""
    found = candidate.get("tuning") or {}
    if not found:
        return "none"
    threads = found.get("intra_op_threads")
    words = [f"{threads or 'default'} thread{'' if threads == 1 else 's'}"]
    words += ["spinning" if found["spinning"] else "no spinning"] if "spinning" in found else []
    words += [f"graph level {found['graph_level']}"] if "graph_level" in found else []
    words += ["IO binding"] if found.get("io_binding") else []
    gain = found.get("gain") or {}
    if gain.get("ratio", 1) != 1:
        words.append(f"{interval(gain['ratio'], gain['low'], gain['high'])} times as fast as the defaults")
    return ", ".join(words)


def heading(record: Mapping[str, Any]) -> list[str]:
    """What was timed, on what and how often, as sentences."""
    settings, machine = record["settings"], record["conditions"].get("machine", {})
    samples = settings.get("samples") or {}
    kind = "sample" if samples.get("real") is False else "real sample"
    shape = _size(samples.get("size"))
    batch, noun = settings.get("batch") or 1, _noun(record)
    lines = [
        f"{SCENARIOS.get(record['scenario'], record['scenario'])}; {_at_once(record['scenario'], batch, noun)}",
        f"inputs: {_count(samples.get('count') or 0, kind)}{shape}: {samples.get('source') or 'unnamed'}",
    ]
    queries = [measure["queries"] for candidate in record["candidates"] for measure in candidate["measures"].values()]
    if queries:
        least, most = min(queries), max(queries)
        times = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        lines.append(
            f"{times} queries a candidate and measure, in {_count(settings.get('blocks') or 1, 'block')} taken in turns"
        )
    return [*lines, _machine(machine, record["candidates"])]


def _machine(machine: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> str:
    threads = sorted({str(candidate.get("threads") or "default") for candidate in candidates})
    graphics = (machine.get("gpu") or {}).get("name")
    cores = machine.get("cores_usable")
    where = f"{machine.get('cpu') or 'an unknown processor'}, {_count(cores, 'core') if cores else 'cores unknown'}"
    return f"{where}{f', {graphics}' if graphics else ''}; threads: {', '.join(threads)}"


def _noun(record: Mapping[str, Any]) -> str:
    """What a sample is."""
    return "pair" if (record["settings"].get("samples") or {}).get("images") == 2 else "image"  # noqa: PLR2004


def _at_once(scenario: str, batch: int, noun: str) -> str:
    """How many samples a query asks for; those of the server and the offline scenario are gathered or cut up."""
    if scenario in {"server", "offline"}:
        return f"up to {_count(batch, noun)} answered at once"
    return f"{_count(batch, noun)} a query"


def _size(size: Any) -> str:
    """Pixels of the samples, and bytes: {"width", "height", "kilobytes"}, medians, or height and width."""
    if isinstance(size, Mapping):
        weight = f", {digits(size['kilobytes'])} kB" if size.get("kilobytes") else ""
        return f" of {size['width']:.0f} x {size['height']:.0f} pixels{weight} (medians)"
    return f" of {size[1]} x {size[0]} pixels" if isinstance(size, list | tuple) else ""


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
