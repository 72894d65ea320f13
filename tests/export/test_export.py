"""bench export, from a trained run to files that count, on the command line's own way."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bench import registry
from bench import run as stages
from bench.cli import cli
from bench.errors import BenchError, GateError, RecipeError
from bench.kinds import DataSpec
from bench.progress import Progress
from bench.recipe import parse
from bench.record import Run
from bench.stages import checkpoint
from bench_export import load
from bench_export.card import read_card
from bench_export.conversion.proof import example
from bench_export.export_files import file_name, settle, unproven
from bench_export.export_run import export_run

RECIPE = """
experiment = "small"
[dataset]
name = "digits"
[data]
size = 12
[model]
name = "cnn"
channels = [4, 8]
[train]
epochs = 1
[compute]
threads = 1
precision = "fp32"
memory_format = "contiguous"
[export]
calibration_images = 64
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs, with a finished one in it."""
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_RUNS", str(place / "runs"))
        patch.setenv("BENCH_TRACKING", "off")
        stages.run(parse(RECIPE, path=place / "small.toml"), progress=Progress())
    return place / "runs"


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the run, in a place of its own."""
    shutil.copytree(trained, tmp_path / "runs")
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BENCH_TRACKING", "off")
    monkeypatch.chdir(tmp_path)
    (folder,) = (tmp_path / "runs" / "small").iterdir()
    return Run(folder)


def bench(*arguments: str) -> Any:
    return CliRunner().invoke(cli, arguments, catch_exceptions=True)


def test_every_precision_becomes_a_file_that_says_what_it_is(run: Run) -> None:
    done = bench("export", "--onnx", "--precision", "all", "--json")
    assert done.exception is None, done.output
    exports = json.loads(done.stdout)["exports"]
    assert [(one["precision"], one["accepted"]) for one in exports] == [("fp32", True), ("fp16", True), ("int8", True)]
    assert sorted(path.name for path in (run.folder / "export").iterdir()) == sorted(
        [
            *(file_name(one) for one in ("fp32", "fp16", "int8")),
            "model.gate.json",
            "model.fp16.gate.json",
            "model.int8.gate.json",
        ]
    )
    card = read_card(run.folder / "export" / "model.onnx")
    info = run.info()
    assert card is not None
    assert (card.run, card.run_id, card.experiment) == (run.name, info["id"], "small")
    assert card.recipe == (run.folder / "recipe.toml").read_text()
    assert card.metrics == info["metrics"]
    assert card.dataset["fingerprint"] == info["dataset"]["fingerprint"]
    assert card.gate is not None
    assert card.gate["passed"]
    assert card.gate["agreement"] == 1.0
    assert {"onnx", "numpy"} <= set(card.versions)
    assert exports[2]["quantisation"]["calibration"] in {"minmax", "entropy", "percentile"}


def test_the_file_gives_the_recorded_predictions(run: Run) -> None:
    from bench.stages.restore import restore
    from bench.stages.setup import load_data

    (exported,) = export_run(run)
    restored = restore(run.folder)
    test = load_data(restored.recipe, restored.plan, Progress()).splits["test"]
    with np.load(run.folder / "predictions" / "test.npz") as recorded:
        found = load(exported.path).predict(list(test.images[test.rows]))
        assert np.abs(found.probabilities - recorded["probabilities"]).max() < 1e-4
        assert (found.guesses == recorded["guesses"]).all()


def test_without_a_name_the_choice_is_said(run: Run) -> None:
    done = bench("export", "--onnx")
    assert done.exception is None, done.output
    assert run.name in done.stderr
    assert "best val_accuracy" in done.stderr
    assert "passed" in done.stdout
    assert "model.onnx" in done.stdout


def test_raw_leaves_pre_and_postprocessing_out_and_is_judged_all_the_same(run: Run) -> None:
    (exported,) = export_run(run, raw=True)
    assert exported.accepted
    assert exported.path.name == "model.raw.onnx"
    opened = load(exported.path)
    assert opened.session.inputs == ("normalised",)
    assert opened.session.outputs == ("outputs",)
    assert exported.registration is None


def test_a_rejected_file_is_kept_with_its_report_exits_4_and_replaces_the_accepted_one(run: Run) -> None:
    assert bench("export", "--onnx").exception is None
    weights = run.folder / "model.safetensors"
    tensors, state = checkpoint.load(weights)
    name = next(name for name, tensor in tensors.items() if tensor.dtype.is_floating_point and tensor.dim() > 1)
    tensors[name].view(-1)[0] = float("nan")
    checkpoint.save(weights, tensors, state)
    done = bench("export", "--onnx")
    assert isinstance(done.exception, GateError)
    assert done.exception.exit_code == 4
    assert "not finite" in str(done.exception)
    assert "departs first at" in str(done.exception)
    folder = run.folder / "export"
    assert sorted(path.name for path in folder.iterdir()) == ["model.gate.json", "model.rejected.onnx"]
    report = json.loads((folder / "model.gate.json").read_text())
    assert not report["passed"]
    assert report["file"] == "model.rejected.onnx"
    assert report["departure"] in str(done.exception)
    card = read_card(folder / "model.rejected.onnx")
    assert card is not None
    assert card.gate is not None
    assert not card.gate["passed"]


def test_limits_come_from_the_recipe(run: Run) -> None:
    recipe = run.folder / "recipe.toml"
    recipe.write_text(recipe.read_text() + "[export.gate]\nfp32_max_difference = 1e-15\n")
    (exported,) = export_run(run)
    assert not exported.accepted
    assert "the limit is 1e-15" in exported.report["reasons"][0]


def test_files_go_where_out_says(run: Run, tmp_path: Path) -> None:
    (exported,) = export_run(run, out=tmp_path / "shipped")
    assert exported.path == tmp_path / "shipped" / "model.onnx"
    assert not (run.folder / "export").exists()


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_a_run_without_a_finished_model_is_refused(run: Run, status: str) -> None:
    run.update(status=status, process={})
    with pytest.raises(BenchError, match="it has no finished model"):
        export_run(run)


def test_another_dataset_than_the_recorded_one_is_refused(run: Run) -> None:
    run.update(dataset={**run.info()["dataset"], "fingerprint": "0" * 64})
    with pytest.raises(BenchError, match="the dataset has changed"):
        export_run(run)


def test_the_format_has_to_be_said(run: Run) -> None:
    done = bench("export", run.name)
    assert done.exit_code == 2
    assert "--onnx" in done.stderr


def test_what_a_killed_export_has_left_never_becomes_a_file_that_counts(run: Run) -> None:
    folder = run.folder / "export"
    for age_days, name in enumerate((".unproven", ".unproven-of-now")):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.int8.onnx").write_bytes(b"never judged")
        then = time.time() - 2 * 86_400 * (1 - age_days)
        os.utime(folder / name, (then, then))
    (exported,) = export_run(run)
    assert exported.accepted
    assert sorted(path.name for path in folder.iterdir()) == [".unproven-of-now", "model.gate.json", "model.onnx"]


def test_an_interrupted_export_leaves_the_accepted_file_and_nothing_else(run: Run) -> None:
    (exported,) = export_run(run)
    before = exported.path.read_bytes()

    class Interrupting(Progress):
        def advance(self, what: str, done: int, total: int) -> None:  # noqa: ARG002
            if what == "asking the exported file":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_run(run, progress=Interrupting())
    assert sorted(path.name for path in exported.path.parent.iterdir()) == ["model.gate.json", "model.onnx"]
    assert exported.path.read_bytes() == before


def test_weights_and_a_report_of_an_earlier_export_go_with_it(tmp_path: Path) -> None:
    for name in ("model.onnx", "model.onnx.data", "model.gate.json", "model.int8.onnx"):
        (tmp_path / name).write_text("old")
    with unproven(tmp_path, "model.onnx") as path:
        path.write_text("new")
        assert settle(path, accepted=False) == tmp_path / "model.rejected.onnx"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.int8.onnx", "model.rejected.onnx"]
    with unproven(tmp_path, "model.onnx") as path:
        path.write_text("newer")
        path.with_name("model.onnx.data").write_text("weights")
        assert settle(path, accepted=True).read_text() == "newer"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["model.int8.onnx", "model.onnx", "model.onnx.data"]


def test_a_folder_that_cannot_be_written_to_is_an_error_of_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = bench("export", run.name, "--onnx", "--out", str(tmp_path / "file" / "inner"))
    assert isinstance(done.exception, RecipeError)
    assert "cannot be written to" in str(done.exception)


# Planted faults, as a plugin brings them

CLASSES = DataSpec("classification", tuple("0123456789"), 1, (12, 12))


class Frozen(torch.nn.Module):
    """Counts its images when it is traced, and never again: a number of Python's is a constant of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(144, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        is_traced = torch.compiler.is_exporting() or torch.jit.is_tracing()
        count = example(CLASSES)[0].shape[0] if is_traced else images.shape[0]
        return cast("torch.Tensor", self.head(images.reshape(count, 144)))


class Training(torch.nn.Module):
    """Normalises by its own batch, also when it predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(144, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = self.head(images.reshape(images.shape[0], 144))
        return (outputs - outputs.mean(0, keepdim=True)) / (outputs.var(0, keepdim=True, unbiased=False) + 1e-3).sqrt()


def frozen(spec: DataSpec) -> torch.nn.Module:  # noqa: ARG001  # the contract of a plugin
    """A frozen batch dimension."""
    return Frozen()


def training(spec: DataSpec) -> torch.nn.Module:  # noqa: ARG001  # the contract of a plugin
    """Batch normalisation in training mode."""
    return Training()


@pytest.mark.parametrize(("name", "what"), [("frozen", "batch"), ("training", "in batches of")])
def test_models_that_do_not_survive_the_export_exit_4_and_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BENCH_TRACKING", "off")
    module = ModuleType("export_toys")
    vars(module).update(frozen=frozen, training=training)
    monkeypatch.setitem(sys.modules, "export_toys", module)

    def with_toys(*, group: str) -> list[EntryPoint]:
        toys = ("frozen", "training") if group == "bench.models" else ()
        return [*entry_points(group=group), *(EntryPoint(one, f"export_toys:{one}", group) for one in toys)]

    monkeypatch.setattr(registry, "entry_points", with_toys)
    registry.installed.cache_clear()
    try:
        text = RECIPE.replace('name = "cnn"\nchannels = [4, 8]', f'name = "{name}"')
        stages.run(parse(text, path=tmp_path / "small.toml"), progress=Progress())
        done = bench("export", "--onnx")
    finally:
        registry.installed.cache_clear()
    assert isinstance(done.exception, GateError), done.output
    assert what in str(done.exception)
    (kept,) = (tmp_path / "runs").rglob("*.onnx")
    assert kept.name == "model.rejected.onnx"
    assert json.loads(kept.with_name("model.gate.json").read_text())["reasons"]


def test_a_precision_that_cannot_be_made_is_said_beside_the_others(run: Run) -> None:
    weights = run.folder / "model.safetensors"
    tensors, state = checkpoint.load(weights)
    next(tensor for tensor in tensors.values() if tensor.dim() > 1).view(-1)[0] = float("nan")
    checkpoint.save(weights, tensors, state)
    exact, small = export_run(run, precisions=("fp32", "int8"))
    assert exact.path.name == "model.rejected.onnx"
    assert small.report["reasons"][0].startswith("cannot be made: ")
    assert not small.path.exists()
    assert json.loads((run.folder / "export" / "model.int8.gate.json").read_text())["reasons"]


def test_a_registry_that_is_down_loses_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = bench("export", "--onnx")
    assert done.exception is None, done.output
    assert "is not registered" in done.stderr
    assert (run.folder / "export" / "model.onnx").is_file()
