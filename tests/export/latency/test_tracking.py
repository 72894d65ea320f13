"""Latencies on the run's entry in MLflow, which is a real one in a temporary folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import record, tracking
from bench.errors import BenchError
from bench.record import Run
from bench_export.latency.tracking import log, metrics


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def run(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("BENCH_TRACKING", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.chdir(tmp_path)
    recipe = '[dataset]\nname = "digits"\n\n[data]\nsize = 8\n\n[model]\nname = "linear"\n'
    plan = {"seeds": [0], "dataset_root": "", "reasons": {}, "epochs": 1, "classes": ["0", "1"]}
    made = record.create("pets", group="20261101-120000-ab12", seed=0, recipe_text=recipe, plan=plan)
    made.finish("failed")
    return made


def test_names_are_stable_and_refused_percentiles_missing(latency_record: dict[str, Any]) -> None:
    found = metrics(latency_record)
    int8 = latency_record["candidates"][2]["measures"]
    assert found["latency/ort-int8/compute_p99.9_ms"] == int8["compute"]["percentiles"]["99.9"]["value_ms"]
    assert found["latency/ort-int8/end_to_end_samples_per_second"] == int8["end_to_end"]["samples_per_second"]
    assert found["latency_p50_ms"] == int8["end_to_end"]["percentiles"]["50"]["value_ms"]
    assert found["latency/ort/first_run_ms"] == 3.2
    assert "latency/torch/compute_p95_ms" in found
    assert "latency/torch/compute_p99_ms" not in found
    assert not any(name.endswith("energy_j") for name in found)


def test_names_hold_only_what_mlflow_allows(latency_record: dict[str, Any]) -> None:
    latency_record["candidates"][0]["name"] = "a:b/c*d"
    assert "latency/a_b_c_d/compute_p50_ms" in metrics(latency_record)


def test_the_record_lands_in_the_run_s_folder_and_in_mlflow(latency_record: dict[str, Any], run: Run) -> None:
    run_id = log(latency_record, run)
    assert run_id is not None
    assert json.loads((run.folder / "export/latency.json").read_text(encoding="utf-8")) == latency_record
    client = tracking.connect(tracking.tracking_uri())
    entry = client.get_run(run_id)
    assert {name: entry.data.metrics[name] for name in metrics(latency_record)} == metrics(latency_record)
    names = {item.path for item in client.list_artifacts(run_id, "latency")}
    assert names == {"latency/latency.json", "latency/latency.html"}


def test_a_second_record_replaces_the_first(latency_record: dict[str, Any], run: Run) -> None:
    log(latency_record, run)
    latency_record["candidates"][2]["measures"]["end_to_end"]["percentiles"]["50"]["value_ms"] = 0.25
    run_id = log(latency_record, run)
    assert run_id is not None
    entry = tracking.connect(tracking.tracking_uri()).get_run(run_id)
    assert entry.data.metrics["latency_p50_ms"] == 0.25


def test_switched_off_only_the_folder_is_written(
    latency_record: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BENCH_TRACKING", "off")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert log(latency_record, run) is None
    assert (run.folder / "export/latency.html").is_file()
    assert not (tmp_path / "mlflow.db").exists()


def test_a_run_that_was_deleted_in_mlflow_is_an_error_and_the_files_stay(
    latency_record: dict[str, Any], run: Run
) -> None:
    run_id = log(latency_record, run)
    assert run_id is not None
    tracking.connect(tracking.tracking_uri()).delete_run(run_id)
    (run.folder / "export/latency.json").unlink()
    with pytest.raises(BenchError, match="MLflow did not take the latencies"):
        log(latency_record, run)
    assert (run.folder / "export/latency.json").is_file()
