"""MLPerf's LoadGen: one block of a scenario on a system, and the latency of each of its queries.

The latencies are LoadGen's own, from the query's scheduled time to its completion, read from its trace.
https://github.com/mlcommons/inference/tree/master/loadgen
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from bench.errors import BenchError
from bench_export.latency.answering import answering

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PERCENTILES", "SAMPLES_PER_QUERY", "Answered", "Demand", "Scenario", "System", "check_available", "run"]

Scenario: TypeAlias = Literal["single", "multi", "server", "offline"]

#: The percentile that each scenario is judged by, as published; offline is judged by samples a second.
PERCENTILES: dict[Scenario, float] = {"single": 0.90, "multi": 0.99, "server": 0.99}

#: As published for MultiStream.
SAMPLES_PER_QUERY = 8

_NAMES = {"single": "SingleStream", "multi": "MultiStream", "server": "Server", "offline": "Offline"}
_SAMPLE = re.compile(rb'"query_seq":(\d+),"sample_idx":\d+,"issue_start_ns":\d+,"complete_ns":(\d+)')

#: LoadGen makes its queries before it starts: so many more than expected, so that they outlast the duration.
_SPARE = 2.0


@dataclass(frozen=True, slots=True)
class System:
    """What answers: `one` a sample by its position in the library, `many` several at once."""

    one: Callable[[int], object]
    many: Callable[[Sequence[int]], object]
    num_samples: int


@dataclass(frozen=True, slots=True)
class Demand:
    """What LoadGen asks for in a block. `expected_ns` is about what one query takes (offline: one sample).

    `qps` and `bound_ms` are of the server scenario; `batch` is the most samples that are answered at once (server,
    offline).
    """

    scenario: Scenario
    duration_s: float
    expected_ns: float
    seed: int = 0
    batch: int = 1
    qps: float = 0.0
    bound_ms: float = 0.0
    min_queries: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """A block as LoadGen saw it: a latency a query in ns, samples a second, LoadGen's verdict and summary."""

    latencies_ns: NDArray[np.int64]
    num_samples: int
    samples_per_second: float
    results: dict[str, Any]
    summary: str


def check_available() -> None:
    """Raise BenchError where LoadGen cannot be imported."""
    try:
        import mlperf_loadgen  # noqa: F401
    except ImportError as cause:
        raise BenchError(
            f"bench latency is not available on this platform: MLPerf's LoadGen cannot be imported ({cause})",
            hint="pip install mlcommons-loadgen; all other commands work without it",
        ) from cause


def run(system: System, demand: Demand) -> Answered:
    """Let LoadGen ask for one block. Raises BenchError where its logs are incomplete."""
    import mlperf_loadgen as loadgen

    with tempfile.TemporaryDirectory(prefix="loadgen-") as folder:
        issue, finish = _issuer(system, demand, loadgen)
        system_handle = loadgen.ConstructSUT(issue, _nothing)
        library = loadgen.ConstructQSL(system.num_samples, system.num_samples, _ignore, _ignore)
        try:
            loadgen.StartTestWithLogSettings(
                system_handle, library, _settings(loadgen, demand), _logs(loadgen, folder), f"{folder}/no-audit.config"
            )
        finally:
            try:
                finish()
            finally:
                loadgen.DestroyQSL(library)
                loadgen.DestroySUT(system_handle)
        return _read(Path(folder), demand)


def _issuer(system: System, demand: Demand, loadgen: Any) -> tuple[Callable[[Any], None], Callable[[], None]]:
    """LoadGen's callback and what ends it. As little Python as possible: all of it is in the latency."""
    if demand.scenario == "server":
        return answering(system, demand.batch, loadgen)
    response, complete, one, many = loadgen.QuerySampleResponse, loadgen.QuerySamplesComplete, system.one, system.many

    answer = response(0, 0, 0)  # the same object each time: to make one costs as much as to answer with it
    answers = [answer]

    def single(queries: Any) -> None:
        query = queries[0]
        answer.id = query.id
        one(query.index)
        complete(answers)

    def batches(queries: Any) -> None:
        size = len(queries) if demand.scenario == "multi" else demand.batch
        for start in range(0, len(queries), size):
            part = queries[start : start + size]
            many([query.index for query in part])
            complete([response(query.id, 0, 0) for query in part])

    return (single if demand.scenario == "single" else batches), _nothing


def _settings(loadgen: Any, demand: Demand) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, _NAMES[demand.scenario])
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = max(1, round(1000 * demand.duration_s))
    settings.min_query_count = demand.min_queries
    settings.qsl_rng_seed = settings.sample_index_rng_seed = settings.schedule_rng_seed = demand.seed
    expected_ns = max(1, int(demand.expected_ns / _SPARE))
    settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = expected_ns
    settings.single_stream_target_latency_percentile = PERCENTILES["single"]
    settings.multi_stream_target_latency_percentile = PERCENTILES["multi"]
    settings.multi_stream_samples_per_query = SAMPLES_PER_QUERY
    settings.offline_expected_qps = 1e9 / max(1.0, demand.expected_ns)
    if demand.scenario == "server":
        settings.server_target_qps = demand.qps
        settings.server_target_latency_ns = int(1e6 * demand.bound_ms)
        settings.server_target_latency_percentile = PERCENTILES["server"]
    return settings


def _logs(loadgen: Any, folder: str) -> Any:
    output = loadgen.LogOutputSettings()
    output.outdir = folder
    output.copy_summary_to_stdout = output.copy_detail_to_stdout = False
    logs = loadgen.LogSettings()
    logs.log_output = output
    logs.enable_trace = True
    return logs


def _read(folder: Path, demand: Demand) -> Answered:
    found = _SAMPLE.findall((folder / "mlperf_log_trace.json").read_bytes())
    results = _results(folder / "mlperf_log_detail.txt")
    if not found or "result_validity" not in results:
        raise BenchError("LoadGen left no latencies in its logs", hint="is the disk of the temporary folder full?")
    table = np.array(found, dtype=np.int64)
    if demand.scenario == "offline":
        latencies = table[:, 1]
        rate = 1e9 * len(table) / float(latencies.max())
        return Answered(latencies.max(keepdims=True), len(table), rate, results, _summary(folder))
    # A query is done when the last of its samples is.
    order = np.lexsort((table[:, 1], table[:, 0]))
    last = np.append(np.diff(table[order, 0]) != 0, True)
    latencies = table[order[last], 1]
    rate = 1e9 * len(table) / float(latencies.sum())
    if demand.scenario == "server":
        rate = float(results.get("result_completed_samples_per_sec") or demand.qps)
    return Answered(latencies, len(table), rate, results, _summary(folder))


def _results(path: Path) -> dict[str, Any]:
    """Every `result_...` of the detailed log."""
    values = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if '"key": "result_' in line or '"key": "early_stopping' in line:
            entry = json.loads(line.removeprefix(":::MLLOG "))
            values[entry["key"]] = entry["value"]
    return values


def _summary(folder: Path) -> str:
    return (folder / "mlperf_log_summary.txt").read_text(encoding="utf-8", errors="replace")


def _nothing() -> None:
    """LoadGen has nothing to flush here."""


def _ignore(_positions: object) -> None:
    """The library stays in memory throughout."""
