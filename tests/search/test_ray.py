"""Searches on Ray: clusters of real nodes on this machine, and what becomes of a killed one's trials.

A search is a program of its own, and so are Ray's parts; at the end of each test none of them is left.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import tracking
from bench.errors import BenchError
from bench.record import Run, folder_of, list_runs
from bench.search.ray_cluster import Cluster, connected

pytestmark = pytest.mark.slow

RECIPE = """
experiment = "toy"
[dataset]
name = "digits"
[data]
size = 8
test = 0.2
[model]
name = "linear"
[train]
epochs = {epochs}
batch_size = 64
[compute]
precision = "fp32"
memory_format = "contiguous"
[search]
trials = {trials}
seeds = [0]
sampler = "random"
pruner = "none"
[search.space]
"optimizer.lr" = {{float = [1e-3, 1e-1], log = true}}
"""
#: `bench search`, as a program of its own.
PROGRAM = "from bench.cli import cli, main; from bench.search.command import search; cli.add_command(search); main()"
_STORE = 100_000_000


def text_of(*, trials: int = 4, epochs: int = 2) -> str:
    return RECIPE.format(trials=trials, epochs=epochs)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "toy.toml"
    path.write_text(text_of(), encoding="utf-8")
    return path


def of_ray(folder: Path) -> list[psutil.Process]:
    """The processes of a cluster, by its folder in their command lines or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            found.append(process)
    return found


def until(condition: Callable[[], Any], *, seconds: float = 120.0) -> Any:
    """What `condition` comes to as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return value


class Nodes:
    """A cluster whose first node is the one that searches join; its folder is short, as sockets are below it."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self.folder = folder
        self._cluster = RayCluster()
        self.add()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, **variables: str) -> Any:
        """One more node of one CPU, with these environment variables."""
        return self._cluster.add_node(
            num_cpus=1, object_store_memory=_STORE, include_dashboard=False, env_vars=variables or None
        )

    def kill(self, node: Any) -> None:
        """SIGKILL to a node's processes, as when its machine loses power."""
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        """End all of it, and see that nothing is left."""
        self._cluster.shutdown()
        until(lambda: not of_ray(self.folder), seconds=30)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # a socket's path has 107 bytes
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    started = Nodes(folder)
    try:
        yield started
    finally:
        started.close()
        shutil.rmtree(folder)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`bench search --engine ray` on a recipe, with further options and environment variables; what a failed test leaves running is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(recipe: Path, *arguments: Any, **variables: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, "search", str(recipe), "--engine", "ray", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = {**os.environ, **variables}
        started.append(
            subprocess.Popen(command, text=True, cwd=recipe.parent, env=environment, start_new_session=True, **pipes)
        )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            sys.stderr.write(process.communicate()[1])


Start = Callable[..., subprocess.Popen[str]]


def finish(process: subprocess.Popen[str], *, code: int = 0, seconds: float = 300.0) -> str:
    """What a search has said to people, in one line, once it has ended with this code."""
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == code, said
    assert "Traceback" not in said, said
    return " ".join(said.split())


def rows() -> list[dict[str, Any]]:
    """Number, state, process and run of each trial, from the file itself."""
    path = Path(os.environ["BENCH_RUNS"]) / "search.db"
    if not path.is_file():
        return []
    connection = sqlite3.connect(path, timeout=60)
    query = """SELECT number, state,
        (SELECT value_json FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = 'process'),
        (SELECT value_json FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = 'run') FROM trials t"""
    try:
        found = connection.execute(query).fetchall()
    except sqlite3.OperationalError:  # the tables are not there yet
        return []
    finally:
        connection.close()
    return [
        {
            "number": number,
            "state": state,
            "process": json.loads(process or "null") or {},
            "run": json.loads(run or "null"),
        }
        for number, state, process, run in found
    ]


def num_done() -> int:
    return sum(row["state"] in {"COMPLETE", "PRUNED"} for row in rows())


def check_whole(trials: int) -> None:
    """Each trial once, all finished, a run for each, each epoch once, one winner, and nothing that runs for ever."""
    assert Counter(row["number"] for row in rows()) == Counter(range(trials))
    assert {row["state"] for row in rows()} <= {"COMPLETE", "PRUNED"}
    infos = [run.info() for run in list_runs("toy")]
    assert Counter(info["trial"] for info in infos if "trial" in info) == Counter(range(trials))
    assert all(run.status() in {"finished", "pruned"} for run in list_runs("toy"))
    assert sum("trial" not in info for info in infos) == 1
    for run in list_runs("toy"):
        numbers = [epoch["epoch"] for epoch in run.epochs()]
        assert numbers == list(range(1, len(numbers) + 1))
    assert [path.name for path in Path(os.environ["BENCH_RUNS"]).glob(".seen-*")] == []


def held(node: Any | None = None) -> dict[str, Any] | None:
    """A trial that has trained for at least one epoch on this node and is stopped in the middle; None where none is."""
    for row in rows():
        if row["state"] != "RUNNING" or not row["run"] or (node and row["process"]["node"] != node.node_id):
            continue
        run = Run(folder_of("toy", row["run"]))
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(row["process"]["id"])
            process.suspend()
            if run.status() == "running" and run.epochs():
                return row
            process.resume()
    return None


def test_a_node_killed_in_the_middle_of_50_trials_costs_none_of_them(
    cluster: Nodes, recipe: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{recipe.parent / 'mlflow.db'}")
    recipe.write_text(text_of(trials=50, epochs=20), encoding="utf-8")
    second = cluster.add()
    process = start(recipe, "--address", cluster.address)
    until(lambda: num_done() >= 15)
    victim = until(lambda: held(second))
    cluster.kill(second)
    os.kill(victim["process"]["id"], signal.SIGKILL)  # with its node, which would otherwise tell it
    said = finish(process, seconds=500)
    assert "2 nodes, room for 2 trials at once" in said
    assert re.search(rf"trial {victim['number']}: (the node|process \d+ on) \S+ died; it is taken over", said), said
    check_whole(50)
    assert rows()[victim["number"]]["process"]["node"] != second.node_id
    check_mlflow(50)


def check_mlflow(trials: int) -> None:
    """Each trial once, and all of them ended."""
    client = tracking.connect(tracking.tracking_uri())
    experiment = client.get_experiment_by_name("toy")
    assert experiment is not None
    entries = client.search_runs([experiment.experiment_id], max_results=1000)
    numbers = Counter(tags["visionbench.trial"] for one in entries if "visionbench.trial" in (tags := one.data.tags))
    assert numbers == Counter(map(str, range(trials)))
    assert {entry.info.status for entry in entries} <= {"FINISHED", "KILLED"}


def test_a_killed_process_is_named_and_its_trial_goes_on_from_its_checkpoint(
    cluster: Nodes, recipe: Path, start: Start
) -> None:
    recipe.write_text(text_of(trials=2, epochs=200), encoding="utf-8")
    process = start(recipe, "--address", cluster.address)
    victim = until(held)
    before = victim["run"]
    os.kill(victim["process"]["id"], signal.SIGKILL)
    said = finish(process)
    assert f"trial {victim['number']}: process {victim['process']['id']} on" in said
    assert "died; it is taken over" in said
    check_whole(2)
    assert rows()[victim["number"]]["run"] == before
    assert rows()[victim["number"]]["process"]["id"] != victim["process"]["id"]


def test_ctrl_c_puts_the_trials_back_and_a_killed_driver_loses_none(cluster: Nodes, recipe: Path, start: Start) -> None:
    cluster.add()
    recipe.write_text(text_of(trials=3, epochs=120), encoding="utf-8")
    process = start(recipe, "--address", cluster.address)
    until(lambda: sum(row["state"] == "RUNNING" and bool(row["run"]) for row in rows()) == 2)
    os.killpg(process.pid, signal.SIGINT)
    said = finish(process, code=130, seconds=60)
    assert "the same command goes on" in said
    assert {row["state"] for row in rows()} <= {"WAITING", "COMPLETE"}
    assert {run.status() for run in list_runs("toy")} <= {"interrupted", "finished"}
    process = start(recipe, "--address", cluster.address)
    until(lambda: sum(row["state"] == "RUNNING" and bool(row["process"].get("task")) for row in rows()) == 2)
    process.kill()
    process.communicate()
    said = finish(start(recipe, "--address", cluster.address))
    assert "going on after" in said
    for seen in Path(os.environ["BENCH_RUNS"]).glob(".seen-*"):  # the killed driver's
        seen.unlink()
    check_whole(3)


@pytest.mark.usefixtures("cluster")
def test_a_node_that_does_not_see_the_runs_sends_them(recipe: Path, start: Start) -> None:
    """Whoever looks for the driver's token does not find it, as on a machine of another file system."""
    ended = threading.Event()

    def hide() -> None:
        while not ended.wait(0.005):
            for token in Path(os.environ["BENCH_RUNS"]).glob(".seen-*"):
                token.unlink(missing_ok=True)

    thread = threading.Thread(target=hide)
    thread.start()
    try:
        finish(start(recipe, "--address", "auto"))
    finally:
        ended.set()
        thread.join()
    check_whole(4)
    assert all((run.folder / "model.safetensors").is_file() for run in list_runs("toy"))
    assert list(Path(tempfile.gettempdir()).glob("bench-runs-*")) == []


def images(folder: Path) -> None:
    """Eight images of each of two classes, in the data folder that a home has."""
    from PIL import Image

    for name, colour in (("dark", 10), ("light", 240)):
        place = folder / "visionbench" / "data" / "photos" / name
        place.mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (8, 8), (colour + number, colour, colour)).save(place / f"{number}.png")


def test_a_node_without_the_dataset_gets_no_trials_and_the_others_do_them(
    cluster: Nodes, recipe: Path, start: Start, tmp_path: Path
) -> None:
    images(tmp_path / "full")
    text = text_of(trials=3).replace('name = "digits"', 'name = "image_folder"\nroot = "photos"')
    recipe.write_text(text.replace("test = 0.2", "test = 0.25\nvalidation = 0.25"), encoding="utf-8")
    cluster.add(XDG_CACHE_HOME=str(tmp_path / "empty"))  # the first node has none either
    here = {"XDG_CACHE_HOME": str(tmp_path / "full")}
    said = finish(start(recipe, "--address", cluster.address, **here), code=1)
    assert "no node of the cluster can run a trial" in said
    assert "photos" in said
    assert "and 1 more of its nodes likewise" in said
    third = cluster.add(**here)
    said = finish(start(recipe, "--address", cluster.address, **here))
    assert "gets no trials" in said
    assert {row["process"]["node"] for row in rows()} == {third.node_id}
    check_whole(3)


def test_shares_that_the_cluster_does_not_have_are_refused(cluster: Nodes, recipe: Path, start: Start) -> None:
    said = finish(start(recipe, "--address", cluster.address, "--cpus-per-trial", 64), code=2)
    assert "no node of the cluster has the 64 CPUs that a trial asks for" in said
    assert "has 1 CPU" in said


@pytest.mark.parametrize("kind", ["nobody", "another", "auto", "nonsense"])
def test_an_address_without_a_cluster_is_refused_within_a_minute(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if kind == "another":  # answers nobody
            server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}" if kind in {"nobody", "another"} else kind
        begun = time.monotonic()
        with pytest.raises(BenchError) as caught, connected(Cluster(address=address)):
            pass
    assert time.monotonic() - begun < 65
    assert address in str(caught.value)
    assert ("HOST:PORT" if kind == "nonsense" else "ray start --head") in str(caught.value.hint)
    assert caught.value.exit_code == (2 if kind == "nonsense" else 1)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """For temporary files; a socket's path has 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_without_an_address_ray_is_started_here_and_nothing_of_it_is_left(
    recipe: Path, start: Start, short_folder: Path
) -> None:
    process = start(recipe, "--json", TMPDIR=str(short_folder))
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["states"]["complete"] == 4
    check_whole(4)
    until(lambda: not of_ray(short_folder), seconds=30)
    assert list(short_folder.glob("ray-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_rays_processes_end_with_the_search_that_has_started_them(
    recipe: Path, start: Start, short_folder: Path, number: signal.Signals
) -> None:
    recipe.write_text(text_of(trials=8, epochs=400), encoding="utf-8")
    process = start(recipe, TMPDIR=str(short_folder))
    until(lambda: any(row["state"] == "RUNNING" and row["run"] for row in rows()))
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    if number == signal.SIGKILL:
        process.communicate()
    else:
        assert "the same command goes on" in finish(process, code=130, seconds=90)
        assert "RUNNING" not in {row["state"] for row in rows()}
        assert list(short_folder.glob("ray-*")) == []
    until(lambda: not of_ray(short_folder), seconds=30)
