"""`bench latency` as a function: candidates and samples in, the record out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.errors import BenchError, RecipeError
from bench.progress import Progress
from bench_export.latency import assemble, conditions, loadgen, recommend
from bench_export.latency.candidates import Candidate
from bench_export.latency.interleave import Block, Entrant, ask_block, enter, run_blocks
from bench_export.latency.loadgen import Demand
from bench_export.latency.process import cold_start
from bench_export.latency.samples import Samples, write
from bench_export.latency.search import Found, largest_rate
from bench_export.latency.settings import LEAST_BLOCKS, Settings

__all__ = ["measure"]

SCHEMA = 1

_FEWEST_BATCHES = 4  # offline: a block of one batch that is not full would be another batch size's
_MOST_ATTEMPTS = 4
_RETREAT = 0.9


def measure(
    candidates: Sequence[Candidate],
    samples: Samples,
    settings: Settings | None = None,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the candidates in turns, on the same samples, and return the record (docs: `bench latency --help`).

    Raises BenchError where LoadGen is missing, a candidate cannot be opened, or its process dies.
    """
    settings, progress = settings or Settings(), progress or Progress()
    loadgen.check_available()
    if not candidates:
        raise RecipeError("nothing to measure", hint="name an ONNX file or a run")
    with tempfile.TemporaryDirectory(prefix="bench-latency-") as name:
        folder = Path(name)
        write(samples, folder)
        before = {"machine": conditions.machine(), "before": conditions.now()}
        cold = {one.name: cold_start(one, folder, settings.cold_starts, progress) for one in candidates}
        with (
            enter(
                candidates,
                samples=folder,
                at_once=settings.at_once,
                warm_s=min(0.5, settings.block_s),
                progress=progress,
            ) as entrants,
            conditions.Watch() as watch,
        ):
            rates = _find_rates(entrants, settings, folder, progress) if settings.scenario == "server" else {}
            blocks = _blocks(entrants, settings, rates, folder, progress)
            by_batch = _by_batch(entrants, settings, folder, progress)
        observed = {**before, "during": watch.summary(), "after": conditions.now()}
    return _record(settings, samples, entrants, cold, blocks, by_batch, rates, observed)


def _record(
    settings: Settings,
    samples: Samples,
    entrants: Sequence[Entrant],
    cold: dict[str, dict[str, float]],
    blocks: dict[tuple[str, str], list[Block]],
    by_batch: list[dict[str, Any]],
    rates: dict[tuple[str, str], Found],
    observed: dict[str, Any],
) -> dict[str, Any]:
    described = [
        assemble.candidate(entrant, cold[entrant.candidate.name], blocks, settings, rates) for entrant in entrants
    ]
    compared = assemble.comparisons(entrants, blocks, rates, settings)
    why_not = recommend.why_not_publishable(described, samples, settings, observed)
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "scenario": settings.scenario,
        "publishable": not why_not,
        "why_not": why_not,
        "settings": assemble.settings(settings, samples),
        "conditions": observed,
        "candidates": described,
        "by_batch": by_batch,
        "comparisons": compared,
        "recommendation": recommend.recommendation([entrant.candidate for entrant in entrants], described, compared),
    }


def _blocks(
    entrants: Sequence[Entrant],
    settings: Settings,
    rates: dict[tuple[str, str], Found],
    folder: Path,
    progress: Progress,
) -> dict[tuple[str, str], list[Block]]:
    """All blocks. Where a rate that the search found does not hold in them, once more with a lower one, a few times."""
    blocks: dict[tuple[str, str], list[Block]] = {}
    for attempts_left in reversed(range(_MOST_ATTEMPTS)):
        blocks = run_blocks(
            entrants,
            lambda entrant, what, number: _demand(entrant, what, settings, number, rates),
            num_blocks=settings.num_blocks,
            seed=settings.seed,
            folder=folder,
            progress=progress,
        )
        missed = [key for key in rates if not assemble.passes_bound(blocks[key], settings.bound_ms)]
        if not missed or not attempts_left:
            break
        progress.note(f"p99 does not hold at the rate of {_named(missed)}; trying a lower one")
        for key in missed:
            rates[key] = Found(_RETREAT * rates[key].passed, rates[key].passed)
    return blocks


def _named(keys: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({what.replace('_', '-')})" for name, what in keys)


def _demand(
    entrant: Entrant, what: str, settings: Settings, number: int, rates: dict[tuple[str, str], Found]
) -> Demand:
    """What LoadGen is to ask in a block. Every candidate gets the same seed in the same block."""
    # LoadGen makes as many queries as can be answered; offline it makes as many samples as will be.
    offline = settings.scenario == "offline"
    expected_ns = entrant.expected_ns[what] / settings.batch if offline else entrant.shortest_ns[what]
    qps = settings.qps
    if settings.scenario == "server" and (found := rates.get((entrant.candidate.name, what))):
        qps = found.passed
    return Demand(
        scenario=settings.scenario,
        duration_s=settings.length_s,
        expected_ns=expected_ns,
        seed=settings.seed + number,
        batch=settings.batch,
        qps=qps,
        bound_ms=settings.bound_ms,
        min_queries=_FEWEST_BATCHES * settings.batch if offline else 1,
    )


def _find_rates(
    entrants: Sequence[Entrant], settings: Settings, folder: Path, progress: Progress
) -> dict[tuple[str, str], Found]:
    """The largest passing rate of each candidate and measure; the one given by --qps needs no search."""
    if settings.qps:
        return {}
    found: dict[tuple[str, str], Found] = {}
    for entrant in entrants:
        for what, expected_ns in entrant.expected_ns.items():
            name = entrant.candidate.name
            progress.note(f"searching for the largest rate of {name}, {what.replace('_', '-')}")

            def passes(rate: float, entrant: Entrant = entrant, what: str = what) -> bool:
                demand = replace(_demand(entrant, what, settings, 0, {}), qps=rate)
                # Early stopping can only judge p99 from some hundred queries on, however slow they come.
                demand = replace(demand, duration_s=max(settings.length_s, assemble.MIN_COUNTS["server"] / rate))
                return assemble.passes_bound([ask_block(entrant, what, demand, folder)], settings.bound_ms)

            found[name, what] = largest_rate(passes, start=0.5e9 * settings.batch / expected_ns)
            if not found[name, what].passed:
                raise BenchError(
                    f"{name}: no rate of queries keeps p99 below {settings.bound_ms:g} ms",
                    hint="a larger --bound-ms, or a smaller model",
                )
    return found


def _by_batch(
    entrants: Sequence[Entrant], settings: Settings, folder: Path, progress: Progress
) -> list[dict[str, Any]]:
    """Samples a second of each candidate at each batch size, prepared arrays to answers, in turns as well."""
    rates: dict[tuple[str, int], list[float]] = {}
    # The first run of a shape allocates, and torch.compile compiles: none of that is a block's.
    expected_ns = {
        (entrant.candidate.name, batch): entrant.process.ask("warm", seconds=0.0, many=batch)["median"]["compute"]
        / batch
        for batch in settings.batches
        for entrant in entrants
    }
    total = LEAST_BLOCKS * len(settings.batches) * len(entrants)
    for number in range(LEAST_BLOCKS):
        for batch in settings.batches:
            for entrant in entrants[:: -1 if number % 2 else 1]:
                key = (entrant.candidate.name, batch)
                demand = Demand(
                    "offline",
                    settings.block_s,
                    expected_ns[key],
                    settings.seed + number,
                    batch,
                    min_queries=_FEWEST_BATCHES * batch,
                )
                block = ask_block(entrant, "compute", demand, folder)
                rates.setdefault(key, []).append(block.samples_per_second)
                progress.advance("throughput by batch", sum(map(len, rates.values())), total)
    return [assemble.throughput(name, batch, values) for (name, batch), values in rates.items()]
