"""Two workers of one thread against one of two: pytest -m benchmark -s tests/benchmarks/test_search_workers.py."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from side_by_side import compare

from bench.search.storage import open_storage

TRIALS = 12

RECIPE = f"""
experiment = "throughput"
[dataset]
name = "digits"
[data]
size = 32
[model]
name = "cnn"
channels = [16, 32, 64]
[[augment]]
name = "affine"
degrees = 10.0
[train]
epochs = 3
batch_size = 64
[compute]
precision = "fp32"
[search]
trials = {TRIALS}
sampler = "random"
pruner = "none"
seeds = [0]
[search.space]
"optimizer.lr" = {{float = [1e-3, 1e-2], log = true}}
"""


def seconds_a_trial(folder: Path, *, workers: int, threads: int) -> float:
    """From the start of the first trial to the end of the last; every trial draws by its number, so both do the same."""
    folder.mkdir(parents=True)
    (folder / "throughput.toml").write_text(RECIPE, encoding="utf-8")
    command = [sys.executable, "-m", "bench", "search", "throughput.toml", "--workers", str(workers)]
    command += ["--set", f"compute.threads={threads}"]
    environment = {**os.environ, "BENCH_RUNS": str(folder / "runs"), "BENCH_TRACKING": "off"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=600)
    import optuna

    storage = open_storage(f"sqlite:///{folder / 'runs' / 'search.db'}")
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    starts = [trial.datetime_start for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    assert len(ends) == len(starts) == TRIALS
    return (max(ends) - min(starts)) / timedelta(seconds=1) / TRIALS


@pytest.mark.benchmark
@pytest.mark.timeout(3600)
def test_two_workers_of_one_thread_finish_more_trials_than_one_of_two(tmp_path: Path) -> None:
    numbers = iter(range(100))
    ratio = compare(
        "trials an hour, two workers of one thread over one of two",
        lambda: seconds_a_trial(tmp_path / str(next(numbers)), workers=2, threads=1),
        lambda: seconds_a_trial(tmp_path / str(next(numbers)), workers=1, threads=2),
        rounds=5,
    )
    assert ratio.median >= 1.1
