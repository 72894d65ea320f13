"""What a trial costs beside its training: pytest -m benchmark -s tests/benchmarks/test_search_overhead.py."""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial

from bench import record
from bench.progress import Progress
from bench.recipe import Recipe, changed, parse
from bench.search.loop import work
from bench.search.mirroring import MirrorProcess
from bench.search.objectives import objectives
from bench.search.space import parse_space
from bench.search.storage import open_storage
from bench.search.study import open_study
from bench.search.trial import Shared
from bench.stages.setup import make_trainer

TRIALS = 50

#: Milliseconds of record, MLflow and Optuna a trial.
LIMIT_MS = 150.0

RECIPE = """
experiment = "tiny"
[dataset]
name = "digits"
[data]
size = 8
[model]
name = "cnn"
channels = [8, 16]
convs_per_block = 1
[train]
epochs = 5
batch_size = 128
[search]
trials = 50
[search.space]
"optimizer.lr" = {float = [1e-3, 1e-1], log = true}
"optimizer.weight_decay" = {float = [1e-5, 1e-1], log = true}
"train.label_smoothing" = {float = [0.0, 0.2]}
"""


class Silent:
    def show(self, trials: Sequence[FrozenTrial]) -> None:
        """Draws nothing."""

    def warn(self, text: str) -> None:
        raise AssertionError(text)


class Warned(Progress):
    def warn(self, text: str) -> None:
        raise AssertionError(text)


def search(recipe: Recipe, shared: Shared, total: int, folder: Path) -> list[FrozenTrial]:
    """A study of its own on sqlite, with a mirror in MLflow, as the command line runs it with one worker."""
    space, found = parse_space(recipe), objectives(recipe)
    storage = open_storage(f"sqlite:///{folder / 'search.db'}")
    study = open_study(storage, recipe, space, found)
    with MirrorProcess(shared.progress) as shared.mirror:
        work(
            study,
            shared,
            space=space,
            objectives=found,
            constraints=(),
            total=total,
            deadline=None,
            should_stop=lambda: False,
            board=Silent(),
        )
    return study.trials


def bare(shared: Shared, trials: Sequence[FrozenTrial], folder: Path) -> list[float]:
    """Seconds of the same trainings, as many epochs of each, with nothing around them: no files, no study."""
    durations = []
    for trial in trials:
        recipe = changed(shared.recipe, trial.params)
        data = shared.data(recipe)
        plan = shared.plan(recipe, data)
        left = len(trial.intermediate_values)

        class Enough(Exception):
            pass

        def count(number: int, _: dict[str, float], last: int = left) -> None:
            if number == last:
                raise Enough

        start = time.perf_counter()
        trainer = make_trainer(recipe, plan, data, seed=0, folder=folder, progress=Progress(), on_epoch=count)
        trainer.keeper.every_s = float("inf")
        with pytest.raises(Enough):
            trainer.fit()
        durations.append(time.perf_counter() - start)
    return durations


@pytest.mark.benchmark
@pytest.mark.parametrize("pruner", ["none", "median"])
def test_a_trial_costs_little_beside_its_training(
    pruner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_TRACKING", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    recipe = parse(RECIPE, path=Path("tiny.toml"), changes=[f"search.pruner={pruner}"])
    shared = Shared(recipe, progress=Warned(), threads=1)
    first = tmp_path / "first"
    first.mkdir()
    search(recipe, shared, 2, first)  # loads MLflow and makes its store
    start = time.perf_counter()
    trials = search(recipe, shared, TRIALS, tmp_path)
    whole = time.perf_counter() - start
    rounds = [bare(shared, trials, tmp_path) for _ in range(3)]
    training = statistics.median(sum(durations) for durations in rounds)
    overhead_ms = (whole - training) / TRIALS * 1e3
    epochs = sum(len(trial.intermediate_values) for trial in trials)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{pruner}: {TRIALS} trials, {epochs} epochs; a trial {whole / TRIALS * 1e3:.0f} ms, "
            f"its training {training / TRIALS * 1e3:.0f} ms, overhead {overhead_ms:.0f} ms (limit {LIMIT_MS:.0f})\n"
        )
    mirrored = [run for run in record.list_runs() if (run.folder / "mlflow.json").is_file()]
    assert len(mirrored) == TRIALS + 2
    assert overhead_ms <= LIMIT_MS
