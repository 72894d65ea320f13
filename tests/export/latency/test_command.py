"""`bench latency` as a person calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from bench_export.card import read_card

QUICK = ("--quick", "--duration", "0.4", "--threads", "1")


@pytest.fixture
def model(toy_models: ModuleType, tmp_path: Path) -> Path:
    path: Path = toy_models.classifier(tmp_path / "model.onnx")
    return path


def _bench(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "latency", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **more)


def test_quick_prints_the_record_and_writes_the_page(model: Path, tmp_path: Path) -> None:
    """On a machine without the training libraries."""
    (tmp_path / "without").mkdir()
    for name in ("torch", "torchvision", "pydantic", "mlflow", "timm"):
        (tmp_path / "without" / f"{name}.py").write_text("raise ImportError('not installed here')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "without")}
    done = _bench(model, *QUICK, "--json", "--html", tmp_path / "page.html", env=environment)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert not record["publishable"]
    assert record["why_not"][0] == "--quick"
    assert record["settings"]["quick"]
    assert record["candidates"][0]["threads"] == 1
    assert "made up" in done.stderr
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!")


def test_batches_must_be_numbers(model: Path) -> None:
    done = _bench(model, "--batch", "1,eight")
    assert (done.returncode, done.stdout) == (2, "")
    assert "batches are numbers from 1 on" in done.stderr


def test_a_provider_that_is_absent_is_an_error(model: Path) -> None:
    done = _bench(model, *QUICK, "--device", "cuda")
    assert done.returncode in {1, 2}
    assert "CUDA" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_loadgen_it_says_so_and_other_commands_work(model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mlperf_loadgen.py").write_text("raise ImportError('no wheel for this platform')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "elsewhere")}
    done = _bench(model, *QUICK, env=environment)
    assert done.returncode == 1
    assert "not available on this platform" in done.stderr
    helped = _bench("--help", env=environment)
    assert helped.returncode == 0


@pytest.mark.slow
def test_tuning_is_kept_in_the_file(model: Path) -> None:
    done = _bench(model, *QUICK[:3], "--tune", "--json")
    assert done.returncode == 0, done.stderr
    tuning = json.loads(done.stdout)["candidates"][0]["tuning"]
    card = read_card(model)
    assert card is not None
    assert card.tuning is not None
    assert card.tuning["graph_level"] == tuning["graph_level"]


def _workers(of: psutil.Process) -> list[psutil.Process]:
    return [one for one in of.children(recursive=True) if "bench_export.latency.worker" in one.cmdline()]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_an_ended_measurement_leaves_nothing(number: signal.Signals, code: int, model: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group of processes; SIGTERM and a kill (which leaves files) the parent."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "bench", "latency", str(model), "--duration", "60"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    ) as process:
        assert process.stderr is not None
        while "measuring blocks" not in process.stderr.readline():
            assert process.poll() is None
        workers = _workers(psutil.Process(process.pid))
        assert workers
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait(30) == code
    end = time.monotonic() + 20
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in workers):
        assert time.monotonic() < end
        time.sleep(0.1)
    if number != signal.SIGKILL:
        assert not [path for path in temporary.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--duration", "nan"), "--duration nan: not a number"),
        (("--bound-ms", "nan"), "--bound-ms nan: not a number"),
        (("--qps", "1e12"), "--qps"),
        (("--batch", "1000000"), "up to 4,096"),
        (("--threads", "100000"), "--threads"),
        (("--tune", "--threads", "2"), "leave out --threads"),
    ],
)
def test_numbers_that_no_machine_can_do_are_refused(model: Path, options: tuple[str, ...], said: str) -> None:
    done = _bench(model, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
