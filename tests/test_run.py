"""`bench run` as a whole: what it records, how it stops, and how it goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bench import record, run
from bench.errors import BenchError, Interrupted
from bench.files import sha256
from bench.progress import Progress
from bench.recipe import Recipe, parse
from bench.stages import checkpoint
from bench.stages.train import Trainer

#: Digits, with everything that draws random numbers: augmentation, mixing of pairs, dropout, shuffling.
RECIPE = """
experiment = "tiny"
[dataset]
name = "digits"
[data]
size = 8
[model]
name = "cnn"
channels = [8, 16]
convs_per_block = 1
dropout = 0.3
[[augment]]
name = "affine"
[[augment]]
name = "mixup"
[train]
epochs = 4
batch_size = 128
ema = 0.9
[optimizer]
name = "adamw"
lr = 1e-2
[scheduler]
name = "one_cycle"
[compute]
precision = "fp32"
memory_format = "channels_last"
threads = 1
"""


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BENCH_TRACKING", "off")


def _recipe(*changes: str) -> Recipe:
    return parse(RECIPE, path=Path("tiny.toml"), changes=changes)


def _weights(finished: record.Run) -> str:
    return sha256(finished.folder / "model.safetensors")


def _tensors(finished: record.Run) -> dict[str, torch.Tensor]:
    return load_file(finished.folder / "model.safetensors")


def _same(first: record.Run, second: record.Run) -> bool:
    one, two = _tensors(first), _tensors(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_records_everything() -> None:
    (finished,) = run.run(_recipe())
    info = finished.info()
    assert info["status"] == "finished"
    assert info["metrics"]["test_accuracy"] > 0.5
    assert (
        info["metrics"]["test_accuracy_low"] < info["metrics"]["test_accuracy"] < info["metrics"]["test_accuracy_high"]
    )
    assert 0.1 < info["metrics"]["peak_memory_gb"] < 100
    assert sum(info["dataset"]["counts"]["test"].values()) == 359
    assert {plugin["name"] for plugin in info["plugins"]} == {"digits", "cnn", "affine", "mixup"}
    assert [line["epoch"] for line in finished.epochs()] == [1, 2, 3, 4]
    manifest = json.loads((finished.folder / "manifest.json").read_text())
    expected = {"recipe.toml", "plan.json", "evaluation.json", "model.safetensors", "predictions/test.npz"}
    assert expected <= set(manifest)
    assert all(sha256(finished.folder / name) == digest for name, digest in manifest.items())


def test_predictions_carry_the_identity_of_each_sample() -> None:
    (finished,) = run.run(_recipe("train.epochs=1"))
    with np.load(finished.folder / "predictions" / "test.npz") as stored:
        assert len(set(stored["ids"])) == len(stored["labels"]) == 359
        assert stored["probabilities"].sum(1) == pytest.approx(1, abs=1e-5)
        accuracy = (stored["probabilities"].argmax(1) == stored["labels"]).mean()
    assert accuracy == pytest.approx(finished.info()["metrics"]["test_accuracy"])


def test_two_runs_on_one_machine_are_bit_identical_and_seeds_differ() -> None:
    (first,) = run.run(_recipe("train.epochs=2"))
    (second,) = run.run(_recipe("train.epochs=2"))
    (other,) = run.run(_recipe("train.epochs=2", "seeds=[1]"))
    assert _same(first, second)
    assert not _same(first, other)
    losses = [[line["values"]["train_loss"] for line in each.epochs()] for each in (first, second)]
    assert losses[0] == losses[1]


def test_several_seeds_share_their_group_and_splits() -> None:
    runs = run.run(_recipe("train.epochs=1", "seeds=[3, 5]"))
    assert [each.info()["seed"] for each in runs] == [3, 5]
    assert len({each.info()["group"] for each in runs}) == 1
    assert len({each.info()["dataset"]["fingerprint"] for each in runs}) == 1
    ids = [np.load(each.folder / "predictions" / "test.npz")["ids"].tolist() for each in runs]
    assert ids[0] == ids[1]


class _StopAfter(Progress):
    """Asks for a stop, as Ctrl-C does, in the epoch after `epochs`."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def epoch(self, number: int, values: Any, *, best: bool) -> None:  # noqa: ARG002
        if number == self.epochs:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("schedule", ["one_cycle", "plateau", "cosine"])
def test_a_stopped_run_goes_on_to_the_same_weights(schedule: str) -> None:
    recipe = _recipe(f"scheduler.name={schedule}")
    (whole,) = run.run(recipe)
    with pytest.raises(Interrupted):
        run.run(recipe, progress=_StopAfter(2))
    (begun,) = run.unfinished(recipe)
    assert begun.status() == "interrupted"
    (resumed,) = run.resume(recipe, [begun])
    assert resumed.folder == begun.folder
    assert _same(whole, resumed)
    assert [line["epoch"] for line in resumed.epochs()] == [1, 2, 3, 4]


def test_without_the_generators_state_the_weights_differ() -> None:
    recipe = _recipe()
    (whole,) = run.run(recipe)
    with pytest.raises(Interrupted):
        run.run(recipe, progress=_StopAfter(2))
    (begun,) = run.unfinished(recipe)
    last = begun.checkpoints / "last.safetensors"
    tensors, state = checkpoint.load(last)
    fresh = {name: torch.Generator().get_state() for name in tensors if name.startswith("rng/")}
    checkpoint.save(last, tensors | fresh, state)
    (resumed,) = run.resume(recipe, [begun])
    assert not _same(whole, resumed)


def test_a_changed_dataset_is_not_gone_on_with() -> None:
    recipe = _recipe()
    with pytest.raises(Interrupted):
        run.run(recipe, progress=_StopAfter(1))
    (begun,) = run.unfinished(recipe)
    begun.update(dataset={**begun.info()["dataset"], "fingerprint": "another"})
    with pytest.raises(BenchError, match="has changed since"):
        run.resume(recipe, [begun])


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer._step

    def poisoned(self: Trainer, number: int, inputs: torch.Tensor, targets: torch.Tensor) -> Any:
        bad = self._so_far.epoch == 2 and number == 3
        return step(self, number, inputs * float("nan") if bad else inputs, targets)

    monkeypatch.setattr(Trainer, "_step", poisoned)
    with pytest.raises(BenchError, match="step 3 of epoch 3; the checkpoint of epoch 2 is kept"):
        run.run(_recipe())
    (failed,) = record.list_runs()
    assert failed.status() == "failed"
    assert checkpoint.load(failed.checkpoints / "last.safetensors")[1]["epoch"] == 2


def test_out_of_memory_names_the_batch_size_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench_plugins.models.cnn import ConvNet

    forward = ConvNet.forward

    def small_memory(self: ConvNet, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    monkeypatch.setattr(ConvNet, "forward", small_memory)
    with pytest.raises(BenchError, match="batches of 128; 32 fits") as caught:
        run.run(_recipe())
    assert "train.batch_size=32" in (caught.value.hint or "")


def test_a_full_disk_keeps_the_checkpoint_before(monkeypatch: pytest.MonkeyPatch) -> None:
    saves = []

    def full(*arguments: Any, **options: Any) -> None:
        saves.append(1)
        if len(saves) > 4:
            raise OSError(28, "No space left on device")
        save_file(*arguments, **options)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(BenchError, match="No space left") as caught:
        run.run(_recipe("train.keep=last"))
    assert "--resume" in (caught.value.hint or "")
    (failed,) = record.list_runs()
    monkeypatch.setattr(checkpoint, "save_file", save_file)
    assert checkpoint.load(failed.checkpoints / "last.safetensors")[1]["epoch"] == 4
    (resumed,) = run.resume(_recipe("train.keep=last"), [failed])
    assert resumed.status() == "finished"


def test_a_frozen_backbone_is_cached_and_its_head_learns() -> None:
    frozen = ('model.freeze=["features"]', "augment=[]", "train.epochs=15", "optimizer.lr=0.3", "model.dropout=0.0")
    (cached,) = run.run(_recipe(*frozen))
    plan = json.loads((cached.folder / "plan.json").read_text())
    assert plan["cache_features"] is True
    assert "frozen" in plan["reasons"]["cache_features"]
    (plain,) = run.run(_recipe(*frozen, "train.cache_features=off"))
    accuracies = [each.info()["metrics"]["test_accuracy"] for each in (cached, plain)]
    assert min(accuracies) > 0.3, "random features are better than chance"
    assert abs(accuracies[0] - accuracies[1]) < 0.1


def test_streamed_images_give_the_same_weights() -> None:
    (resident,) = run.run(_recipe("train.epochs=2"))
    (streamed,) = run.run(_recipe("train.epochs=2", "data.memory_gb=0"))
    assert _same(resident, streamed)


def _bench(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "BENCH_RUNS": str(folder / "runs"), "BENCH_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_a_run_that_goes_on(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE.replace("epochs = 4", "epochs = 500"))
    process = _bench(tmp_path, "run", str(recipe))
    while not list(tmp_path.glob("runs/*/*/checkpoints/last.safetensors")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"--resume" in errors
    (stopped,) = [record.Run(path.parent) for path in tmp_path.glob("runs/*/*/run.json")]
    assert stopped.status() == "interrupted"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_kills_end_in_the_same_weights(tmp_path: Path) -> None:
    """Killed with SIGKILL at random moments, each run is resumed until it ends; its weights are those of a whole run."""
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE.replace("epochs = 4", "epochs = 30"))
    first = _bench(tmp_path, "run", str(recipe))
    first.communicate()  # also closes the pipe
    assert first.returncode == 0
    (whole,) = _runs(tmp_path)
    draw = random.Random(0)
    kills = 0
    for attempt in range(20):
        recipe.write_text(RECIPE.replace("epochs = 4", "epochs = 30") + f"\n# {attempt}\n")
        folder = tmp_path / f"attempt{attempt}"
        folder.mkdir()
        process = _bench(folder, "run", str(recipe))
        _kill_in(folder, process, epoch=draw.randrange(29), delay_s=draw.uniform(0, 0.5))
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        resumed = _bench(folder, "run", str(recipe), "--resume")
        _, errors = resumed.communicate()
        assert resumed.returncode == 0 or b"is finished" in errors, errors.decode()
        (ended,) = _runs(folder)
        assert _weights_metadata_free(ended) == _weights_metadata_free(whole)
    assert kills >= 15, "the kills came too late to prove anything"


def _kill_in(folder: Path, process: subprocess.Popen[bytes], *, epoch: int, delay_s: float) -> None:
    """SIGKILL some time after an epoch was logged (0: after the start of the run), however fast the machine is."""
    while process.poll() is None and not any(len(known.epochs()) >= epoch for known in _runs(folder)):
        time.sleep(0.01)
    time.sleep(delay_s)
    process.kill()


def _runs(folder: Path) -> list[record.Run]:
    return [record.Run(path.parent) for path in sorted(folder.glob("runs/*/*/run.json"))]


def _weights_metadata_free(finished: record.Run) -> str:
    """The sha256 over the tensors, which the file carries; the file itself also names its run."""
    with safe_open(finished.folder / "model.safetensors", framework="pt") as file:
        return json.dumps({name: file.get_tensor(name).numpy().tobytes().hex() for name in sorted(file.keys())})


#: A frozen, random backbone whose features do not depend on its input's statistics.
FROZEN = ('model.name="lenet"', 'model.freeze=["features"]', "data.normalize=none", "data.size=16")


@pytest.mark.parametrize(
    "change", ["model.activation=tanh", "data.filter=nearest", "data.resize=pad", "data.channels=3"]
)
def test_features_are_not_taken_for_those_of_another_model_or_decoding(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = RECIPE.replace("channels = [8, 16]\nconvs_per_block = 1\ndropout = 0.3\n", "")

    def losses(*changes: str) -> list[float]:
        given = parse(text, path=Path("tiny.toml"), changes=[*FROZEN, "train.epochs=1", *changes])
        return [line["values"]["train_loss"] for (finished,) in [run.run(given)] for line in finished.epochs()]

    losses()
    shared = losses(change)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "another cache"))
    assert losses(change) == shared
