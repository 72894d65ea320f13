"""How fast the command line answers, against click alone: pytest -m benchmark -s tests/benchmarks/test_startup.py."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

ROUNDS = 15

#: What is run -> how many times the time of `import click` it may take.
LIMITS = {"bench --help": 3.0, "bench plugins": 6.0}

COMMANDS: dict[str, Sequence[str]] = {
    "import click": (sys.executable, "-c", "import click"),
    "bench --help": (str(Path(sys.executable).with_name("bench")), "--help"),
    "bench plugins": (str(Path(sys.executable).with_name("bench")), "plugins"),
}


@pytest.mark.benchmark
def test_the_command_line_answers_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():  # warm the caches
        seconds(command)
    for _ in range(ROUNDS):  # in turns, so that a busy moment hits all of them
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = medians["import click"]
    with capsys.disabled():
        sys.stdout.write(f"\n{'':16}{'median ms':>10}{'min ms':>8}{'max ms':>8}{'ratio':>7}{'limit':>7}   n={ROUNDS}\n")
        for name, values in times.items():
            row = f"{name:16}{medians[name] * 1e3:10.0f}{min(values) * 1e3:8.0f}{max(values) * 1e3:8.0f}"
            sys.stdout.write(f"{row}{medians[name] / base:7.2f}{LIMITS.get(name, 1.0):7.1f}\n")
    too_slow = {name: medians[name] / base for name, limit in LIMITS.items() if medians[name] / base > limit}
    assert not too_slow


def seconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start
