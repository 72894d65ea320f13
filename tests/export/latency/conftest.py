"""A latency record as `bench latency` writes it, made from seeded numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

_RUNS_ON = ["CPUExecutionProvider"]
_LEVELS = ("50", "90", "95", "99", "99.9")


@pytest.fixture
def latency_record() -> dict[str, Any]:
    """Three candidates on a two-core machine; p99 and p99.9 of torch are refused, and the record is not publishable."""
    generator = np.random.default_rng(7)
    candidates = [
        _candidate(generator, "torch", "torch", "fp32", 5.0, nodes={}, file=None, few=True),
        _candidate(generator, "ort", "onnxruntime", "fp32", 0.634, nodes={"CPUExecutionProvider": 98}),
        _candidate(generator, "ort-int8", "onnxruntime", "int8", 0.506, nodes={"CPUExecutionProvider": 143}),
    ]
    return {
        "schema": 1,
        "created": "2026-11-26T03:15:00+00:00",
        "scenario": "single",
        "publishable": False,
        "why_not": ["--quick: at least 60 s and 1,024 queries are asked for", "other processes took 14 % of the CPU"],
        "settings": {
            "min_duration_s": 10.0,
            "min_queries": 256,
            "seed": 0,
            "blocks": 8,
            "batch": 1,
            "samples": {"source": "the validation split of smoking/20261126-023903-7c97-s0", "count": 64, "size": {"width": 250, "height": 250, "kilobytes": 14.2}},
            "measure": "end_to_end",
        },
        "conditions": _conditions(),
        "candidates": candidates,
        "by_batch": [
            {"candidate": name, "batch": batch, "samples_per_second": speed, "low": speed * 0.97, "high": speed * 1.02}
            for name, speeds in (("torch", (200, 640, 865)), ("ort", (1577, 3010, 3354)), ("ort-int8", (1976, 4870, 5763)))
            for batch, speed in zip((1, 8, 32), speeds, strict=True)
        ],
        "comparisons": [
            _comparison("torch", "ort", "end_to_end", 5.31, 5.12, 5.49, "ort 431 % faster [412, 449]"),
            _comparison("ort", "ort-int8", "end_to_end", 1.071, 1.059, 1.084, "ort-int8 7.1 % faster [5.9, 8.4]"),
            _comparison("torch", "ort", "compute", 7.9, 7.6, 8.2, "ort 690 % faster [660, 720]"),
            _comparison("ort", "ort-int8", "compute", 1.002, 0.991, 1.013, "no difference detectable"),
        ],
        "recommendation": {"candidate": "ort-int8", "reason": "fastest at p90 end to end, and its gate held"},
    }  # fmt: skip


def _candidate(
    generator: np.random.Generator,
    name: str,
    runtime: str,
    precision: str,
    middle_ms: float,
    *,
    nodes: dict[str, int],
    file: str | None = "model.onnx",
    few: bool = False,
) -> dict[str, Any]:
    queries = 96 if few else 12_000
    return {
        "name": name,
        "file": file and (file if precision == "fp32" else f"model.{precision}.onnx"),
        "runtime": runtime,
        "precision": precision,
        "size_mb": 2.6 if precision == "int8" else 8.9,
        "providers_asked": _RUNS_ON if nodes else ["cpu"],
        "providers_used": _RUNS_ON if nodes else ["cpu"],
        "nodes": nodes,
        "threads": 2,
        "tuning": None,
        "batch": 1,
        "cold_start": {"process_ms": 212.0, "session_ms": 41.3, "first_run_ms": 3.2},
        "peak_memory_mb": 512.0 if few else 96.4,
        "energy_j": None,
        "measures": {
            "end_to_end": _measure(generator, middle_ms + 0.4, queries, few=few),
            "compute": _measure(generator, middle_ms, queries, few=few),
        },
    }


def _measure(generator: np.random.Generator, middle_ms: float, queries: int, *, few: bool) -> dict[str, Any]:
    times = middle_ms * (0.94 + 0.06 * generator.gamma(1.0, 1.0, 20_000)) + generator.exponential(0.01, 20_000)
    percentiles: dict[str, dict[str, Any]] = {}
    for level in _LEVELS:
        value = float(np.percentile(times, float(level)))
        spread = 0.004 + 0.02 * (float(level) > 90)
        percentiles[level] = {"value_ms": value, "low_ms": value * (1 - spread), "high_ms": value * (1 + spread)}
    if few:
        percentiles |= {
            level: {"refused": f"{queries} queries; its 95 % interval needs {least}"}
            for level, least in (("99", 299), ("99.9", 2995))
        }
    mean = float(times.mean())
    drift = middle_ms * (1 + 0.02 * generator.standard_normal(8))
    return {
        "queries": queries,
        "samples_per_query": 1,
        "mean_ms": mean,
        "samples_per_second": 1000 / mean,
        "percentiles": percentiles,
        "blocks": [{"queries": queries // 8, "p50_ms": float(at), "samples_per_second": 1000 / float(at)} for at in drift],
        "grid_ms": [float(value) for value in np.percentile(times, np.arange(101))],
        "loadgen": {"valid": not few, "early_stopping": "90.00: 0.71 ms", "summary": "Result is : VALID\n90.0 0.71"},
    }  # fmt: skip


def _comparison(a: str, b: str, measure: str, ratio: float, low: float, high: float, verdict: str) -> dict[str, Any]:
    interval = {"ratio": ratio, "low": low, "high": high}
    return {"a": a, "b": b, "measure": measure, "metric": "p50", **interval, "verdict": verdict}


def _conditions() -> dict[str, Any]:
    load = {"busy_percent": 3.0, "own_percent": 1.0, "others_percent": 2.0, "steal_percent": 0.0}
    now = {
        **load,
        "load_average": [0.4, 0.6, 0.9],
        "busiest": [{"name": "python", "percent_of_a_core": 4.1}],
        "clock_mhz": 2600.0,
        "temperature_c": None,
    }
    during = {
        **load,
        "own_percent": 79.0,
        "others_percent": 14.2,
        "clock_mhz": {"min": 2590.0, "tenth": 2592.0, "median": 2600.0, "max": 2610.0},
    }
    return {
        "machine": {
            "cpu": "Intel(R) Xeon(R) Platinum 8481C Processor",
            "instruction_sets": ["avx2", "avx512f", "avx512_vnni"],
            "cores_physical": 2,
            "cores_logical": 4,
            "cores_usable": 2,
            "cpu_quota": None,
            "memory_gb": 23.5,
            "os": "Debian GNU/Linux 12 (bookworm)",
            "gpu": None,
            "versions": {"python": "3.11.7", "onnxruntime-gpu": "1.31.1"},
        },
        "before": {**now, "memory_free_gb": 20.1, "gpu": None},
        "during": {**during, "seconds": 60.2, "disturbances": ["other processes took 14 % of the CPU"]},
        "after": {**now, "memory_free_gb": 20.0, "gpu": None},
    }  # fmt: skip
