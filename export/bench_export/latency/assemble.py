"""From blocks to the record's entries: percentiles, LoadGen's verdict, comparisons, and the recommendation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from bench_export.latency import statistics
from bench_export.latency.interleave import Block, Entrant
from bench_export.latency.loadgen import PERCENTILES
from bench_export.latency.statistics import Comparison
from bench_export.latency.subjects import MEASURES

if TYPE_CHECKING:
    from bench_export.latency.samples import Samples
    from bench_export.latency.search import Found
    from bench_export.latency.settings import Settings

__all__ = ["MIN_COUNTS", "MIN_DURATION_S", "candidate", "comparisons", "passes_bound", "settings", "throughput"]

_SHOWN = (50.0, 90.0, 95.0, 99.0, 99.9)

#: MLPerf's minima for a published result (mlperf.conf): seconds for all scenarios, queries or (offline) samples.
MIN_DURATION_S = 600.0
MIN_COUNTS = {"single": 64, "multi": 662, "server": 662, "offline": 24_576}

Blocks = Mapping[tuple[str, str], Sequence[Block]]


def settings(chosen: Settings, samples: Samples) -> dict[str, Any]:
    """What was asked for."""
    return {
        "min_duration_s": chosen.duration_s,
        "min_queries": MIN_COUNTS[chosen.scenario],
        "seed": chosen.seed,
        "blocks": chosen.num_blocks,
        "block_s": chosen.length_s,
        "quick": chosen.quick,
        "batch": chosen.at_once,
        "bound_ms": chosen.bound_ms if chosen.scenario == "server" else None,
        "samples": samples.described(),
        "measure": "end_to_end: encoded bytes in host memory to answers on the host, decoding and resizing by Pillow "
        "included; compute: prepared uint8 arrays to answers on the host, normalising and copies included",
    }


def candidate(
    entrant: Entrant,
    cold_start: dict[str, float],
    blocks: Blocks,
    chosen: Settings,
    rates: Mapping[tuple[str, str], Found],
) -> dict[str, Any]:
    """The entry of one candidate."""
    one = entrant.candidate
    return {
        "name": one.name,
        "file": str(one.file),
        "runtime": one.runtime,
        "precision": one.precision,
        "size_mb": one.file.stat().st_size / 1e6,
        **{key: entrant.facts[key] for key in ("providers_asked", "providers_used", "nodes", "threads", "tuning")},
        "batch": chosen.at_once,
        "cold_start": cold_start,
        "peak_memory_mb": entrant.peak_memory_mb,
        "energy_j": entrant.energy_j,
        "measures": {what: _measure(blocks[one.name, what], chosen, rates.get((one.name, what))) for what in MEASURES},
    }


def _measure(blocks: Sequence[Block], chosen: Settings, found: Found | None) -> dict[str, Any]:
    ordered = np.sort(np.concatenate([block.latencies_ns for block in blocks]))
    offline = chosen.scenario == "offline"
    rates = [block.samples_per_second for block in blocks]
    grid = [] if offline else [float(value) for value in np.quantile(ordered, np.linspace(0, 1, 101)) / 1e6]
    return {
        "queries": len(ordered),
        "samples": sum(block.num_samples for block in blocks),
        "samples_per_query": blocks[0].num_samples // len(blocks[0].latencies_ns),
        "mean_ms": float(ordered.mean()) / 1e6,
        "samples_per_second": float(np.mean(rates)),
        "target_qps": chosen.qps or (found.passed if found else None) if chosen.scenario == "server" else None,
        "percentiles": {f"{percent:g}": _percentile(ordered, percent, offline=offline) for percent in _SHOWN},
        "blocks": [
            {
                "queries": len(block.latencies_ns),
                "p50_ms": block.p50_ms,
                "samples_per_second": block.samples_per_second,
            }
            for block in blocks
        ],
        "grid_ms": grid,
        "loadgen": _verdict(blocks, ordered, chosen),
    }


def _percentile(ordered: Any, percent: float, *, offline: bool) -> dict[str, Any]:
    if offline:
        return {"refused": "offline asks one query a block; its figure is samples a second"}
    found = statistics.percentile(ordered, percent / 100)
    if found is None:
        count = statistics.needed(percent / 100)
        return {"refused": f"{len(ordered)} queries; its 95 % interval needs {count}", "needs": count}
    return {"value_ms": found.value / 1e6, "low_ms": found.low / 1e6, "high_ms": found.high / 1e6}


def _verdict(blocks: Sequence[Block], ordered: Any, chosen: Settings) -> dict[str, Any]:
    """LoadGen's own checks of every block, and its early stopping on all blocks' queries together."""
    met = all(
        block.results.get("result_min_duration_met", True) and block.results.get("result_min_queries_met", True)
        for block in blocks
    )
    if chosen.scenario == "offline":
        stopped, text = True, "not used in the offline scenario"
    elif chosen.scenario == "server":
        stopped = passes_bound(blocks, chosen.bound_ms)
        late = int((ordered > 1e6 * chosen.bound_ms).sum())
        text = f"p99 {'holds' if stopped else 'does not hold'} {chosen.bound_ms:g} ms: {late} of {len(ordered)} later"
    else:
        estimate, text = statistics.early_stopping(ordered, PERCENTILES[chosen.scenario])
        stopped = estimate is not None
    return {"valid": bool(met and stopped), "early_stopping": text, "summary": blocks[-1].summary}


def passes_bound(blocks: Sequence[Block], bound_ms: float) -> bool:
    """Whether LoadGen's early stopping grants that p99 of the blocks' queries is below the bound."""
    latencies = np.concatenate([block.latencies_ns for block in blocks])
    late = int((latencies > 1e6 * bound_ms).sum())
    return statistics.stops_under(late, len(latencies), PERCENTILES["server"])


def throughput(name: str, batch: int, rates: Sequence[float]) -> dict[str, Any]:
    """Samples a second at a batch size: the geometric mean over blocks with its 95 % interval."""
    from bench.statistics import mean_interval

    mean, low, high = np.exp(mean_interval([float(value) for value in np.log(rates)])).tolist()
    return {"candidate": name, "batch": batch, "samples_per_second": mean, "low": low, "high": high}


def comparisons(
    entrants: Sequence[Entrant], blocks: Blocks, rates: Mapping[tuple[str, str], Found], chosen: Settings
) -> list[dict[str, Any]]:
    """Every pair of candidates for both measures; p values adjusted by Holm within a measure."""
    entries: list[dict[str, Any]] = []
    for what in MEASURES:
        pairs = list(combinations([entrant.candidate.name for entrant in entrants], 2))
        found = [_compare(blocks, rates, what, pair, chosen) for pair in pairs]
        adjusted = statistics.holm([one.p for one in found])
        for (a, b), one, p in zip(pairs, found, adjusted, strict=True):
            verdict = replace(one, p=p).verdict(a, b)
            if verdict.startswith("no") and not one.verdict(a, b).startswith("no"):
                verdict += f" (after Holm's correction for {len(pairs)} pairs)"
            entries.append(
                {
                    "a": a,
                    "b": b,
                    "measure": what,
                    "metric": _metric(chosen, rates),
                    "ratio": one.ratio,
                    "low": one.low,
                    "high": one.high,
                    "p": p,
                    "verdict": verdict,
                }
            )
    return entries


def _metric(chosen: Settings, rates: Mapping[tuple[str, str], Found]) -> str:
    if rates:
        return "qps"
    return "samples_per_second" if chosen.scenario == "offline" else "p50"


def _compare(
    blocks: Blocks, rates: Mapping[tuple[str, str], Found], what: str, pair: tuple[str, str], chosen: Settings
) -> Comparison:
    a, b = pair
    if rates:  # the search encloses each border, and so their ratio
        ours, theirs = rates[a, what], rates[b, what]
        low, high = theirs.passed / ours.above, theirs.above / ours.passed
        return Comparison(theirs.passed / ours.passed, low, high, 0.0 if low > 1 or high < 1 else 1.0)
    times = [
        [1 / block.samples_per_second if chosen.scenario == "offline" else block.p50_ms for block in blocks[name, what]]
        for name in (a, b)
    ]
    compared = statistics.compare(times[0], times[1])
    assert compared is not None  # noqa: S101  # settings ask for at least four blocks
    return compared
