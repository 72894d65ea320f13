"""`bench reproduce`: the same bits where nothing has changed, a test where something has, and what each is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import environment, record
from bench.record import Run
from bench.run import recorded_plan
from bench.stages import checkpoint

Edit = Callable[..., None]


def test_an_unchanged_run_is_reproduced_bit_for_bit(recorded: Run, bench: Any) -> None:
    result = bench("reproduce", recorded.name)
    assert result.code == 0
    assert "reproduced bit for bit\n" in result.out
    assert "versions, hardware and code are the recorded ones" in result.out
    assert "NOT" not in result.out
    (rerun,) = [run for run in record.list_runs() if run.name != recorded.name]
    info = rerun.info()
    assert info["reproduces"] == recorded.name
    assert (info["experiment"], info["seed"], info["status"]) == ("tiny", 0, "finished")
    assert info["metrics"]["test_accuracy"] == recorded.info()["metrics"]["test_accuracy"]


def test_json_holds_everything_that_was_compared(recorded: Run, bench: Any) -> None:
    found = bench("reproduce", recorded.name, "--json").one()
    assert found["outcome"] == "identical"
    assert found["same_bits_expected"] is True
    assert found["changes"] == []
    compared = found["comparison"]
    assert compared["epochs"] == 2
    assert compared["weights"] is True
    assert compared["digests"][0] == compared["digests"][1] != ""
    assert [(one["split"], one["identical"], one["differing"]) for one in compared["paired"]] == [
        ("test", True, 0),
        ("validation", True, 0),
    ]


def test_a_changed_version_is_named_those_that_matter_first(recorded: Run, bench: Any, edit: Edit) -> None:
    edit(recorded, lambda info: info["environment"]["versions"].update(torch="2.0.1", mlflow="3.0.0"))
    result = bench("reproduce", recorded.name, "--json")
    changes = {one["name"]: one for one in result.one()["changes"]}
    assert changes["torch"]["recorded"] == "2.0.1"
    assert changes["torch"]["now"] == torch.__version__.partition("+")[0]
    assert changes["torch"]["matters"] is True
    assert changes["mlflow"]["matters"] is False
    assert [one["name"] for one in result.one()["changes"]] == ["torch", "mlflow"]
    assert "torch (2.0.1 -> " in result.err
    assert result.one()["outcome"] == "identical"


def test_another_processor_python_plugin_commit_and_host_are_named(recorded: Run, bench: Any, edit: Edit) -> None:
    def elsewhere(info: dict[str, Any]) -> None:
        info["environment"]["python"] = "3.11.0"
        info["environment"]["machine"] |= {"cpu": "Another CPU", "cores": 64, "gpu": "Another GPU"}
        info["git"] = {"commit": "0123456789abcdef", "dirty": False}
        info["process"]["host"] = "elsewhere"
        info["plugins"][1] |= {"distribution": "other-plugins", "version": "7.0"}

    edit(recorded, elsewhere)
    changes = {one["name"]: one for one in bench("reproduce", recorded.name, "--json").one()["changes"]}
    assert {name for name, one in changes.items() if one["matters"]} == {"python", "CPU", "git commit", "models/cnn"}
    assert {name for name, one in changes.items() if not one["matters"]} == {"GPU", "cores", "host"}
    assert changes["git commit"]["recorded"] == "0123456789ab"
    assert changes["git commit"]["now"] == "not known"
    assert changes["models/cnn"]["recorded"] == "other-plugins 7.0"


def _change_plan(run: Run, **values: Any) -> None:
    path = run.folder / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def _plant_losses(run: Run) -> None:
    """The record of a training that went otherwise by the last bit."""
    lines = run.epochs()
    lines[1]["values"]["train_loss"] = float(np.nextafter(lines[1]["values"]["train_loss"], np.inf))
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_one_bit_of_a_loss_is_not_reproduced_where_nothing_has_changed(recorded: Run, bench: Any) -> None:
    _plant_losses(recorded)
    result = bench("reproduce", recorded.name)
    assert result.code == 4
    assert "NOT reproduced: train_loss of epoch 2 was " in result.out
    assert f"error: NOT reproduced: {recorded.name}" in result.err
    assert "hint: the record's metrics.jsonl is not as the run left it" in result.err


def test_a_planted_weight_is_not_reproduced(recorded: Run, bench: Any) -> None:
    path = recorded.folder / "model.safetensors"
    tensors, state = checkpoint.load(path)
    name = min(tensors)
    tensors[name] = tensors[name].clone()
    tensors[name].reshape(-1)[0] += 1
    checkpoint.save(path, tensors, state)
    result = bench("reproduce", recorded.name)
    assert result.code == 4
    assert "NOT reproduced: the weights differ" in result.out


def test_another_initialisation_is_not_reproduced(recorded: Run, bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the code had changed and nothing told of it."""
    from bench.stages import setup

    build = setup.model_stage.build

    def otherwise(*arguments: Any) -> torch.nn.Module:
        model = build(*arguments)
        with torch.no_grad():
            next(iter(model.parameters())).mul_(1.01)
        return model

    monkeypatch.setattr(setup.model_stage, "build", otherwise)
    result = bench("reproduce", recorded.name, "--json")
    assert result.code == 4
    assert result.one()["outcome"] == "different"
    assert result.one()["verdict"].startswith("NOT reproduced: train_loss of epoch 1 was ")


def test_other_bits_under_another_version_are_judged_by_test(recorded: Run, bench: Any, edit: Edit) -> None:
    edit(recorded, lambda info: info["environment"]["versions"].update(torch="2.0.1"))
    _plant_losses(recorded)
    result = bench("reproduce", recorded.name)
    assert result.code == 0
    assert "reproduced: no difference detectable, the interval of the difference is [" in result.out
    assert "percentage points on 359 test samples" in result.out


def test_other_predictions_under_another_version_are_not_reproduced(recorded: Run, bench: Any, edit: Edit) -> None:
    edit(recorded, lambda info: info["environment"]["versions"].update(torch="2.0.1"))
    path = recorded.folder / "predictions" / "test.npz"
    with np.load(path) as stored:
        parts = dict(stored)
    parts["guesses"] = parts["labels"].copy()  # a record that had everything right
    np.savez_compressed(path, **parts)
    result = bench("reproduce", recorded.name)
    assert result.code == 4
    assert "NOT reproduced: the accuracy differs by [" in result.out
    assert "changed since the record: torch" in result.err


def test_a_copied_folder_is_rerun_with_the_data_below_bench_data(
    recorded: Run, bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = shutil.copytree(recorded.folder, tmp_path / "copied" / recorded.name)
    shutil.rmtree(recorded.folder.parent)
    _change_plan(Run(elsewhere), dataset_root="/another/machine/digits")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    found = bench("reproduce", str(elsewhere), "--json").one()
    assert found["outcome"] == "identical"
    moved = {one["name"]: one for one in found["changes"]}["dataset root"]
    assert (moved["recorded"], moved["matters"]) == ("/another/machine/digits", False)
    assert moved["now"] == str(tmp_path / "data" / "digits")
    (rerun,) = record.list_runs()
    assert rerun.info()["reproduces"] == recorded.name


def test_more_threads_than_the_machine_has_are_kept_and_said(recorded: Run, bench: Any) -> None:
    before, threads = torch.get_num_threads(), environment.detect().cores + 1
    _change_plan(recorded, threads=threads)
    result = bench("reproduce", recorded.name, "--json")
    used = torch.get_num_threads()
    torch.set_num_threads(before)
    assert f"was recorded with {threads} threads and this machine has" in " ".join(result.err.split())
    assert used == threads
    assert recorded_plan(Run(Path(result.one()["folder"]))).threads == threads


def test_a_run_of_several_processes_is_rerun_by_as_many(recorded: Run, bench: Any) -> None:
    _change_plan(recorded, processes=2)
    result = bench("reproduce", recorded.name)
    assert result.code == 2
    assert "was trained by 2 processes, not 1" in result.err
    assert f"torchrun --nproc-per-node 2 -m bench reproduce {recorded.name}" in result.err


def test_a_changed_dataset_is_an_error_before_training_unless_any_data(recorded: Run, bench: Any, edit: Edit) -> None:
    edit(recorded, lambda info: info["dataset"].update(fingerprint="0" * 64))
    refused = bench("reproduce", recorded.name)
    assert refused.code == 1
    assert f"the dataset has changed since {recorded.name} was recorded" in refused.err
    assert "--any-data" in refused.err
    assert [run.name for run in record.list_runs()] == [recorded.name]
    allowed = bench("reproduce", recorded.name, "--any-data", "--json").one()
    assert allowed["same_bits_expected"] is False
    assert allowed["outcome"] == "identical"


def test_a_plugin_that_has_gone_is_named_with_its_distribution(recorded: Run, bench: Any, edit: Edit) -> None:
    def with_toy(info: dict[str, Any]) -> None:
        info["plugins"].append(
            {"kind": "models", "name": "gone", "target": "a:b", "distribution": "toy", "version": "2.1"}
        )

    edit(recorded, with_toy)
    result = bench("reproduce", recorded.name)
    assert result.code == 3
    assert "models plugin 'gone' of toy 2.1, which is not installed" in " ".join(result.err.split())
    assert "pip install toy==2.1" in result.err


def test_a_gpu_that_is_not_here_is_an_error_and_the_cpu_may_stand_in(
    recorded: Run, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _change_plan(recorded, device="cuda", precision="fp16")
    refused = bench("reproduce", recorded.name)
    assert refused.code == 2
    assert "--device cpu" in refused.err
    found = bench("reproduce", recorded.name, "--device", "cpu", "--json").one()
    changes = {one["name"]: (one["recorded"], one["now"]) for one in found["changes"]}
    assert changes["device"] == ("cuda", "cpu")
    assert changes["precision"] == ("fp16", "fp32")
    assert found["same_bits_expected"] is False


def test_an_unknown_device_is_a_usage_error(recorded: Run, bench: Any) -> None:
    assert bench("reproduce", recorded.name, "--device", "tpu").code == 2


def test_missing_and_damaged_files_are_named_and_the_rest_is_compared(recorded: Run, bench: Any) -> None:
    (recorded.folder / "predictions" / "test.npz").unlink()
    model = recorded.folder / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(bytes(content))
    result = bench("reproduce", recorded.name)
    assert result.code == 0
    assert "reproduced bit for bit, in what could be compared" in result.out
    assert "not compared: test predictions: run" in result.out
    assert "not compared: weights:" in result.out


@pytest.mark.parametrize("name", ["recipe.toml", "plan.json"])
def test_a_folder_without_recipe_or_plan_is_an_error(recorded: Run, bench: Any, name: str) -> None:
    (recorded.folder / name).unlink()
    result = bench("reproduce", recorded.name)
    assert result.code == 1
    assert name in result.err
    assert "hint:" in result.err


def test_a_plan_of_another_version_is_an_error_with_a_remedy(recorded: Run, bench: Any) -> None:
    _change_plan(recorded, from_the_future=1)
    result = bench("reproduce", recorded.name)
    assert result.code == 1
    assert "not a plan that this version can read" in result.err


def test_an_edited_recipe_is_named_and_takes_the_expectation_away(recorded: Run, bench: Any) -> None:
    path = recorded.folder / "recipe.toml"
    path.write_text(path.read_text() + "\n# a comment\n")
    found = bench("reproduce", recorded.name, "--json").one()
    assert [one["name"] for one in found["changes"] if one["matters"]] == ["the record's recipe.toml"]
    assert found["same_bits_expected"] is False


def test_the_command_loads_no_torch_for_its_help() -> None:
    import subprocess
    import sys

    code = "import sys, bench.reproduction.command, bench.curves, bench.mistakes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
