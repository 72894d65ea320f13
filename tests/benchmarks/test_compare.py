"""`bench compare` of 100 runs against the start of the command line: pytest -m benchmark -s tests/benchmarks/test_compare.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from side_by_side import compare, seconds_of, table

#: As many images as GTSRB's test split.
IMAGES, CLASSES = 12_630, 43

RECIPE = '[model]\nname = "cnn"\nchannels = [32, 64, 128]\n[train]\nepochs = {epochs}\n[optimizer]\nlr = {lr}\n'

#: How many times the start of `bench --help` a comparison of 100 runs may take.
LIMIT = 10.0


def record_runs(folder: Path, count: int) -> None:
    """Runs as they are recorded, as far as a comparison reads them, with independent mistakes."""
    generator = np.random.default_rng(0)
    ids = np.array([f"Final_Test/Images/{number:05}.ppm" for number in range(IMAGES)])
    labels = generator.integers(0, CLASSES, IMAGES)
    for number in range(count):
        right = generator.random(IMAGES) < generator.uniform(0.9, 0.98)
        guesses = np.where(right, labels, (labels + 1) % CLASSES)
        run = folder / "many" / f"20261126-{number:06}-aaaa-s0"
        (run / "predictions").mkdir(parents=True)
        np.savez_compressed(
            run / "predictions" / "test.npz",
            ids=ids,
            labels=labels,
            guesses=guesses,
            probabilities=np.zeros((IMAGES, CLASSES), np.float32),  # they are not read
        )
        (run / "recipe.toml").write_text(
            RECIPE.format(epochs=10 + number % 5, lr=1e-4 * (number + 1)), encoding="utf-8"
        )
        metrics = {"test_accuracy": float(right.mean()), "test_accuracy_low": 0.9, "test_accuracy_high": 0.99}
        info = {"status": "finished", "experiment": "many", "group": run.name[:-3], "seed": 0, "metrics": metrics}
        info |= {"dataset": {"name": "gtsrb", "fingerprint": "f"}, "recipe": "recipes/many.toml"}
        (run / "run.json").write_text(json.dumps(info), encoding="utf-8")


def command(folder: Path, *arguments: str) -> Callable[[], float]:
    """Seconds of the whole command, the start of Python included."""
    line: Sequence[str] = (sys.executable, "-m", "bench", *arguments)
    environment = {**os.environ, "BENCH_RUNS": str(folder)}
    return lambda: seconds_of(lambda: subprocess.run(line, check=True, capture_output=True, env=environment))


@pytest.mark.benchmark
@pytest.mark.parametrize("count", [100, 1000])
def test_a_comparison_takes_little_more_than_the_start_of_the_command_line(tmp_path: Path, count: int) -> None:
    record_runs(tmp_path, count)
    ratios = compare(
        f"bench --help over bench compare of {count} runs",
        command(tmp_path, "compare", "many"),
        command(tmp_path, "--help"),
        rounds=10,
    )
    table({f"compare of {count} runs": command(tmp_path, "compare", "many")()}, "s")
    assert 1 / ratios.median < LIMIT * max(1, count / 100)
