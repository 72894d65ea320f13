"""Toy models in real processes under the real LoadGen: what the record says, and who is found faster."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from bench.errors import BenchError
from bench_export.latency import conditions
from bench_export.latency.candidates import Candidate, find_candidates
from bench_export.latency.measure import measure
from bench_export.latency.process import Process
from bench_export.latency.samples import Samples, collect, write
from bench_export.latency.settings import Settings

SHORT = Settings(duration_s=0.2, block_s=0.05, cold_starts=1)


def _candidate(path: Path, name: str) -> Candidate:
    return replace(find_candidates([str(path)], [], threads=1)[0][0], name=name)


def _samples(candidate: Candidate) -> Samples:
    assert candidate.card is not None
    pairs = candidate.card.task == "verification"
    how = candidate.card.preprocessing.decoding()
    return collect(how, pairs=pairs, run=None, card=candidate.card, data=None, seed=0, count=8)


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of looking at an idle machine is long beside models this small."""
    monkeypatch.setattr(conditions, "_LOOK_S", 0.02)


@pytest.fixture(scope="module")
def record(toy_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small model, its twin, and one with far more pixels."""
    folder = tmp_path_factory.mktemp("models")
    small = toy_models.classifier(folder / "small.onnx")
    large = toy_models.classifier(folder / "large.onnx", size=(192, 192))
    candidates = [_candidate(small, "small"), _candidate(small, "twin"), _candidate(large, "large")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditions, "_LOOK_S", 0.02)
        return measure(candidates, _samples(candidates[0]), replace(SHORT, duration_s=0.4, block_s=0.1, batches=(1, 4)))


def _between(record: dict[str, Any], a: str, b: str, what: str) -> dict[str, Any]:
    return next(one for one in record["comparisons"] if (one["a"], one["b"], one["measure"]) == (a, b, what))


def test_the_record_is_plain_json_with_all_its_parts(record: dict[str, Any]) -> None:
    assert json.loads(json.dumps(record)) == record
    assert record["schema"] == 1
    assert record["settings"]["blocks"] == 4
    assert record["settings"]["samples"]["source"] == "made-up photographs"
    assert [one["name"] for one in record["candidates"]] == ["small", "twin", "large"]
    one = record["candidates"][0]
    assert one["providers_used"] == ["CPUExecutionProvider"]
    assert one["nodes"]["CPUExecutionProvider"] > 3
    assert (one["threads"], one["batch"]) == (1, 1)
    assert 20 < one["peak_memory_mb"] < 150
    assert one["size_mb"] > 0
    assert min(one["cold_start"].values()) > 0
    assert {"machine", "before", "during", "after"} <= set(record["conditions"])


def test_both_measures_have_percentiles_blocks_and_loadgens_verdict(record: dict[str, Any]) -> None:
    for one in record["candidates"]:
        for values in one["measures"].values():
            assert values["queries"] == sum(block["queries"] for block in values["blocks"])
            assert len(values["blocks"]) == 4
            assert len(values["grid_ms"]) == 101
            assert values["grid_ms"] == sorted(values["grid_ms"])
            median = values["percentiles"]["50"]
            assert median["low_ms"] <= median["value_ms"] <= median["high_ms"]
            assert "SingleStream" in values["loadgen"]["summary"]
    small = record["candidates"][0]["measures"]
    assert small["compute"]["loadgen"]["valid"]
    assert small["end_to_end"]["percentiles"]["50"]["value_ms"] > small["compute"]["percentiles"]["50"]["value_ms"]


def test_a_percentile_that_the_sample_cannot_support_is_refused_with_the_count_it_needs(record: dict[str, Any]) -> None:
    refused = record["candidates"][2]["measures"]["end_to_end"]["percentiles"]["99.9"]
    assert refused["needs"] == 2995
    assert "needs 2995" in refused["refused"]


def test_a_runtime_that_is_not_installed_is_said_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not installed here')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BenchError, match="torch: its runtime cannot be imported: not installed here"):
        Process("torch", "torch")


def test_a_slower_model_is_found_slower(record: dict[str, Any]) -> None:
    found = _between(record, "small", "large", "compute")
    assert found["high"] < 0.5
    assert found["verdict"].startswith("small ")
    assert "times as fast" in found["verdict"]


def test_a_twin_is_not_found_another(record: dict[str, Any]) -> None:
    found = _between(record, "small", "twin", "compute")
    assert found["low"] < 1.1
    assert found["high"] > 0.9
    if found["low"] <= 1 <= found["high"]:
        assert found["verdict"] == "no difference detectable"


def test_throughput_grows_with_the_batch(record: dict[str, Any]) -> None:
    assert [(one["candidate"], one["batch"]) for one in record["by_batch"]][:3] == [
        ("small", 1),
        ("twin", 1),
        ("large", 1),
    ]
    assert all(one["low"] <= one["samples_per_second"] <= one["high"] for one in record["by_batch"])


def test_short_measurements_on_made_up_samples_are_not_publishable(record: dict[str, Any]) -> None:
    assert not record["publishable"]
    text = "\n".join(record["why_not"])
    assert "MLPerf asks for 600 s" in text
    assert "no real ones" in text


def test_the_fastest_is_recommended(record: dict[str, Any]) -> None:
    assert record["recommendation"]["candidate"] in {"small", "twin"}


@pytest.mark.parametrize("scenario", ["multi", "offline", "server"])
def test_the_other_scenarios(scenario: Any, toy_models: ModuleType, tmp_path: Path) -> None:
    candidate = _candidate(toy_models.classifier(tmp_path / "model.onnx"), "ort")
    settings = replace(SHORT, scenario=scenario, batch=4, bound_ms=20.0, qps=200.0)
    record = measure([candidate], _samples(candidate), settings)
    compute = record["candidates"][0]["measures"]["compute"]
    assert compute["samples_per_second"] > 0
    assert record["candidates"][0]["batch"] == {"multi": 8, "offline": 4, "server": 4}[scenario]
    assert compute["target_qps"] == (200.0 if scenario == "server" else None)
    if scenario == "offline":
        assert "refused" in compute["percentiles"]["50"]
    else:
        assert compute["percentiles"]["50"]["value_ms"] > 0
        assert compute["samples_per_query"] == (8 if scenario == "multi" else 1)


def test_models_of_pairs_get_pairs(toy_models: ModuleType, tmp_path: Path) -> None:
    candidate = _candidate(toy_models.verifier(tmp_path / "model.onnx"), "ort")
    record = measure([candidate], _samples(candidate), SHORT)
    assert record["candidates"][0]["measures"]["end_to_end"]["queries"] > 10


def test_raw_files_are_normalised_before_they_run(toy_models: ModuleType, tmp_path: Path) -> None:
    candidate = _candidate(toy_models.classifier(tmp_path / "model.onnx", raw=True), "ort")
    record = measure([candidate], _samples(candidate), SHORT)
    assert record["candidates"][0]["measures"]["compute"]["queries"] > 10


def _opened(candidate: Candidate, folder: Path) -> Process:
    write(_samples(candidate), folder)
    process = Process(candidate.name, candidate.runtime)
    try:
        process.ask("open", candidate=candidate.as_json(), samples=str(folder))
    except BenchError:
        process.kill()
        raise
    return process


def test_a_waiting_process_leaves_the_processor_alone(toy_models: ModuleType, tmp_path: Path) -> None:
    candidate = replace(_candidate(toy_models.classifier(tmp_path / "m.onnx", size=(256, 256)), "ort"), threads=2)
    with _opened(candidate, tmp_path) as process:
        process.ask("warm", seconds=0.2, many=1)
        time.sleep(0.05)
        before = process.ask("usage")["cpu_s"]
        time.sleep(0.5)
        assert process.ask("usage")["cpu_s"] - before < 0.02


def test_a_process_that_dies_is_an_error(toy_models: ModuleType, tmp_path: Path) -> None:
    candidate = _candidate(toy_models.classifier(tmp_path / "model.onnx"), "ort-int8")
    process = _opened(candidate, tmp_path)
    os.kill(process.identity, signal.SIGKILL)
    with pytest.raises(BenchError, match=r"ort-int8: its process died .killed by signal 9"):
        process.ask("usage")
    process.kill()


def test_its_last_words_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise RuntimeError('libcudart.so.12 is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BenchError, match=r"libcudart\.so\.12 is missing"):
        Process("ort", "ort")


def test_a_damaged_file_is_told_in_the_words_of_the_session(toy_models: ModuleType, tmp_path: Path) -> None:
    candidate = _candidate(toy_models.classifier(tmp_path / "model.onnx"), "ort")
    candidate.path.write_bytes(candidate.path.read_bytes()[:200])
    with pytest.raises(BenchError, match=r"model\.onnx") as caught:
        _opened(candidate, tmp_path)
    assert caught.value.hint


def test_whatever_happens_no_process_is_left(
    toy_models: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here an interrupt in the middle of the blocks."""
    from bench_export.latency import interleave

    good = _candidate(toy_models.classifier(tmp_path / "model.onnx"), "ort")

    def interrupted(_array: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(interleave.np, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure([good], _samples(good), SHORT)
    assert not [one for one in psutil.Process().children(recursive=True) if "worker" in " ".join(one.cmdline())]


def test_a_large_batch_is_measured_in_full_batches(toy_models: ModuleType, tmp_path: Path) -> None:
    candidate = _candidate(toy_models.classifier(tmp_path / "model.onnx", size=(96, 96)), "one")
    settings = replace(SHORT, scenario="offline", batch=512, block_s=0.01, duration_s=0.04)
    measured = measure([candidate], _samples(candidate), settings)["candidates"][0]["measures"]["compute"]
    assert measured["samples"] >= 4 * 4 * 512
