"""A tiny run, recorded once; each test gets a copy of its folder, to rerun and to damage."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import cli, record, run
from bench.recipe import parse
from bench.record import Run

RECIPE = """
experiment = "tiny"
[dataset]
name = "digits"
[data]
size = 8
validation = 0.1
[model]
name = "cnn"
channels = [8]
convs_per_block = 1
[[augment]]
name = "affine"
[train]
epochs = 2
batch_size = 256
[optimizer]
name = "adamw"
lr = 1e-2
[compute]
precision = "fp32"
memory_format = "contiguous"
threads = 1
"""


class Outcome:
    """Exit code, stdout and stderr of one command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def one(self) -> dict[str, Any]:
        """The only reproduction of `--json`."""
        (found,) = json.loads(self.out)["reproductions"]
        return dict(found)


def record_once(folder: Path, *changes: str) -> Run:
    """Record a run of the tiny recipe in a folder of its own, outside of any repository."""
    before = {name: os.environ.get(name) for name in ("BENCH_RUNS", "BENCH_CACHE", "BENCH_TRACKING")}
    os.environ |= {"BENCH_RUNS": str(folder / "runs"), "BENCH_CACHE": str(folder / "cache"), "BENCH_TRACKING": "off"}
    try:
        (made,) = run.run(parse(RECIPE, path=folder / "tiny.toml", changes=changes))
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    return made


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take ten times as long as these trainings, and nothing here looks at them."""
    from bench.stages import figures

    monkeypatch.setattr(figures, "draw_run", lambda *_, **__: None)


@pytest.fixture(scope="session")
def recorded_once(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return record_once(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def recorded(recorded_once: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the recorded run's folder among the runs of this test."""
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    folder = tmp_path / "runs" / "tiny" / recorded_once.name
    shutil.copytree(recorded_once.folder, folder)
    return Run(folder)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command in this process, 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def edit() -> Callable[..., None]:
    """Changes what a run.json says."""

    def change(of: record.Run, how: Callable[[dict[str, Any]], Any]) -> None:
        path = of.folder / "run.json"
        info = json.loads(path.read_text(encoding="utf-8"))
        how(info)
        path.write_text(json.dumps(info), encoding="utf-8")

    return change
