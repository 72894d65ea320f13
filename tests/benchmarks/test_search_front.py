"""The front of accuracy and size on real signs, against random: pytest -m benchmark -s tests/benchmarks/test_search_front.py.

Four studies of 30 trials, from networks of 128 MB to such of 0.1 MB; about half an hour on two cores.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import optuna
import pytest
from test_search_savings import finished

from bench.progress import Progress
from bench.recipe import parse
from bench.search.front import front
from bench.search.trial import Shared

TRIALS, FEWEST_POINTS = 30, 5

RECIPE = f"""
experiment = "front"
[dataset]
name = "gtsrb"
[data]
size = 32
validation = 0.5
[model]
name = "lenet"
[train]
epochs = 3
batch_size = 64
[optimizer]
name = "adamw"
lr = 3e-3
[scheduler]
name = "one_cycle"
[search]
trials = {TRIALS}
metrics = ["val_accuracy", "size_mb"]
[search.space]
"optimizer.lr" = {{float = [5e-4, 1e-2], log = true}}
[[search.space.model.choice]]
name = "lenet"
batch_norm = {{choice = [true, false]}}
[[search.space.model.choice]]
name = "cnn"
channels = {{choice = [[4, 8], [8, 16], [8, 16, 32], [16, 32, 64], [32, 64, 128], [48, 96, 192], [64, 128, 256]]}}
convs_per_block = {{int = [1, 2]}}
[[search.space.model.choice]]
name = "mlp"
hidden = {{choice = [[64], [256], [1024], [2048, 2048], [4300, 4300]]}}
"""

#: What the volume is counted from: no accuracy, and this size.
LARGEST_MB = 128.0


def volume(points: Sequence[tuple[float, float]]) -> float:
    """Accuracy times powers of ten of size, below a front of (MB, accuracy) in the order of size."""
    sizes = [*(size for size, _ in points[1:]), LARGEST_MB]
    return sum(accuracy * math.log10(end / size) for (size, accuracy), end in zip(points, sizes, strict=True))


def minutes(study: optuna.Study) -> float:
    return sum((trial.duration or timedelta()).total_seconds() for trial in study.trials) / 60


@pytest.mark.benchmark
@pytest.mark.real_data
@pytest.mark.timeout(14400)
def test_the_front_spans_sizes_and_dominates_more_than_random(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ratios = []
    for seed in map(int, os.environ.get("BENCH_STUDY_SEEDS", "0 1").split()):
        volumes = {}
        for sampler in ("tpe", "random"):
            changes = [f"search.sampler={sampler}", f"search.sampler_seed={seed}", f"experiment=front_{sampler}_{seed}"]
            recipe = parse(RECIPE, path=Path("front.toml"), changes=changes)
            study = finished(Shared(recipe, progress=Progress(), threads=1), tmp_path, TRIALS)
            points = sorted((trial.values[1], trial.values[0]) for trial in front(study))
            volumes[sampler] = volume(points)
            with capsys.disabled():
                sys.stdout.write(
                    f"\nseed {seed}, {sampler}: hypervolume {volumes[sampler]:.3f} in {minutes(study):.0f} min; "
                )
                sys.stdout.write(", ".join(f"{size:.2f} MB {accuracy:.1%}" for size, accuracy in points) + "\n")
            assert sampler == "random" or len(points) >= FEWEST_POINTS
        ratios.append(volumes["tpe"] / volumes["random"])
    assert statistics.median(ratios) > 1
