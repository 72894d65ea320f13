"""What pruning and a model of the objective save, on real signs: pytest -m benchmark -s tests/benchmarks/test_search_savings.py.

Nine studies of 50 trials and three of 20, five to fifteen minutes each on one core. BENCH_STUDY_SEEDS="0 1" runs fewer.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial

from bench.progress import Progress
from bench.recipe import parse
from bench.search.loop import work
from bench.search.objectives import objectives
from bench.search.space import parse_space
from bench.search.storage import open_storage
from bench.search.study import open_study
from bench.search.trial import Shared

TRIALS, EPOCHS = 50, 8

#: Trials that TPE may take for what random needs so many for.
TPE_TRIALS, RANDOM_TRIALS = 20, 40

#: Of the studies.
SEEDS = [int(seed) for seed in os.environ.get("BENCH_STUDY_SEEDS", "0 1 2").split()]

_TRAINED = f"""
[[augment]]
name = "affine"
degrees = 8.0
translate = 0.08
[train]
epochs = {EPOCHS}
monitor = "val_accuracy"
[optimizer]
name = "adamw"
[scheduler]
name = "one_cycle"
[search]
trials = {TRIALS}
[search.space]
"optimizer.lr" = {{float = [1e-4, 1e-1], log = true}}
"optimizer.weight_decay" = {{float = [1e-5, 1.0], log = true}}
"train.batch_size" = {{choice = [64, 128, 256]}}
"train.label_smoothing" = {{float = [0.0, 0.3]}}
"model.dropout" = {{float = [0.0, 0.6]}}
"augment.0.degrees" = {{float = [0.0, 30.0]}}
"augment.0.translate" = {{float = [0.0, 0.3]}}
"""

#: Half of the tracks are held out: the best of fifty is told apart on 6,500 images.
LENETS = f"""
experiment = "savings"
[dataset]
name = "gtsrb"
[data]
size = 30
validation = 0.5
[model]
name = "lenet"
{_TRAINED}
"model.activation" = {{choice = ["relu", "tanh"]}}
"model.batch_norm" = {{choice = [true, false]}}
"""

#: A network that comes to its end in so few epochs: where the best of a study is, does not hang on luck.
CONVERGING = f"""
experiment = "savings"
[dataset]
name = "gtsrb"
[data]
size = 24
validation = 0.3
[model]
name = "cnn"
channels = [16, 32, 64]
{_TRAINED}
"""


@dataclass(frozen=True, slots=True)
class Studied:
    """The best value after each trial, and the epochs of all."""

    best_so_far: tuple[float, ...]
    epochs: int

    def needed(self, value: float) -> int | None:
        """The trials until it is reached; None where it never is."""
        return next((number for number, best in enumerate(self.best_so_far, start=1) if best >= value), None)


class Silent:
    def show(self, trials: Sequence[FrozenTrial]) -> None:
        """Draws nothing."""

    def warn(self, text: str) -> None:
        raise AssertionError(text)


def finished(shared: Shared, folder: Path, trials: int) -> optuna.Study:
    """The study of the shared recipe, searched by one worker, on a storage of its own."""
    recipe = shared.recipe
    space, found = parse_space(recipe), objectives(recipe)
    study = open_study(open_storage(f"sqlite:///{folder}/{recipe.experiment}.db"), recipe, space, found)
    work(
        study,
        shared,
        space=space,
        objectives=found,
        constraints=(),
        total=trials,
        deadline=None,
        should_stop=lambda: False,
        board=Silent(),
    )
    return study


def studied(
    recipe: str, shared: Shared, folder: Path, *, sampler: str, pruner: str, seed: int, trials: int = TRIALS
) -> Studied:
    """What a whole study came to."""
    changes = [f"search.sampler={sampler}", f"search.pruner={pruner}", f"search.sampler_seed={seed}"]
    changes.append(f"experiment=savings_{sampler}_{pruner}_{trials}_{seed}")
    changes += ["search.pruner_warmup=1", f"search.trials={trials}"]
    shared.recipe = parse(recipe, path=Path("savings.toml"), changes=changes)
    study = finished(shared, folder, trials)
    best, values = 0.0, []
    for trial in study.trials:
        best = max(best, trial.value or 0.0) if trial.state == optuna.trial.TrialState.COMPLETE else best
        values.append(best)
    return Studied(tuple(values), sum(len(trial.intermediate_values) for trial in study.trials))


def shared_of(recipe: str) -> Shared:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return Shared(parse(recipe, path=Path("savings.toml")), progress=Progress(), threads=1)


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{text}\n")


@pytest.mark.benchmark
@pytest.mark.real_data
@pytest.mark.timeout(14400)
def test_pruning_keeps_the_best_for_less_than_half_of_the_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared, shares, losses = shared_of(CONVERGING), [], []
    for seed in SEEDS:
        whole = studied(CONVERGING, shared, tmp_path, sampler="gp", pruner="none", seed=seed)
        pruned = studied(CONVERGING, shared, tmp_path, sampler="gp", pruner="percentile", seed=seed)
        shares.append(pruned.epochs / whole.epochs)
        losses.append(whole.best_so_far[-1] - pruned.best_so_far[-1])
        say(
            capsys,
            f"seed {seed}: best of {TRIALS} {whole.best_so_far[-1]:.2%} in {whole.epochs} epochs, pruned "
            f"{pruned.best_so_far[-1]:.2%} in {pruned.epochs} ({shares[-1]:.0%})",
        )
    assert statistics.median(shares) <= 0.45
    assert statistics.median(losses) <= 0.002


@pytest.mark.benchmark
@pytest.mark.real_data
@pytest.mark.timeout(14400)
def test_tpe_takes_half_of_the_trials_that_random_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared, needs = shared_of(LENETS), []
    for seed in SEEDS:
        random = studied(LENETS, shared, tmp_path, sampler="random", pruner="none", seed=seed)
        tpe = studied(LENETS, shared, tmp_path, sampler="tpe", pruner="none", seed=seed, trials=TPE_TRIALS)
        reached = tpe.best_so_far[-1]
        needs.append(random.needed(reached) or TRIALS + 1)
        say(
            capsys,
            f"seed {seed}: TPE's best of {TPE_TRIALS} {reached:.2%}, random {random.best_so_far[TPE_TRIALS - 1]:.2%}, of "
            f"{TRIALS} {random.best_so_far[-1]:.2%}, reaches TPE's after "
            f"{random.needed(reached) or f'more than {TRIALS}'}",
        )
    assert statistics.median(needs) >= RANDOM_TRIALS
