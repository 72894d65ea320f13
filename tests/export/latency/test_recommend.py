"""What is recommended, and what may be published, from figures made up for the purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench_export.card import Card, Preprocessing
from bench_export.latency.candidates import Candidate
from bench_export.latency.recommend import recommendation, why_not_publishable
from bench_export.latency.samples import Samples
from bench_export.latency.settings import Settings

HOW = Preprocessing((8, 8), 3, "squash", "bilinear", (0.5,) * 3, (0.5,) * 3)
REAL = Samples(((b"",),), "photographs")
LONG = Settings(duration_s=600.0)


def _candidate(name: str, precision: Any, *, passed: bool = True) -> Candidate:
    card = Card("classification", ("a", "b"), HOW, precision, gate={"passed": passed})
    return Candidate(name, name, Path(f"{name}.onnx"), card)


def _described(name: str, p50: float, *, queries: int = 1000, valid: bool = True) -> dict[str, Any]:
    loadgen = {"valid": valid, "early_stopping": "only 3 queries"}
    measure = {
        "queries": queries,
        "samples": queries,
        "target_qps": None,
        "percentiles": {"50": {"value_ms": p50}},
        "loadgen": loadgen,
    }
    return {"name": name, "measures": {"end_to_end": measure, "compute": measure}}


def _compared(a: str, b: str, verdict: str) -> list[dict[str, Any]]:
    return [{"a": a, "b": b, "measure": what, "verdict": verdict} for what in ("end_to_end", "compute")]


FP32, INT8 = _candidate("ort", "fp32"), _candidate("ort-int8", "int8")


def test_int8_is_recommended_where_it_is_faster() -> None:
    described = [_described("ort", 2.0), _described("ort-int8", 1.0)]
    found = recommendation(
        [FP32, INT8], described, _compared("ort", "ort-int8", "ort-int8 2.00 times as fast [1.9, 2.1]")
    )
    assert found["candidate"] == "ort-int8"


@pytest.mark.parametrize("verdict", ["no difference detectable", "ort 3.0 % faster [1.0, 5.0]"])
def test_fp32_is_recommended_where_int8_gains_nothing(verdict: str) -> None:
    described = [_described("ort", 1.01), _described("ort-int8", 1.0)]
    found = recommendation([FP32, INT8], described, _compared("ort", "ort-int8", verdict))
    assert found["candidate"] == "ort"
    assert verdict in found["reason"]


def test_fp32_is_recommended_where_int8_is_slower() -> None:
    described = [_described("ort", 1.0), _described("ort-int8", 1.3)]
    found = recommendation([FP32, INT8], described, _compared("ort", "ort-int8", "ort 30.0 % faster [28.0, 32.0]"))
    assert found["candidate"] == "ort"
    assert "less precision does not pay here: ort-int8 is not faster" in found["reason"]


def test_what_missed_its_gate_is_never_recommended() -> None:
    described = [_described("ort", 2.0), _described("ort-int8", 1.0)]
    rejected = _candidate("ort-int8", "int8", passed=False)
    compared = _compared("ort", "ort-int8", "ort-int8 2.00 times as fast [1.9, 2.1]")
    assert recommendation([FP32, rejected], described, compared)["candidate"] == "ort"
    assert recommendation([rejected], described[1:], [])["candidate"] is None


def test_long_measurements_of_real_samples_are_publishable() -> None:
    described = [_described("ort", 1.0)]
    assert why_not_publishable(described, REAL, LONG, {"during": {}}) == []


@pytest.mark.parametrize(
    ("described", "samples", "settings", "during", "reason"),
    [
        (_described("ort", 1.0), REAL, LONG.quickened(), {}, "--quick"),
        (_described("ort", 1.0), REAL, Settings(duration_s=10), {}, "MLPerf asks for 600 s"),
        (_described("ort", 1.0), Samples(((b"",),), "made-up", real=False), LONG, {}, "no real ones"),
        (_described("ort", 1.0, queries=63), REAL, LONG, {}, "63 queries; MLPerf asks for 64"),
        (_described("ort", 1.0, valid=False), REAL, LONG, {}, "LoadGen calls it invalid (only 3 queries)"),
        (_described("ort", 1.0), REAL, LONG, {"disturbances": ["others took 20 %"]}, "others took 20 %"),
    ],
)
def test_each_shortcoming_is_a_reason_against_publishing(
    described: dict[str, Any], samples: Samples, settings: Settings, during: dict[str, Any], reason: str
) -> None:
    assert any(reason in one for one in why_not_publishable([described], samples, settings, {"during": during}))


def _at_rates(ours: float, theirs: float, *, valid: bool = True) -> list[dict[str, Any]]:
    found = [_described("a", 2.0), _described("b", 1.0, valid=valid)]
    for one, rate in zip(found, (ours, theirs), strict=True):
        one["measures"]["end_to_end"]["target_qps"] = rate
    return found


@pytest.mark.parametrize(
    ("metric", "rates", "valid", "chosen"),
    [
        ("p50", (100.0, 100.0), True, "b"),  # --qps gives all of them one rate: it says nothing
        ("qps", (200.0, 100.0), True, "a"),
        ("qps", (100.0, 200.0), True, "b"),
        ("qps", (100.0, 200.0), False, "a"),  # what does not hold is no rate
    ],
)
def test_a_rate_counts_where_it_was_found_and_holds(
    metric: str, rates: tuple[float, float], valid: bool, chosen: str
) -> None:
    candidates = [_candidate("a", "fp32"), _candidate("b", "fp32")]
    compared = [{**one, "metric": metric} for one in _compared("a", "b", "b 2.00 times as fast [1.9, 2.1]")]
    found = recommendation(candidates, _at_rates(*rates, valid=valid), compared)
    assert found["candidate"] == chosen


def test_speed_alone_does_not_choose_between_runs() -> None:
    cards = [Card("classification", ("a", "b"), HOW, run=run) for run in ("one", "two")]
    candidates = [Candidate(name, "ort", Path(f"{name}.onnx"), card) for name, card in zip("ab", cards, strict=True)]
    compared = _compared("a", "b", "b 2.00 times as fast [1.9, 2.1]")
    found = recommendation(candidates, [_described("a", 2.0), _described("b", 1.0)], compared)
    assert "nothing of which is the more accurate" in found["reason"]
