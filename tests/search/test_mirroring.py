"""MLflow's own process beside a search."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from bench import record
from bench.progress import Progress
from bench.record import Run
from bench.search.mirroring import MirrorProcess

pytestmark = pytest.mark.slow  # each starts a process that loads MLflow


class _Heard(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BENCH_TRACKING", "")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def _finished(number: int, **info: Any) -> Run:
    recipe = '[dataset]\nname = "digits"\n[model]\nname = "cnn"\n'
    run = record.create("mirrored", group="g", seed=0, trial=number, recipe_text=recipe, plan={}, **info)
    run.finish("pruned", metrics={"val_accuracy": 0.5})
    return run


def test_every_run_is_there_when_it_is_closed(store: str) -> None:
    heard = _Heard()
    runs = [_finished(number) for number in range(3)]
    with MirrorProcess(heard) as mirror:
        for run in runs:
            mirror.watch(run)
            mirror.watch(run)
    from bench.tracking import connect

    client = connect(store)
    (experiment,) = client.search_experiments(filter_string="name = 'mirrored'")
    found = client.search_runs([experiment.experiment_id])
    assert sorted(one.info.run_name for one in found) == [run.name for run in runs]
    assert {one.data.metrics["val_accuracy"] for one in found} == {0.5}
    assert heard.warnings == []


def test_a_store_that_cannot_be_reached_is_said_once_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_TRACKING", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/no/mlflow.db")
    heard = _Heard()
    with MirrorProcess(heard) as mirror:
        for number in range(2):
            mirror.watch(_finished(number))
    assert len(heard.warnings) == 1
    assert "bench sync" in heard.warnings[0]


def test_a_mirror_that_is_killed_is_said_once_and_ends_nothing(store: str) -> None:
    assert store
    heard = _Heard()
    with MirrorProcess(heard) as mirror:
        mirror.watch(_finished(0))
        assert mirror._process is not None
        os.kill(mirror._process.pid, signal.SIGKILL)
        mirror._process.wait()
        mirror.watch(_finished(1))
        mirror.watch(_finished(2))
    assert len(heard.warnings) == 1


def test_nothing_is_started_where_tracking_is_off() -> None:
    with MirrorProcess(Progress()) as mirror:
        mirror.watch(_finished(0))
        assert mirror._process is None
