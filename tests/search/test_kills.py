"""kill -9 at random moments, to workers and to the parent; the same command again, until the study is complete."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from mlflow.entities import ViewType

from bench import tracking
from bench.record import Run, list_runs
from bench.tracking.parent import PARENT_TAG

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
epochs = 40
batch_size = 64
[compute]
precision = "fp32"
memory_format = "contiguous"
[search]
trials = {trials}
seeds = [0]
[search.space]
"optimizer.lr" = {{float = [1e-3, 1e-1], log = true}}
"""
PROGRAM = "from bench.cli import cli, main; from bench.search.command import search; cli.add_command(search); main()"


def start(recipe: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, "search", str(recipe), "--workers", "2"]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, cwd=recipe.parent, start_new_session=True)


def kill_one(parent: subprocess.Popen[bytes], draw: random.Random) -> None:
    """The parent or one of its children, whichever the dice say."""
    try:
        family = [psutil.Process(parent.pid), *psutil.Process(parent.pid).children(recursive=True)]
        draw.choice(family).send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return


def finished_trials() -> dict[int, str]:
    """Number -> state and values of what is finished, from the file itself."""
    path = Path(os.environ["BENCH_RUNS"]) / "search.db"
    if not path.is_file():
        return {}
    connection = sqlite3.connect(path, timeout=60)
    try:
        rows = connection.execute(
            "SELECT number, state, (SELECT group_concat(value) FROM trial_values v WHERE v.trial_id = t.trial_id) "
            "FROM trials t WHERE state IN ('COMPLETE', 'PRUNED', 'FAIL')"
        ).fetchall()
    except sqlite3.OperationalError:  # killed before the tables were made
        return {}
    finally:
        connection.close()
    return {number: f"{state} {values}" for number, state, values in rows}


def states() -> Counter[str]:
    connection = sqlite3.connect(Path(os.environ["BENCH_RUNS"]) / "search.db", timeout=60)
    try:
        return Counter(state for (state,) in connection.execute("SELECT state FROM trials"))
    finally:
        connection.close()


def survive(tmp_path: Path, *, kills: int, trials: int, seed: int) -> None:
    recipe, log = tmp_path / "toy.toml", tmp_path / "log.txt"
    recipe.write_text(RECIPE.format(trials=trials), encoding="utf-8")
    draw = random.Random(seed)
    known: dict[int, str] = {}
    parent = start(recipe, log)
    for _ in range(kills):
        time.sleep(draw.uniform(0.5, 8.0))
        kill_one(parent, draw)
        time.sleep(draw.uniform(0.0, 1.0))
        now = finished_trials()
        assert known.items() <= now.items(), "a finished trial was lost or changed"
        known = now
        if parent.poll() is not None:
            parent = start(recipe, log)
    code = parent.wait(timeout=300)
    for _ in range(3):  # the last kill may have ended it, or all of its workers
        if code != 0:
            code = start(recipe, log).wait(timeout=300)
    text = log.read_text(encoding="utf-8")
    assert code == 0, text
    assert "Traceback" not in text, text
    assert len(finished_trials()) == trials
    assert set(states()) <= {"COMPLETE", "PRUNED"}, states()
    check_runs(trials)
    if os.environ.get("BENCH_TRACKING") != "off":
        check_mlflow(trials)


def check_mlflow(trials: int) -> None:
    """The study once, below it each trial once, and the winner; all of them ended."""
    client = tracking.connect(tracking.tracking_uri())
    experiment = client.get_experiment_by_name("toy")
    assert experiment is not None
    entries = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, max_results=1000)
    assert max(Counter(entry.data.tags["visionbench.id"] for entry in entries).values()) == 1
    (parent,) = (
        entry for entry in entries if "visionbench.study" in entry.data.tags and PARENT_TAG not in entry.data.tags
    )
    children = [entry for entry in entries if entry.data.tags.get(PARENT_TAG) == parent.info.run_id]
    numbers = Counter(
        entry.data.tags["visionbench.trial"] for entry in children if "visionbench.trial" in entry.data.tags
    )
    assert numbers == Counter(map(str, range(trials)))
    assert {entry.info.status for entry in entries} <= {"FINISHED", "KILLED"}
    assert len(entries) == trials + 2  # the parent and the winner


def check_runs(trials: int) -> None:
    """A run for each trial and none twice, one winner, and nothing that runs for ever."""
    infos = [run.info() for run in list_runs("toy")]
    numbers = Counter(info["trial"] for info in infos if "trial" in info)
    assert numbers == Counter(range(trials))
    assert all(run.status() in {"finished", "pruned"} for run in list_runs("toy"))
    assert all(unique_epochs(run) for run in list_runs("toy"))
    assert sum("trial" not in info for info in infos) == 1


def unique_epochs(run: Run) -> bool:
    numbers = [json.loads(line)["epoch"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return numbers == list(range(1, len(numbers) + 1))


def test_three_kills_lose_nothing_and_the_study_is_complete(tmp_path: Path) -> None:
    survive(tmp_path, kills=3, trials=8, seed=1)


@pytest.fixture
def _mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.mark.slow
@pytest.mark.usefixtures("_mirrored")
def test_kills_leave_each_trial_in_mlflow_once(tmp_path: Path) -> None:
    survive(tmp_path, kills=3, trials=6, seed=3)


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.usefixtures("_mirrored")
def test_fifty_kills_lose_nothing_and_the_study_is_complete(tmp_path: Path) -> None:
    survive(tmp_path, kills=int(os.environ.get("BENCH_KILLS", "50")), trials=60, seed=2)
