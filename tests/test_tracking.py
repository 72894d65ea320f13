"""MLflow, really: a SQLite store in a temporary folder."""

from __future__ import annotations

import json
import math
import multiprocessing
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bench import record, tracking
from bench.cli import cli
from bench.errors import BenchError
from bench.kinds import PAIR_CLASSES, DataSpec
from bench.progress import Progress
from bench.recipe import Chosen, parse
from bench.record import Run
from bench.stages import checkpoint
from bench.stages.model import build
from bench.tracking import facts, store
from bench.tracking.logged_model import _load_pyfunc, package
from bench.tracking.view import page_of

_CLASSES = ("cat", "dog", "owl")
_RECIPE = """
[dataset]
name = "digits"

[data]
size = 8

[model]
name = "linear"

[[augment]]
name = "affine"
degrees = 10.0

[train]
epochs = 2
"""
_PLAN: dict[str, Any] = {
    "experiment": "pets",
    "seeds": [0],
    "dataset_root": "/data/pets",
    "weights": "",
    "image_size": [8, 8],
    "device": "cpu",
    "precision": "bf16",
    "memory_format": "channels_last",
    "threads": 2,
    "epochs": 2,
    "batch_size": 64,
    "normalize": "data",
    "channels": 1,
    "classes": list(_CLASSES),
    "mean": [0.5],
    "std": [0.25],
    "steps_per_epoch": 7,
    "cache_features": False,
    "reasons": {},
}
_FINAL = {"test_accuracy": 0.9, "test_accuracy_low": 0.8, "test_accuracy_high": 0.95, "train_seconds": 1.5}


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
def new_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return _new_run


def _new_run(*, group: str = "20261101-120000-ab12", **plan: Any) -> Run:
    return record.create(
        "pets",
        group=group,
        seed=0,
        recipe_text=_RECIPE,
        plan={**_PLAN, **plan},
        recipe_digest="d" * 64,
        dataset={"name": "digits", "root": "/data/pets", "fingerprint": "f" * 64, "counts": {"train": {"cat": 30, "dog": 70}, "test": {"cat": 3, "dog": 7}}},
        git={"commit": "c0ffee", "dirty": True},
        environment={"versions": {"torch": version("torch")}, "machine": {"cpu": "Xeon", "gpu": ""}, "argv": ["bench", "run"]},
    )  # fmt: skip


def _log(run: Run, *epochs: int) -> None:
    for number in epochs:
        run.log_epoch(
            number, {"train_loss": 1 / number, "val_accuracy": math.nan, "system/cpu_utilization_percentage": 50.0}
        )
        time.sleep(0.002)


def _finish(run: Run) -> torch.nn.Module:
    model = build(Chosen("linear", {}), DataSpec("classification", _CLASSES, 1, (8, 8)))
    checkpoint.save(run.folder / "model.safetensors", model.state_dict())
    for name in ("evaluation.json", "predictions/test.npz", "figures/curves.png", "checkpoints/last.safetensors"):
        (run.folder / name).parent.mkdir(exist_ok=True)
        (run.folder / name).write_text("{}")
    run.finish("finished", metrics=_FINAL)
    return model.eval()


def _artifacts(client: Any, run_id: str, folder: str | None = None) -> set[str]:
    found = set()
    for entry in client.list_artifacts(run_id, folder):
        found |= _artifacts(client, run_id, entry.path) if entry.is_dir else {entry.path}
    return found


@pytest.mark.parametrize("content", ["{", '{"status": "failed", "experiment": "pets", "group": "g", "seed": 0}'])
def test_one_damaged_run_keeps_no_other_from_being_synced(
    new_run: Callable[..., Run], uri: str, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    damaged, whole = new_run(group="20261101-120000-0000"), new_run(group="20261101-120001-0000")
    (damaged.folder / "run.json").write_text(content, encoding="utf-8")
    _finish(whole)
    result = CliRunner().invoke(cli, ["sync"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{whole.name} is in {uri}\n"
    assert result.stderr.endswith(
        f"warning: left out, damaged run.json: pets/{damaged.name}\n"
    )  # after MLflow's own lines
    with pytest.raises(BenchError, match=r"0000-s0: (no readable|damaged) run\.json"):
        tracking.sync(damaged, uri=uri)


def test_a_finished_run_is_there_in_whole(new_run: Callable[..., Run], uri: str) -> None:
    run = new_run()
    _log(run, 1, 2)
    _finish(run)
    run_id = tracking.sync(run, uri=uri)
    client = tracking.connect(uri)
    entry = client.get_run(run_id)
    info = run.info()
    assert (entry.info.run_name, entry.info.status) == (run.name, "FINISHED")
    assert entry.info.start_time == store.milliseconds(info["created"])
    assert entry.info.end_time == store.milliseconds(info["ended"])
    assert client.get_experiment(entry.info.experiment_id).name == "pets"
    parameters = entry.data.params
    assert (parameters["train.epochs"], parameters["model.name"], parameters["optimizer.name"]) == (
        "2",
        "linear",
        "adamw",
    )
    assert (parameters["compute.precision"], parameters["compute.threads"], parameters["data.size"]) == (
        "bf16",
        "2",
        "8",
    )
    assert (parameters["augment"], parameters["augment.0.name"], parameters["augment.0.degrees"]) == (
        *("affine", "affine"),
        "10.0",
    )
    assert parameters["train.label_smoothing"] == "0.0", "a default"
    assert {name: entry.data.metrics[name] for name in _FINAL} == _FINAL
    assert [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run_id, "train_loss")] == [
        (line["epoch"], line["values"]["train_loss"], line["time"]) for line in run.epochs()
    ]
    assert "system/cpu_utilization_percentage" in entry.data.metrics
    tags = entry.data.tags
    assert tags["visionbench.id"] == info["id"]
    assert tags["visionbench.group"] == info["group"]
    assert tags["visionbench.git_dirty"] == "True"
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    assert tags["version.torch"] == version("torch")
    assert "| test | 10 | **90.00%** | 80.00% to 95.00% |" in tags["mlflow.note.content"]
    inputs = {one.tags[0].value: one.dataset for one in entry.inputs.dataset_inputs}
    assert {(split, one.name, one.digest) for split, one in inputs.items()} == {
        ("train", "digits", "ffffffffffff-train"),
        ("test", "digits", "ffffffffffff-test"),
    }
    assert json.loads(inputs["test"].profile) == {"samples": 10, "classes": {"cat": 3, "dog": 7}}
    assert _artifacts(client, run_id) == {
        "recipe.toml",
        "plan.json",
        "run.json",
        "metrics.jsonl",
        "evaluation.json",
        "manifest.json",
        "predictions/test.npz",
        "figures/curves.png",
    }


def test_a_second_sync_adds_nothing(new_run: Callable[..., Run], uri: str) -> None:
    run = new_run()
    _log(run, 1, 2)
    _finish(run)
    run_id = tracking.sync(run, uri=uri)
    before = _everything(uri, run_id)
    assert tracking.sync(run, uri=uri) == run_id
    (run.folder / "mlflow.json").unlink()  # a kill before it was written
    assert tracking.sync(run, uri=uri) == run_id
    assert _everything(uri, run_id) == before


def test_a_kill_after_the_creation_makes_no_second_run(new_run: Callable[..., Run], uri: str) -> None:
    run = new_run()
    run_id = tracking.sync(run, uri=uri)
    (run.folder / "mlflow.json").write_text('{"uri": "sqli')  # torn
    assert tracking.sync(run, uri=uri) == run_id


def test_a_run_is_followed_epoch_by_epoch(new_run: Callable[..., Run], uri: str) -> None:
    run = new_run(precision="auto")
    client = tracking.connect(uri)
    run_id = tracking.sync(run, uri=uri)
    assert client.get_run(run_id).info.status == "RUNNING"
    assert "compute.precision" not in client.get_run(run_id).data.params, "not decided yet, and it could not be changed"
    _log(run, 1, 2, 3)
    tracking.sync(run, uri=uri)
    _log(run, 2)  # resumed from the checkpoint of epoch 1
    tracking.sync(run, uri=uri)
    _log(run, 3, 4)
    run.finish("interrupted")
    tracking.sync(run, uri=uri)
    assert [m.step for m in client.get_metric_history(run_id, "train_loss")] == [1, 2, 3, 2, 3, 4]
    entry = client.get_run(run_id)
    assert (entry.info.status, entry.data.params["compute.precision"]) == ("KILLED", "auto")
    run.update(status="running")
    tracking.sync(run, uri=uri)
    assert client.get_run(run_id).info.status == "RUNNING"


def test_the_model_predicts_as_the_run_did(new_run: Callable[..., Run], uri: str) -> None:
    import mlflow

    run = new_run()
    model = _finish(run)
    run_id = tracking.sync(run, uri=uri)
    client = tracking.connect(uri)
    (output,) = client.get_run(run_id).outputs.model_outputs
    entry = client.get_logged_model(output.model_id)
    assert entry.status == "READY"
    assert {metric.key: metric.value for metric in entry.metrics} == _FINAL
    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)
        expected = model(pixels).softmax(1).numpy()
    np.testing.assert_allclose(loaded.predict(images), expected, rtol=1e-5)
    files = [path.name for path in Path(mlflow.artifacts.download_artifacts(f"models:/{output.model_id}")).rglob("*")]
    assert "model.safetensors" in files
    assert not [name for name in files if name.endswith((".pkl", ".pth", ".pt"))]


def test_a_new_store_is_filled_from_the_folder(new_run: Callable[..., Run], uri: str, tmp_path: Path) -> None:
    run = new_run()
    _log(run, 1)
    first = tracking.sync(run, uri=uri)
    other = f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"
    second = tracking.sync(run, uri=other)
    assert second != first
    assert len(tracking.connect(other).get_metric_history(second, "train_loss")) == 1


def test_a_run_deleted_in_mlflow_stays_deleted(new_run: Callable[..., Run], uri: str) -> None:
    run = new_run()
    run_id = tracking.sync(run, uri=uri)
    tracking.connect(uri).delete_run(run_id)
    _log(run, 1)
    assert tracking.sync(run, uri=uri) == run_id
    (run.folder / "mlflow.json").unlink()
    assert tracking.sync(run, uri=uri) == run_id


def test_mlflow_says_nothing(new_run: Callable[..., Run], uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    run = new_run()
    _finish(run)
    tracking.sync(run, uri=uri)
    assert capfd.readouterr() == ("", "")


def test_the_mirror_follows_two_runs(new_run: Callable[..., Run], uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    told = Told()
    first, second = new_run(), new_run(group="20261101-130000-cd34")
    with tracking.Mirror(told) as mirror:
        for run in (first, second):
            mirror.watch(run)
            _log(run, 1)
            mirror.touch()
            _finish(run)
            mirror.touch()
    client = tracking.connect(uri)
    for run in (first, second):
        run_id = json.loads((run.folder / "mlflow.json").read_text())["run_id"]
        assert client.get_run(run_id).info.status == "FINISHED"
        assert client.get_run(run_id).outputs.model_outputs
    assert told.warnings == []


def test_no_password_gets_into_a_folder() -> None:
    assert store.without_password("postgresql://me:secret@host/db") == "postgresql://host/db"
    assert store.without_password("sqlite:////home/me/mlflow.db") == "sqlite:////home/me/mlflow.db"


def test_a_server_that_is_down_costs_one_warning(
    new_run: Callable[..., Run], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        told, run = Told(), new_run()
        start = time.perf_counter()
        with tracking.Mirror(told) as mirror:
            mirror.watch(run)
            _log(run, 1, 2)
            _finish(run)
            mirror.touch()
        assert time.perf_counter() - start < 10
        (warning,) = told.warnings
        assert "bench sync" in warning
        assert "secret" not in warning
        with pytest.raises(BenchError, match="127"):
            tracking.sync(run)
    run_id = tracking.sync(run, uri=uri)
    entry = tracking.connect(uri).get_run(run_id)
    assert (entry.info.status, entry.data.metrics["test_accuracy"]) == ("FINISHED", 0.9)
    assert entry.data.metrics["train_loss"] == 0.5


def test_closing_does_not_wait_for_a_server_that_hangs(
    new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:  # accepts and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        told = Told()
        mirror = tracking.Mirror(told)
        mirror.watch(new_run())
        thread = mirror._thread
        start = time.perf_counter()
        mirror.close(run_done_timeout_s=0.5)
        assert time.perf_counter() - start < 2
        assert len(told.warnings) == 1
        assert thread is not None
        thread.join(30)
        assert not thread.is_alive()
        assert len(told.warnings) == 1


@pytest.mark.parametrize("name", ["BENCH_TRACKING", "MLFLOW_TRACKING_URI"])
def test_tracking_can_be_switched_off(
    name: str, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, "off")
    run = new_run()
    with tracking.Mirror(Told()) as mirror:
        mirror.watch(run)
        mirror.touch()
    assert not (run.folder / "mlflow.json").exists()
    assert not (tmp_path / "mlflow.db").exists()
    with pytest.raises(BenchError, match="switched off"):
        tracking.sync(run)


def test_the_default_store_lies_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("BENCH_TRACKING", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tracking.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert tracking.tracking_uri() == f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking.tracking_uri() == "http://host:5000"


@pytest.mark.slow
def test_four_processes_share_a_new_store(new_run: Callable[..., Run], tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    runs = [new_run(group=f"20261101-12000{number}-ab12") for number in range(4)]
    runs[1] = runs[0]  # two of them bring the same run
    for run in runs[1:]:
        _log(run, 1)
        _finish(run)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        ids = pool.starmap(_sync, [(run.folder, uri) for run in runs])
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    client = tracking.connect(uri)
    experiment = client.get_experiment_by_name("pets")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert {entry.info.run_id for entry in found} == set(ids)
    assert all(entry.info.status == "FINISHED" for entry in found)


def _sync(folder: Path, uri: str) -> str:
    return tracking.sync(Run(folder), uri=uri)


def _everything(uri: str, run_id: str) -> tuple[object, ...]:
    client = tracking.connect(uri)
    entry = client.get_run(run_id)
    histories = {name: len(client.get_metric_history(run_id, name)) for name in entry.data.metrics}
    models = client.search_logged_models([entry.info.experiment_id], f"source_run_id = '{run_id}'")
    return (
        histories,
        entry.data.params,
        _artifacts(client, run_id),
        len(entry.inputs.dataset_inputs),
        len(entry.outputs.model_outputs),
        len(models),
    )


# pairs

_PAIRS_RECIPE = """
[dataset]
name = "lfw_pairs"

[model]
name = "siamese"
embedding = [8]

[[model.blocks]]
channels = 4
kernel = 3
pool = 2

[train]
loss = "bce"
threshold = 0.4
"""
_PAIRS_FINAL = {
    "test_accuracy": 0.9,
    "test_accuracy_low": 0.8,
    "test_accuracy_high": 0.95,
    "threshold": 0.4,
    "test_auroc": 0.95,
    "test_eer": 0.125,
    "test_tar_at_far_0.01": 0.5,
}


def _run_of_pairs() -> tuple[Run, torch.nn.Module]:
    """A finished run of the third fold, with its model."""
    parsed = parse(_PAIRS_RECIPE, path=Path("pairs.toml"))
    plan = {**_PLAN, "task": "verification", "classes": list(PAIR_CLASSES), "num_folds": 10}
    counts = {"test": {"different": 300, "same": 301}}
    dataset = {"name": "lfw_pairs", "root": "/data/lfw", "fingerprint": "e" * 64, "counts": counts}
    names: dict[str, Any] = {"group": "20261101-120000-ab12", "seed": 0, "fold": 2}
    run = record.create("faces", recipe_text=_PAIRS_RECIPE, plan=plan, dataset=dataset, **names)
    model = build(parsed.model, DataSpec("verification", PAIR_CLASSES, 1, (8, 8)))
    checkpoint.save(run.folder / "model.safetensors", model.state_dict(), {"threshold": 0.4})
    run.finish("finished", metrics=_PAIRS_FINAL)
    return run, model.eval()


def test_the_model_of_pairs_takes_two_arrays(new_run: Callable[..., Run], uri: str) -> None:
    import mlflow

    new_run()  # its folder is the current one
    run, model = _run_of_pairs()
    client = tracking.connect(uri)
    (output,) = client.get_run(tracking.sync(run, uri=uri)).outputs.model_outputs
    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    assert [entry.name for entry in loaded.metadata.signature.inputs] == ["first", "second"]
    first, second = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 8, 1), dtype=np.uint8)
    with torch.no_grad():
        sides = [torch.from_numpy(s).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25) for s in (first, second)]
        expected = model(*sides).sigmoid().numpy()
    found = loaded.predict({"first": first, "second": second})
    assert found.shape == (5, 2)
    np.testing.assert_allclose(found[:, 1:], expected, rtol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    with pytest.raises(mlflow.exceptions.MlflowException):
        loaded.predict({"first": first})


def test_a_packaged_model_lies_in_a_plain_folder(new_run: Callable[..., Run], tmp_path: Path) -> None:
    import mlflow

    new_run()
    run, _ = _run_of_pairs()
    (tmp_path / "place").mkdir()
    package(run, tmp_path / "place" / "model", model_id="m-1", run_id="r-1")
    black = np.zeros((2, 8, 8, 1), np.uint8)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "place" / "model"))
    assert loaded.predict({"first": black, "second": black}).shape == (2, 2)


def test_the_first_images_are_the_first_half(new_run: Callable[..., Run], tmp_path: Path) -> None:
    new_run()
    run, _ = _run_of_pairs()
    (tmp_path / "place").mkdir()
    package(run, tmp_path / "place" / "model", model_id="m-1", run_id="r-1")
    predictor = _load_pyfunc(str(tmp_path / "place" / "data"))
    # Siamese models do not tell the sides apart; this one does.
    predictor._model = replace(predictor._model, model=lambda first, _second: first[:, :, 0, 0])
    dark, bright = np.zeros((3, 8, 8, 1), np.uint8), np.full((3, 8, 8, 1), 255, np.uint8)
    assert (predictor.predict({"second": dark, "first": bright})[:, 1] > 0.5).all()
    assert (predictor.predict({"second": bright, "first": dark})[:, 1] < 0.5).all()


def test_parameters_of_pairs_are_those_of_the_recipe_with_nested_tables_by_position(
    new_run: Callable[..., Run],
) -> None:
    new_run()
    run, _ = _run_of_pairs()
    given = facts.parameters(run)
    assert (given["fold"], given["seed"], given["train.threshold"], given["augment"]) == ("2", "0", "0.4", "none")
    names = ("model.blocks.0.channels", "model.blocks.0.kernel", "model.blocks.0.pool", "model.embedding")
    assert [given[name] for name in names] == ["4", "3", "2", "[8]"]
    assert not [name for name in given if name.startswith(("search.", "export."))], "the result does not hang on them"
    assert not [value for value in given.values() if "BaseModel" in value or "Block(" in value]
    assert "init.conv_weight" not in given  # nothing was given
    assert "fold" not in facts.parameters(new_run(group="20261101-130000-cd34"))


def test_the_description_of_pairs_has_their_metrics(new_run: Callable[..., Run]) -> None:
    new_run()
    run, _ = _run_of_pairs()
    note = facts.describe(run)["mlflow.note.content"]
    head, line, row = [text for text in note.splitlines() if text.startswith("|")]
    assert head == "| split | pairs | accuracy | 95 % interval | AUROC | EER | TAR at FAR 1e-2 |"
    assert row == "| test | 601 | **90.00%** | 80.00% to 95.00% | 0.9500 | 0.1250 | 0.5000 |"
    assert head.count("|") == line.count("|") == row.count("|")


# what MLflow's pages make of a run

_SEARCH_RECIPE = (
    _RECIPE
    + """
[search]
metrics = ["val_accuracy", "size_mb"]

[search.space]
"augment.0.degrees" = {float = [0.0, 20.0]}
"optimizer.lr" = {float = [1e-4, 1e-1], log = true}
"""
)


def _view(uri: str, name: str, view: str) -> dict[str, Any]:
    experiment = tracking.connect(uri).get_experiment_by_name(name)
    assert experiment is not None
    envelope = json.loads(experiment.tags[f"mlflow.sharedViewState.{view}"])
    return {**json.loads(envelope["state"]), "experiment": experiment}


def test_the_experiment_opens_with_columns_and_charts_that_compare_its_runs(
    new_run: Callable[..., Run], uri: str
) -> None:
    run = new_run()
    _log(run, 1)
    _finish(run)
    run_id = tracking.sync(run, uri=uri)
    view = _view(uri, "pets", "visionbench")
    assert view["experiment"].tags["mlflow.experimentKind"] == "custom_model_development"
    parallel, *charts = view["compareRunCharts"]
    assert (parallel["type"], parallel["selectedMetrics"]) == ("PARALLEL", ["test_accuracy"])
    assert {"test_accuracy", "train_loss", "val_accuracy"} <= {chart["metricKey"] for chart in charts}
    assert {chart["lineSmoothness"] for chart in charts if chart["type"] == "LINE"} == {0}, "MLflow smooths by default"
    assert {chart["metricSectionId"] for chart in charts} == {part["uuid"] for part in view["compareRunSections"]}
    known = tracking.connect(uri).get_run(run_id).data
    assert set(parallel["selectedParams"]) <= set(known.params), "an axis without values hides every run"
    assert "metrics.`test_accuracy`" in view["selectedColumns"]
    assert "params.`model.name`" in view["selectedColumns"]
    assert len({chart["uuid"] for chart in view["compareRunCharts"]}) == len(view["compareRunCharts"])
    assert page_of(run, uri).endswith("&viewStateShareKey=visionbench")
    assert page_of(run, "sqlite:////elsewhere.db") == ""


def test_a_view_that_a_person_has_changed_stays(new_run: Callable[..., Run], uri: str) -> None:
    tracking.sync(new_run(), uri=uri)
    client = tracking.connect(uri)
    experiment = client.get_experiment_by_name("pets")
    key = "mlflow.sharedViewState.visionbench"
    ours = experiment.tags[key]
    for number, (value, kept) in enumerate(
        (
            (json.dumps({**json.loads(ours), "state": "{}", "updatedAt": 1_899_000_000_000}), True),
            (json.dumps({**json.loads(ours), "state": "{}"}), False),  # of another version of ours
            ("torn", True),
        )
    ):
        client.set_experiment_tag(experiment.experiment_id, key, value)
        tracking.sync(new_run(group=f"20261104-{number:06}-ab12"), uri=uri)
        now = client.get_experiment(experiment.experiment_id).tags[key]
        assert now == (value if kept else ours)
    client.set_experiment_tag(experiment.experiment_id, key, ours)


def test_trials_are_compared_by_what_the_search_varies(new_run: Callable[..., Run], uri: str) -> None:
    new_run()
    trial = record.create("found", group="g", seed=0, trial=3, recipe_text=_SEARCH_RECIPE, plan=_PLAN)
    run_id = tracking.sync(trial, uri=uri)
    parallel, *_ = _view(uri, "found", "visionbench-search")["compareRunCharts"]
    assert parallel["selectedParams"] == ["augment.0.degrees", "optimizer.lr"]
    assert parallel["selectedMetrics"] == ["val_accuracy", "size_mb"]
    assert set(parallel["selectedParams"]) <= set(tracking.connect(uri).get_run(run_id).data.params)


def test_final_metrics_are_bars_and_curves_end_with_theirs(new_run: Callable[..., Run], uri: str) -> None:
    run = new_run()
    for number in (1, 2):
        run.log_epoch(number, {"train_loss": 1 / number, "val_accuracy": 0.5 * number, "lr": math.inf})
        time.sleep(0.002)
    run.finish("finished", metrics={**_FINAL, "val_accuracy": 0.75, "test_auroc": math.nan})
    client = tracking.connect(uri)
    run_id = tracking.sync(run, uri=uri)
    assert [(one.step, one.value) for one in client.get_metric_history(run_id, "test_accuracy")] == [(0, 0.9)]
    curve = [(one.step, one.value) for one in client.get_metric_history(run_id, "val_accuracy")]
    assert sorted(curve) == [(1, 0.5), (2, 0.75), (2, 1.0)]
    latest = client.get_run(run_id).data.metrics
    assert latest["val_accuracy"] == 0.75
    assert not {"test_auroc", "lr"} & set(latest), "what is no number is left out"
    assert next(iter(latest)) == "test_accuracy", "MLflow's plots begin with the first one"


def test_the_report_is_an_artifact_as_soon_as_it_is_there(new_run: Callable[..., Run], uri: str) -> None:
    run = new_run()
    _finish(run)
    run_id = tracking.sync(run, uri=uri)
    client = tracking.connect(uri)
    assert "report.html" not in _artifacts(client, run_id)
    (run.folder / "report.html").write_text("<h1>one</h1>")
    tracking.sync(run, uri=uri)
    assert "report.html" in _artifacts(client, run_id)
    assert "`report.html`" in client.get_run(run_id).data.tags["mlflow.note.content"]
    (run.folder / "report.html").write_text("<h1>another</h1>")
    tracking.sync(run, uri=uri)
    assert "another" in Path(client.download_artifacts(run_id, "report.html")).read_text()


def test_the_description_has_the_key_figures_and_the_recipe(new_run: Callable[..., Run]) -> None:
    run = new_run()
    run.update(recipe="recipes/pets.toml", plugins=[{"kind": "models", "name": "linear"}])
    run.finish("finished", metrics={**_FINAL, "parameters": 1234567.0, "epochs": 2.0, "fit_seconds": 75.0})
    note = facts.describe(run)["mlflow.note.content"]
    for words in (
        "- Model `linear`, 1,234,567 parameters",
        "- Fitted in 1:15, trained 2 epochs in 1.50 s on Xeon",
        "- Run **finished**: recipe `recipes/pets.toml`, seed 0, group `20261101-120000-ab12`",
        f"```toml\n{_RECIPE.strip()}\n```",
    ):
        assert words in note
    assert "nan" not in note


def test_a_description_of_a_failed_run_and_of_a_long_recipe(new_run: Callable[..., Run]) -> None:
    run = new_run()
    (run.folder / "recipe.toml").write_text(_RECIPE + "# filler\n" * 2000)
    run.finish("failed", error="out of memory")
    note = facts.describe(run)["mlflow.note.content"]
    assert note.startswith("> **failed**: out of memory")
    assert len(note) <= 8000
    assert note.endswith("# the rest stands in recipe.toml\n```")


@pytest.mark.parametrize("text", [None, "torn", "[]", '{"uri": "sqlite:///x"}'])
def test_a_run_that_mlflow_does_not_have_has_no_page(text: str | None, new_run: Callable[..., Run]) -> None:
    run = new_run()
    if text is not None:
        (run.folder / "mlflow.json").write_text(text)
    assert page_of(run, "sqlite:///x") == ""
