"""The real LoadGen, on systems whose latency is known."""

from __future__ import annotations

import builtins
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bench.errors import BenchError
from bench_export.latency.loadgen import Demand, System, check_available, run

MS = 1e6


def _sleepy(milliseconds: float, asked: list[int] | None = None) -> System:
    """Takes so long for a call, however many samples it is given."""
    seen = [] if asked is None else asked

    def many(indices: Sequence[int]) -> None:
        seen.extend(indices)
        time.sleep(milliseconds / 1e3)

    return System(lambda index: many([index]), many, 16)


def test_single_stream_gives_the_latency_of_every_query() -> None:
    asked: list[int] = []
    block = run(_sleepy(2, asked), Demand("single", 0.2, expected_ns=2 * MS))
    assert len(block.latencies_ns) == len(asked) == block.num_samples >= 40
    assert set(asked) <= set(range(16))
    assert len(set(asked)) > 4
    assert block.latencies_ns.min() >= 2 * MS
    assert block.results["result_query_count"] == len(asked)
    assert "Scenario : SingleStream" in block.summary


def test_the_trace_holds_the_latencies_of_loadgens_own_summary() -> None:
    block = run(_sleepy(1), Demand("single", 0.2, expected_ns=1 * MS))
    ordered = np.sort(block.latencies_ns)
    for percent in (50, 90, 99):
        reported = block.results[f"result_{percent}.00_percentile_latency_ns"]
        assert ordered[int(len(ordered) * percent / 100)] == reported
    assert ordered[0] == block.results["result_min_latency_ns"]
    assert ordered[-1] == block.results["result_max_latency_ns"]


def test_multi_stream_asks_for_eight_at_once_and_times_the_query() -> None:
    block = run(_sleepy(2), Demand("multi", 0.1, expected_ns=2 * MS))
    assert block.num_samples == 8 * len(block.latencies_ns)
    assert block.latencies_ns.min() >= 2 * MS
    assert block.results["result_50.00_percentile_per_query_latency_ns"] in block.latencies_ns


def test_offline_gives_samples_a_second_of_batches() -> None:
    sizes: list[int] = []

    def many(indices: Sequence[int]) -> None:
        sizes.append(len(indices))
        time.sleep(0.004)

    block = run(System(lambda _: None, many, 16), Demand("offline", 0.2, expected_ns=0.5 * MS, batch=8))
    assert set(sizes[:-1]) == {8}
    assert sum(sizes) == block.num_samples
    assert 500 < block.samples_per_second <= 2000
    assert len(block.latencies_ns) == 1


def test_the_server_scenario_counts_the_time_in_the_queue() -> None:
    """At 400 queries a second, a system that takes 2 ms is busy most of the time: many wait for others."""
    block = run(_sleepy(2), Demand("server", 0.5, expected_ns=2 * MS, qps=400, bound_ms=1000))
    assert np.mean(block.latencies_ns > 2.5 * MS) > 0.2
    assert block.latencies_ns.min() >= 2 * MS


def test_the_server_answers_what_waits_in_batches() -> None:
    sizes: list[int] = []

    def many(indices: Sequence[int]) -> None:
        sizes.append(len(indices))
        time.sleep(0.005)

    system = System(lambda index: many([index]), many, 16)
    block = run(system, Demand("server", 0.3, expected_ns=5 * MS, qps=600, bound_ms=1000, batch=4))
    assert sum(sizes) == block.num_samples
    assert 1 < max(sizes) <= 4


def test_the_same_seed_asks_for_the_same_samples() -> None:
    orders: list[list[int]] = []
    for seed in (1, 1, 2):
        asked: list[int] = []
        run(_sleepy(1, asked), Demand("single", 0.05, expected_ns=1 * MS, seed=seed))
        orders.append(asked[:20])
    assert orders[0] == orders[1] != orders[2]


def test_without_loadgen_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "mlperf_loadgen":
            raise ImportError("no wheel for this platform")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(BenchError, match="not available on this platform") as caught:
        check_available()
    assert "all other commands work" in str(caught.value.hint)


def test_a_system_that_fails_ends_the_server_scenario_with_its_error() -> None:
    def fail(_indices: object) -> None:
        raise BenchError("it has failed")

    with pytest.raises(BenchError, match="it has failed"):
        run(System(fail, fail, 4), Demand("server", 0.1, expected_ns=1 * MS, qps=100, bound_ms=15))
