"""A study in MLflow, really: one parent, its trials below it, its figures and its winner."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as Entry
from mlflow.entities import ViewType

from bench import record, tracking
from bench.progress import Progress
from bench.search.summary import summarise
from bench.search.tracking import publish
from bench.tracking.parent import PARENT_TAG, find_or_create_parent

Builder = Callable[..., Any]

TWO = ("val_accuracy", "size_mb")


class Told(Progress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def client(uri: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The store of this module; studies are told apart in it by their ids."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return tracking.connect(uri)


def _all(client: MlflowClient) -> list[Entry]:
    known = client.get_experiment_by_name("toy")
    return list(client.search_runs([known.experiment_id], run_view_type=ViewType.ALL)) if known else []


def _parents(client: MlflowClient, made: Any) -> list[Entry]:
    return [entry for entry in _all(client) if entry.data.tags.get("visionbench.id") == made.identity]


def _children(client: MlflowClient, parent: str | None) -> list[Entry]:
    return [entry for entry in _all(client) if entry.data.tags.get(PARENT_TAG) == parent]


def test_trials_stand_below_one_parent_which_carries_the_study(new_study: Builder, client: MlflowClient) -> None:
    made = new_study(TWO)
    made.add(0.9, 2.0, epochs=2)
    made.add(state="PRUNED", epochs=1)
    for run in record.list_runs():
        tracking.sync(run)
    told = Told()
    parent = publish(made.study, told)
    assert told.warnings == []
    assert [entry.info.run_id for entry in _parents(client, made)] == [parent]
    children = _children(client, parent)
    assert {entry.data.tags["visionbench.trial"]: entry.info.status for entry in children} == {
        "0": "FINISHED",
        "1": "KILLED",
    }
    assert {entry.data.tags["visionbench.status"] for entry in children} == {"finished", "pruned"}
    entry = client.get_run(parent)
    assert entry.info.run_name == "toy"
    assert entry.info.status == "FINISHED"
    assert entry.data.params["metrics"] == "val_accuracy (maximize), size_mb (minimize)"
    assert json.loads(entry.data.params["space.optimizer.lr"]) == {"float": [1e-4, 1e-1], "log": True}
    assert entry.data.tags["visionbench.knee"] == "0"
    assert entry.data.tags["visionbench.best.optimizer.lr"] == "0.001"
    assert entry.data.tags["visionbench.trials.pruned"] == "1"
    assert "| trial | validation accuracy | size, MB | parameters |" in entry.data.tags["mlflow.note.content"]


def test_the_parent_has_the_page_and_the_figures(new_study: Builder, client: MlflowClient, tmp_path: Path) -> None:
    made = new_study(TWO)
    made.fill(15)
    parent = publish(made.study, Progress())
    names = {entry.path for entry in client.list_artifacts(parent)} | {
        entry.path for entry in client.list_artifacts(parent, "figures")
    }
    assert {
        "search.html",
        "search.json",
        "figures/history.svg",
        "figures/front_size_mb.svg",
        "figures/parallel.svg",
    } <= names
    path = client.download_artifacts(parent, "search.json", str(tmp_path))
    assert len(json.loads(Path(path).read_text(encoding="utf-8"))["trials"]) == 15


def test_publishing_again_repeats_nothing_and_follows_the_study(new_study: Builder, client: MlflowClient) -> None:
    made = new_study()
    made.add(0.8, params={"optimizer.name": "adamw", "data.size": 8})
    made.add(state="RUNNING")
    parent = publish(made.study, Progress())
    assert client.get_run(parent).info.status == "RUNNING"
    assert publish(made.study, Progress()) == parent
    assert [(m.step, m.value) for m in client.get_metric_history(parent, "best_val_accuracy")] == [(0, 0.8)]
    made.add(0.95, params={"optimizer.name": "sgd"})
    assert publish(made.study, Progress()) == parent
    assert [(m.step, m.value) for m in client.get_metric_history(parent, "best_val_accuracy")] == [(0, 0.8), (2, 0.95)]
    tags = client.get_run(parent).data.tags
    assert (tags["visionbench.best"], tags["visionbench.best.optimizer.name"]) == ("2", "sgd")
    assert "visionbench.best.data.size" not in tags


def test_publishing_brings_trials_that_nobody_mirrored(new_study: Builder, client: MlflowClient) -> None:
    """Whoever was to mirror them was killed: before their first line, and in the middle."""
    made = new_study()
    made.add(0.9, epochs=1)
    made.add(0.8, epochs=1)
    first, second = record.list_runs()
    child = tracking.sync(first)
    client.update_run(child, "RUNNING")
    known = json.loads((first.folder / "mlflow.json").read_text(encoding="utf-8"))
    (first.folder / "mlflow.json").write_text(json.dumps({**known, "status": "RUNNING"}), encoding="utf-8")
    parent = publish(made.study, Progress())
    entries = _children(client, parent)
    assert {entry.info.run_name: entry.info.status for entry in entries} == {
        first.name: "FINISHED",
        second.name: "FINISHED",
    }
    assert child in [entry.info.run_id for entry in entries]


def test_syncing_again_leaves_one_parent_and_one_child(new_study: Builder, client: MlflowClient) -> None:
    made = new_study()
    made.add(0.9, epochs=1)
    (run,) = record.list_runs()
    for _ in range(2):
        tracking.sync(run)
        (run.folder / "mlflow.json").unlink()
    (parent,) = _parents(client, made)
    assert [entry.info.run_name for entry in _children(client, parent.info.run_id)] == [run.name]


def test_runs_without_a_parent_stay_at_the_top(new_study: Builder, client: MlflowClient) -> None:
    made = new_study()
    made.add(0.9, epochs=1)
    (run,) = record.list_runs()
    info = {key: value for key, value in run.info().items() if key != "parent"}
    (run.folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    entry = client.get_run(tracking.sync(run))
    assert PARENT_TAG not in entry.data.tags
    assert _parents(client, made) == []


def test_two_parents_that_machines_made_at_once_become_the_older_one(new_study: Builder, client: MlflowClient) -> None:
    made = new_study()
    made.add(0.9, epochs=1)
    (run,) = record.list_runs()
    child = tracking.sync(run)
    first = client.get_run(child).data.tags[PARENT_TAG]
    experiment = client.get_run(child).info.experiment_id
    tags = {"visionbench.id": made.identity}
    older = client.create_run(experiment, run_name="toy", start_time=1_000, tags=tags).info.run_id
    assert find_or_create_parent(client, experiment, made.identity, name="toy") == older
    assert client.get_run(child).data.tags[PARENT_TAG] == older
    assert client.get_run(first).info.lifecycle_stage == "deleted"
    assert find_or_create_parent(client, experiment, made.identity, name="toy") == older


def test_a_parent_that_a_person_deleted_stays_deleted(new_study: Builder, client: MlflowClient) -> None:
    made = new_study()
    made.add(0.9)
    parent = publish(made.study, Progress())
    client.delete_run(parent)
    assert publish(made.study, Progress()) == parent
    assert client.get_run(parent).info.lifecycle_stage == "deleted"
    assert len(_parents(client, made)) == 1


def test_a_store_that_cannot_be_reached_is_a_warning(
    new_study: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = new_study()
    made.add(0.9)
    (tmp_path / "file").write_text("no database")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'file'}")
    told = Told()
    assert publish(made.study, told) is None
    assert "MLflow is not up to date" in told.warnings[0]


def test_nothing_is_published_where_tracking_is_off(new_study: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_TRACKING", "off")
    made = new_study()
    made.add(0.9)
    assert publish(made.study, Progress()) is None


def _make_parent(uri: str, identity: str, ready: Any, found: Any) -> None:
    client = tracking.connect(uri)
    experiment = client.get_experiment_by_name("toy")
    assert experiment is not None
    ready.wait()
    found.put(find_or_create_parent(client, experiment.experiment_id, identity, name="toy"))


@pytest.mark.slow
def test_processes_that_start_at_once_make_one_parent(new_study: Builder, client: MlflowClient, uri: str) -> None:
    made = new_study()
    made.add(0.9)
    if client.get_experiment_by_name("toy") is None:
        client.create_experiment("toy")
    context = multiprocessing.get_context("spawn")
    ready, found = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_make_parent, args=(uri, made.identity, ready, found)) for _ in range(4)]
    for process in processes:
        process.start()
    names = {found.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    assert len(names) == 1
    assert [entry.info.run_id for entry in _parents(client, made)] == list(names)
    assert summarise(made.study)["best"] == 0
