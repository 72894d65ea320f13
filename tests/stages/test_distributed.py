"""Several processes train one run: as one process would, with one record, and they end together.

Those that start processes do so as a person does, with torchrun, or give each one its environment by hand.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from bench import record, run
from bench.environment import Machine
from bench.errors import BenchError, RecipeError
from bench.launch import Launch, launched
from bench.plan import Plan, draft
from bench.recipe import Recipe, parse
from bench.stages.batches import Batches, Preprocessing
from bench.stages.distributed import Team
from bench.stages.features import FeatureBatches
from bench.stages.image_set import ImageSet
from bench.stages.last_words import LastWords
from bench.stages.seeding import Generators
from bench.stages.shards import Shard
from bench.together import divided, require_processes

#: Digits in batches whose last one is odd, with everything that changes a step.
RECIPE = """
experiment = "tiny"
[dataset]
name = "digits"
[data]
size = 8
[model]
name = "cnn"
channels = [4, 8]
convs_per_block = 1
[[augment]]
name = "affine"
[[augment]]
name = "mixup"
[train]
epochs = 3
batch_size = 100
accumulate = 2
clip_norm = 1.0
ema = 0.5
[optimizer]
name = "sgd"
lr = 0.02
[scheduler]
name = "cosine"
[compute]
precision = "fp32"
memory_format = "contiguous"
threads = 1
"""
_CPU = torch.device("cpu")
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)


# what torchrun says


def _told(monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


_PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}


def test_a_process_of_its_own_is_not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() is None
    _told(monkeypatch, **_PLACE)  # clusters set these for anybody
    assert launched() is None
    _told(monkeypatch, RANK=0, WORLD_SIZE=1, LOCAL_RANK=0, LOCAL_WORLD_SIZE=1)
    assert launched() is None


def test_a_process_of_several_knows_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    _told(monkeypatch, **_PLACE, RANK=5, WORLD_SIZE=8, LOCAL_RANK=1, LOCAL_WORLD_SIZE=4)
    assert launched() == Launch(5, 8, 1, 4)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": 1}, r"^RANK is set .* but not WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT$"),
        ({"WORLD_SIZE": 2, "LOCAL_RANK": 0, **_PLACE}, r"^WORLD_SIZE and LOCAL_RANK are set .* but not RANK$"),
        ({"RANK": 2, "WORLD_SIZE": 2, "LOCAL_RANK": 0, **_PLACE}, "RANK=2, WORLD_SIZE=2, .* do not fit"),
        ({"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 2, **_PLACE}, "LOCAL_RANK=2 .* do not fit"),
        ({"RANK": "one", "WORLD_SIZE": 2, "LOCAL_RANK": 0, **_PLACE}, "RANK='one' in the environment is no number"),
    ],
)
def test_half_an_environment_is_refused(
    variables: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _told(monkeypatch, **variables)
    with pytest.raises(RecipeError, match=message) as error:
        run.run(parse(RECIPE, path=Path("tiny.toml")))
    assert "torchrun --nproc-per-node" in (error.value.hint or "")
    assert not list(record.list_runs())


def test_only_the_first_process_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    _told(monkeypatch, **_PLACE, RANK=1, WORLD_SIZE=2, LOCAL_RANK=1, LOCAL_WORLD_SIZE=2)
    with pytest.raises(RecipeError, match="process 1 of 2 cannot lead"):
        run.run(parse(RECIPE, path=Path("tiny.toml")))


def test_a_plain_run_takes_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    script = (
        "import sys\nfrom pathlib import Path\nfrom bench import run\nfrom bench.recipe import load\n"
        "run.run(load(Path('tiny.toml'), ['train.epochs=1']))\nimport torch.distributed as dist\n"
        "parts = ('distributed', 'gradients', 'batch_norm', 'last_words')\n"
        "assert not {f'bench.stages.{part}' for part in parts} & set(sys.modules)\n"
        "assert not dist.is_initialized()\n"
    )
    command = [sys.executable, "-c", script]
    subprocess.run(command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=120)


# the plan


def _team(world_size: int = 2, *, rank: int = 0, local: int | None = None, hosts: Sequence[str] = ()) -> Team:
    """A team as far as nothing is said between its processes."""
    launch = Launch(rank, world_size, 0, local or world_size)
    words = LastWords(launch, dist.PrefixStore("test", dist.HashStore()))  # type: ignore[attr-defined]
    return Team(launch, tuple(hosts) or ("here",) * world_size, words)


_MACHINE = Machine(cores=8, cpu="a CPU", cpu_flags=(), gpu="", memory_gb=8.0)


def _drafted(*changes: str) -> tuple[Recipe, Plan]:
    recipe = parse(RECIPE, path=Path("tiny.toml"), changes=changes)
    return recipe, draft(recipe, _MACHINE)


def test_the_plan_says_what_is_divided_among_whom() -> None:
    recipe, plan = _drafted("compute.threads=auto")
    assert divided(plan, recipe, _MACHINE, None) == plan
    assert (plan.processes, plan.reasons["processes"]) == (1, "torchrun starts several")
    shared = divided(plan, recipe, _MACHINE, _team(4, local=2, hosts=("a", "a", "b", "b")))
    assert (shared.processes, shared.batch_size, shared.threads) == (4, 100, 4)
    assert shared.reasons["processes"] == "started by torchrun on 2 hosts (a, b); gloo"
    assert shared.reasons["batch_size"] == "given by the recipe; of all processes together, 25 each"
    assert shared.reasons["threads"] == "8 cores for 2 processes"


def test_threads_that_the_recipe_gives_stay() -> None:
    recipe, plan = _drafted("compute.threads=3")
    assert divided(plan, recipe, _MACHINE, _team()).threads == 3


def test_a_batch_smaller_than_the_number_of_processes_is_refused() -> None:
    recipe, plan = _drafted("train.batch_size=3")
    with pytest.raises(RecipeError, match="3 cannot be divided among 4 processes"):
        divided(plan, recipe, _MACHINE, _team(4))


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RecipeError, match=r"4 processes on .*, but torch sees 2 GPUs") as error:
        _team(4).take_device("cuda")
    assert error.value.hint == "torchrun --nproc-per-node 2, or --set compute.device=cpu"
    with pytest.raises(RecipeError, match="'cuda:1', but each of 2 processes takes a GPU of its own"):
        _team(2).take_device("cuda:1")
    _team(4).take_device("cpu")


@pytest.mark.parametrize(("recorded", "size"), [(2, 1), (1, 2), (2, 4)])
def test_a_run_goes_on_with_as_many_processes_as_it_had(recorded: int, size: int) -> None:
    plan = replace(_drafted()[1], processes=recorded)
    with pytest.raises(BenchError, match=rf"started with {recorded} process.*, not {size}") as error:
        require_processes(plan, _team(size) if size > 1 else None)
    assert ("torchrun --nproc-per-node 2" in (error.value.hint or "")) == (recorded == 2)
    require_processes(plan, _team(recorded) if recorded > 1 else None)


# last words


def test_a_lost_connection_is_explained_by_the_process_that_failed() -> None:
    team = _team()
    failed = LastWords(Launch(1, 2, 1, 2), team.words.store)
    lost = RuntimeError("[.../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234")
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert "gone without a word" in str(team.explain(lost))
        assert team.explain(ValueError("mine")).args == ("mine",)
        failed.leave(RecipeError("no disk", hint="buy one"))
        explained = team.explain(lost)
        assert "process 1 of 2 on" in str(explained)
        assert str(explained).endswith("failed: no disk")
        assert isinstance(explained, BenchError)
        assert (explained.hint, explained.exit_code) == ("buy one", 2)
        team.words.leave(BenchError("too"))
        assert failed.said_by_first(BenchError("too"))
        assert not failed.said_by_first(BenchError("another"))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_out_of_memory_says_which_process() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert "process 0 of 2: out of memory" in str(_team().explain(torch.OutOfMemoryError("CUDA")))
    finally:
        signal.signal(signal.SIGTERM, before)


# shards


@pytest.mark.parametrize(("count", "of"), [(10, 2), (11, 2), (3, 4), (0, 3), (100, 7)])
def test_shards_are_disjoint_complete_and_even(count: int, of: int) -> None:
    parts = [list(range(count))[Shard(index, of).rows(count)] for index in range(of)]
    assert [row for part in parts for row in part] == list(range(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= Shard(0, of).size(count)


def _noise(
    images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    return images + torch.rand(len(images), 1, 1, 1, generator=generator), targets


def _mixing(
    images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    partner = torch.randperm(len(images), generator=generator)
    return (images + images[partner]) / 2, (targets + targets[partner]) / 2


def _batches(*, pairs: bool, held: bool, augment: Sequence[Any] = ()) -> Batches:
    generator = np.random.default_rng(0)
    values = generator.integers(0, 255, (23, 4, 4, 1), dtype=np.uint8)
    rows = np.stack([np.arange(23), np.roll(np.arange(23), 5)], 1) if pairs else np.arange(23)
    images = ImageSet(values, rows, np.arange(23) % 2, tuple(map(str, range(23))))
    how = Preprocessing((0.4,), (0.2,), torch.contiguous_format)
    return Batches(images, how, 2, 5, _CPU, held=torch.from_numpy(values) if held else None, augment=augment)


def _features(*, pairs: bool) -> FeatureBatches:
    batches = _batches(pairs=pairs, held=True)
    positions = torch.from_numpy(batches.images.rows) if pairs else None
    targets = torch.eye(2)[torch.from_numpy(batches.images.labels)][None]
    return FeatureBatches(batches.images, torch.rand(3, 23, 6), targets.repeat(3, 1, 1), 5, _CPU, pairs=positions)


_SOURCES: dict[str, Callable[[], Any]] = {
    "images": lambda: _batches(pairs=False, held=True),
    "streamed": lambda: _batches(pairs=False, held=False),
    "augmented": lambda: _batches(pairs=False, held=True, augment=(_noise, _mixing)),
    "pairs": lambda: _batches(pairs=True, held=True, augment=(_noise,)),
    "features": lambda: _features(pairs=False),
    "features of pairs": lambda: _features(pairs=True),
}


def _joined(shards: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch put together again: of pairs first images before second ones."""
    sides = len(shards[0][0]) // len(shards[0][1])
    halves = [inputs.chunk(sides) for inputs, _ in shards]
    inputs = torch.cat([half[side] for side in range(sides) for half in halves])
    return inputs, torch.cat([targets for _, targets in shards])


@pytest.mark.parametrize("source", _SOURCES)
@pytest.mark.parametrize("of", [2, 3])
def test_the_shards_of_an_epoch_are_its_batches_and_a_pair_stays_whole(source: str, of: int) -> None:
    made = _SOURCES[source]()
    whole = list(made.shuffled(Generators.start(0, _CPU)))
    shards = [list(made.shuffled(Generators.start(0, _CPU), shard=Shard(index, of))) for index in range(of)]
    assert len(whole) == len(made) == 5
    for batch, parts in zip(whole, zip(*shards, strict=True), strict=True):
        inputs, targets = _joined(parts)
        assert torch.equal(inputs, batch[0])
        assert torch.equal(targets, batch[1])


@pytest.mark.parametrize("source", _SOURCES)
def test_the_shards_of_a_split_are_the_split_in_order(source: str) -> None:
    made = _SOURCES[source]()
    pieces = [piece for index in range(3) for piece in made.ordered(shard=Shard(index, 3))]
    assert max(len(targets) for _, targets in pieces) <= 2
    whole = torch.cat([targets for _, targets in made.ordered()])
    assert torch.equal(torch.cat([targets for _, targets in pieces]), whole)
    first = torch.cat([inputs[: len(targets)] for inputs, targets in made.ordered()])
    assert torch.equal(torch.cat([inputs[: len(targets)] for inputs, targets in pieces]), first)


def test_dropout_differs_between_processes_and_epochs_and_comes_again() -> None:
    generators = Generators.start(0, _CPU)

    def drawn(process: int, epoch: int) -> list[float]:
        generators.own(process=process, epoch=epoch)
        return torch.rand(3).tolist()

    assert drawn(0, 1) == drawn(0, 1)
    assert len({tuple(drawn(process, epoch)) for process in range(3) for epoch in range(3)}) == 9


# processes


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
    places = {"BENCH_RUNS": str(folder / "runs"), "BENCH_CACHE": str(folder / "cache"), "BENCH_TRACKING": "off"}
    return kept | places | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}


def _start(folder: Path, command: Sequence[str], **environment: object) -> subprocess.Popen[str]:
    given = _environment(folder) | {name: str(value) for name, value in environment.items()}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=given, stdout=pipe, stderr=pipe, text=True)


def _torchrun(folder: Path, *arguments: str, processes: int = 2, options: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Torchrun ... -m bench run tiny.toml ARGUMENTS."""
    (folder / "tiny.toml").write_text(RECIPE)
    start = [sys.executable, "-m", "torch.distributed.run", *(options or ["--standalone"])]
    return _start(folder, [*start, f"--nproc-per-node={processes}", "-m", "bench", "run", "tiny.toml", *arguments])


def _free_port() -> int:
    """One below those that connections are given, so that none takes it before it is used."""
    while True:
        port = random.randrange(15000, 30000)  # no secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _by_hand(folder: Path, *arguments: str, others: dict[str, object] | None = None) -> list[subprocess.Popen[str]]:
    """Two processes without torchrun; `others` is added to the second one's environment."""
    (folder / "tiny.toml").write_text(RECIPE)
    port = _free_port()
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    command = [sys.executable, "-m", "bench", "run", "tiny.toml", *arguments]
    extra: list[dict[str, object]] = [{}, others or {}]
    return [_start(folder, command, **place, RANK=rank, LOCAL_RANK=rank, **extra[rank]) for rank in range(2)]


def _ended(process: subprocess.Popen[str], *, within_s: float = 120) -> tuple[int, str, str]:
    """Exit code and what it said; it does not outlive the test."""
    try:
        said = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, *said


def _set(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def _only_run(folder: Path) -> record.Run:
    (found,) = folder.glob("runs/*/*/run.json")
    return record.Run(found.parent)


def _losses(finished: record.Run) -> np.ndarray[Any, Any]:
    values = [line["values"] for line in finished.epochs()]
    return np.array([[each["train_loss"], each["val_loss"], each["train_accuracy"]] for each in values])


def _weights(finished: record.Run) -> dict[str, torch.Tensor]:
    return load_file(finished.folder / "model.safetensors")


def _wait_for_epoch(folder: Path, process: subprocess.Popen[str], epoch: int) -> None:
    while not any(len(record.Run(path.parent).epochs()) >= epoch for path in folder.glob("runs/*/*/run.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


_CASES = {
    "augmented, clipped, accumulated, averaged, uneven": ((), 2),
    "a last batch smaller than the number of processes": (("train.batch_size=431", "train.accumulate=1"), 3),
    "features of a frozen backbone": (
        ("model={name='lenet', freeze=['features']}", "data.size=16", "augment=[{name='affine'}]"),
        2,
    ),
    "streamed and weighted, with a patience": (
        ("data.memory_gb=0", "train.class_weights=balanced", "train.patience=1", "optimizer.lr=1e-9"),
        2,
    ),
}


@pytest.mark.parametrize("case", _CASES)
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_several_processes_train_as_one_does(case: str, tmp_path: Path) -> None:
    changes, processes = _CASES[case]
    (alone,) = run.run(parse(RECIPE, path=Path("tiny.toml"), changes=changes))
    code, _, errors = _ended(_torchrun(tmp_path, *_set(*changes), processes=processes))
    assert code == 0, errors
    shared = _only_run(tmp_path)
    assert _losses(shared).shape == _losses(alone).shape
    assert np.abs(_losses(shared) - _losses(alone)).max() < 1e-5
    for split in ("validation", "test"):
        one, several = (np.load(each.folder / "predictions" / f"{split}.npz") for each in (alone, shared))
        assert (one["ids"] == several["ids"]).all()
        assert np.abs(one["probabilities"] - several["probabilities"]).max() < 1e-4
    plan = run.recorded_plan(shared)
    assert plan.processes == processes
    assert plan.reasons["processes"].endswith("gloo")
    assert shared.info()["hosts"] == [socket.gethostname()] * processes


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_process_speaks_and_records(tmp_path: Path) -> None:
    code, output, errors = _ended(_torchrun(tmp_path, *_set("train.epochs=2", "seeds=[0, 1]", "model.dropout=0.2")))
    assert code == 0, errors
    runs = [record.Run(path.parent) for path in sorted(tmp_path.glob("runs/*/*/run.json"))]
    assert [(each.status(), each.info()["seed"]) for each in runs] == [("finished", 0), ("finished", 1)]
    assert [len(each.epochs()) for each in runs] == [2, 2]
    assert output.count("mean") == 1
    assert errors.count("loading PyTorch") == 1
    assert errors.count("10 classes; train") == 1
    assert "Warning" not in errors.replace("*****", "")
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_is_computed_instead_of_trained_needs_only_one(tmp_path: Path) -> None:
    code, _, errors = _ended(_torchrun(tmp_path, *_set("train.epochs=0")))
    assert code == 0, errors
    assert _only_run(tmp_path).info()["metrics"]["epochs"] == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_stopped_in_one_process_all_stop_and_go_on_to_the_same_weights(tmp_path: Path) -> None:
    """Dropout and augmentation draw the same again; --resume of another number of processes is refused."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    changes = _set("train.epochs=40", "model.dropout=0.3")
    first = _by_hand(stopped, *changes)
    _wait_for_epoch(stopped, first[0], 2)
    first[1].send_signal(signal.SIGTERM)
    ends = [_ended(process, within_s=60) for process in first]
    assert [code for code, _, _ in ends] == [130, 130]
    assert "--resume" in ends[0][2]
    assert ends[1][1] + ends[1][2] == ""
    begun = _only_run(stopped)
    assert begun.status() == "interrupted"
    assert 2 <= len(begun.epochs()) < 40
    alone = _start(stopped, [sys.executable, "-m", "bench", "run", "--resume"])
    code, _, errors = _ended(alone)
    assert (code, "started with 2 processes, not 1" in errors) == (1, True)
    code, _, errors = _ended(_torchrun(stopped, *changes, "--resume"))
    assert code == 0, errors
    code, _, errors = _ended(_torchrun(whole, *changes))
    assert code == 0, errors
    ended = _weights(_only_run(stopped))
    expected = _weights(_only_run(whole))
    assert [name for name in expected if not torch.equal(ended[name], expected[name])] == []
    assert _losses(_only_run(stopped)).tolist() == _losses(_only_run(whole)).tolist()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ctrl_c_on_torchrun_interrupts_the_run(tmp_path: Path) -> None:
    process = _torchrun(tmp_path, *_set("train.epochs=5000"))
    _wait_for_epoch(tmp_path, process, 1)
    process.send_signal(signal.SIGINT)
    code, _, errors = _ended(process, within_s=60)
    assert code != 0
    assert "--resume" in errors
    assert _only_run(tmp_path).status() == "interrupted"
    assert _only_run(tmp_path).info()["status"] == "interrupted", "it was written down, not concluded"
    assert (_only_run(tmp_path).checkpoints / "last.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_process_ends_the_others_with_an_error(tmp_path: Path) -> None:
    first, second = _by_hand(tmp_path, *_set("train.epochs=5000"))
    _wait_for_epoch(tmp_path, first, 1)
    second.kill()
    killed = time.monotonic()
    code, _, errors = _ended(first, within_s=60)
    assert time.monotonic() - killed < 20
    _ended(second)
    assert (code, "another of the 2 processes has gone without a word" in errors) == (1, True)
    failed = _only_run(tmp_path)
    assert failed.status() == "failed"
    assert "gone without a word" in failed.info()["error"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_the_first_process_the_others_end_too(tmp_path: Path) -> None:
    first, second = _by_hand(tmp_path, *_set("train.epochs=5000"))
    _wait_for_epoch(tmp_path, first, 1)
    first.kill()
    _ended(first)
    code, output, errors = _ended(second, within_s=30)  # torch itself may say that the store is gone
    assert (code, output) == (1, "")
    assert not {"error:", "Traceback"} & set(errors.split())
    assert _only_run(tmp_path).status() == "interrupted"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_error_in_one_process_is_shown_and_ends_all(tmp_path: Path) -> None:
    """The second process cannot write its cache; the first one has the images already and would go on."""
    (tmp_path / "file").touch()
    first, second = _by_hand(tmp_path, *_set("data.size=16"), others={"BENCH_CACHE": tmp_path / "file"})
    (code, _, errors), (other_code, _, other_errors) = (_ended(process, within_s=60) for process in (first, second))
    assert (code, other_code) == (1, 1)
    assert "images: cannot be made" in other_errors
    assert "process 1 of 2 on" in errors
    assert "images: cannot be made" in errors
    assert "Traceback" not in errors + other_errors


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_error_that_all_have_is_shown_once(tmp_path: Path) -> None:
    (code, _, errors), (other_code, _, other_errors) = (
        _ended(process, within_s=60)
        for process in _by_hand(tmp_path, *_set("optimizer.lr=1e30", "train.clip_norm=0", "model.batch_norm=false"))
    )
    assert (code, other_code, other_errors) == (1, 1, "")
    assert "the loss is" in errors
    assert _only_run(tmp_path).status() == "failed"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_hosts_train_one_run(tmp_path: Path) -> None:
    """Two agents of torchrun, as on two machines, meet on the loopback."""
    port = _free_port()
    meeting = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=bench"]
    agents = [_torchrun(tmp_path, processes=1, options=meeting) for _ in range(2)]
    ends = [_ended(agent) for agent in agents]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert sum("recorded in" in output for _, output, _ in ends) == 1
    (alone,) = run.run(parse(RECIPE, path=Path("tiny.toml")))
    assert np.abs(_losses(_only_run(tmp_path)) - _losses(alone)).max() < 1e-5


_NORMS = """
import copy, torch, torch.distributed as dist
from torch import nn
from bench.stages.batch_norm import over_processes
dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
for count in (7, 1):  # of one image, one process has none
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        images = (torch.randn(count, 4, 5, 5) * 3 + 1000).to(dtype)
        weights = torch.randn(count, 4, 5, 5).to(dtype)
        whole = nn.BatchNorm2d(4, momentum=None).to(dtype)
        nn.init.normal_(whole.weight)
        part = over_processes(nn.Sequential(copy.deepcopy(whole)), torch.device("cpu"))
        assert list(part.state_dict()) == ["0." + name for name in whole.state_dict()]
        rows = slice(rank * count // size, (rank + 1) * count // size)
        one = images.clone().requires_grad_()
        (whole(one) * weights).sum().backward()
        own = images[rows].clone().requires_grad_()
        (part(own) * weights[rows]).sum().backward()
        gradient = part[0].weight.grad
        dist.all_reduce(gradient)
        near = 2e-3 if dtype == torch.float32 else 1e-10
        assert torch.allclose(own.grad, one.grad[rows], atol=near), (own.grad - one.grad[rows]).abs().max()
        assert torch.allclose(gradient, whole.weight.grad, atol=10 * near)
        assert torch.allclose(part[0].running_mean, whole.running_mean)
        assert torch.allclose(part[0].running_var, whole.running_var, rtol=1e-5)
        assert torch.allclose(part.eval()(images), whole.eval()(images), atol=near)
dist.barrier()
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_batch_normalisation_is_over_the_whole_batch(tmp_path: Path) -> None:
    (tmp_path / "norms.py").write_text(_NORMS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "norms.py"]
    code, _, errors = _ended(_start(tmp_path, command))
    assert code == 0, errors


_PARAMETERS = """
from contextlib import nullcontext
import numpy as np, torch
from torch import nn
from bench.errors import BenchError, RecipeError
from bench.launch import launched
from bench.stages.batches import Batches, Preprocessing
from bench.stages.distributed import joined
from bench.stages.gradients import share
from bench.stages.image_set import ImageSet

class Net(nn.Module):
    def __init__(self, parts, flat=False):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 2) for _ in range(3))
        self.parts, self.flat = parts, flat
    def forward(self, images):
        images = images.view(len(images), -1) if self.flat else images.flatten(1)
        return sum(self.layers[part](images) for part in self.parts)

def batches(size):
    values = np.random.default_rng(0).integers(0, 255, (9, 4, 4, 1), dtype=np.uint8)
    images = ImageSet(values, np.arange(9), np.arange(9) % 2, tuple("abcdefghi"))
    how = Preprocessing((0.4,), (0.2,), torch.contiguous_format)
    return Batches(images, how, 2, size, torch.device("cpu"), held=torch.from_numpy(values))

def steps(team, net, times):
    shared = share(team, net, batches(9), lambda module: module, nullcontext)
    inputs = torch.ones(2, 1, 4, 4) * (1 + team.launch.rank)
    for _ in range(times):
        net.zero_grad()
        shared(inputs).sum().backward()
    return shared

with joined(launched()) as team:
    idle = Net([0, 1])
    steps(team, idle, 2)
    assert idle.layers[2].weight.grad is None
    mean = sum(range(1, team.size + 1)) / team.size
    assert torch.allclose(idle.layers[0].weight.grad, torch.full((2, 16), 2 * mean))
    changing = Net([0, 1, 2])
    shared = steps(team, changing, 1)
    changing.parts = [0]
    try:
        for _ in range(2):
            shared(torch.ones(2, 1, 4, 4)).sum().backward()
    except BenchError as error:
        assert "other parameters from one step to the next" in str(error)
    else:
        raise AssertionError("it was not noticed")
    share(team, Net([0, 1, 2]), batches(7), lambda module: module, nullcontext)  # a last batch of 2 for 3 processes
    try:
        share(team, Net([0, 1, 2], flat=True), batches(7), lambda module: module, nullcontext)
    except RecipeError as error:
        assert "the last batch of an epoch has 2 images for 3 processes" in str(error)
    else:
        raise AssertionError("empty batches cannot be viewed")
    if not team.leads:
        team.broadcast()
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_parameters_without_a_gradient_and_empty_batches_are_found_before(tmp_path: Path) -> None:
    (tmp_path / "parameters.py").write_text(_PARAMETERS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "parameters.py"]
    code, _, errors = _ended(_start(tmp_path, command))
    assert code == 0, errors
