"""What a search would be: its space, how many combinations that makes, and what it would cost, from one timed trial."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.progress import Progress

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.recipe import Recipe
    from bench.search.run_search import Setting
    from bench.stages.data import Data

__all__ = ["Estimate", "estimate", "print_estimate"]

_TIMED_EPOCHS = 2
_DRAWS = 32

#: A trial that is set up in less than this is timed twice.
_SHORT_S = 5.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of a search without pruning. `timed` are the values of the trial that was timed.

    `setup_seconds` and `epoch_seconds` are those of that trial, `epochs` the mean over trials drawn at random, `seconds`
    all trials with their share of the workers, without the winner's retraining.
    """

    timed: Mapping[str, Any]
    setup_seconds: float
    epoch_seconds: float
    epochs: float
    seconds: float


def estimate(setting: Setting, *, workers: int = 1, progress: Progress | None = None) -> Estimate:
    """Train one trial of the space for two epochs, record nothing, and extrapolate.

    Raises what such a trial would raise.
    """
    progress = progress or Progress()
    values, epochs = _drawn(setting)
    progress.note("timing one trial")
    setup_seconds, epoch_seconds = _time(setting.recipe, values, progress)
    seconds = setting.total * (setup_seconds + epochs * epoch_seconds) / max(1, min(workers, setting.total))
    return Estimate(values, setup_seconds, epoch_seconds, epochs, seconds)


def print_estimate(setting: Setting, found: Estimate, *, workers: int, as_json: bool) -> None:
    """The space, its combinations and the cost, on stdout."""
    from bench.console import duration, print_json, print_table, stdout

    size = setting.space.size()
    if as_json:
        cost = {**asdict(found), "workers": workers}
        print_json({"space": setting.space.as_json(), "combinations": size, "trials": setting.total, "cost": cost})
        return
    print_table(("key", "values", "number"), setting.space.rows(), right=(2,))
    console = stdout()
    console.print(f"combinations: {'infinitely many' if size is None else f'{size:,}'}")
    console.print(
        f"one trial: {duration(found.setup_seconds)} and {duration(found.epoch_seconds)} an epoch, "
        f"{found.epochs:.4g} epochs"
    )
    several = f" with {workers} workers, if each is as fast as one alone" if workers > 1 else ""
    trials = f"{setting.total} trial{'' if setting.total == 1 else 's'}"
    console.print(f"{trials}: about {duration(found.seconds)}{several}; pruning makes it less")


def _drawn(setting: Setting) -> tuple[dict[str, Any], float]:
    """The values of one random trial, and the mean number of epochs of several."""
    import optuna

    from bench.recipe import changed

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=setting.recipe.search.sampler_seed))
    draws = [setting.space.suggest(study.ask()) for _ in range(_DRAWS)]
    if not any(name.startswith("train") for name in draws[0]):
        return draws[0], float(setting.recipe.train.epochs)
    epochs = [changed(setting.recipe, values).train.epochs for values in draws]
    return draws[0], sum(epochs) / len(epochs)


def _time(recipe: Recipe, values: Mapping[str, Any], progress: Progress) -> tuple[float, float]:
    """Seconds of a trial beside its epochs, and of an epoch, the first one's warm-up left out."""
    from bench import environment
    from bench.plan import draft, require_files
    from bench.recipe import changed
    from bench.stages.setup import load_data, settle

    timed = changed(recipe, values)
    timed = changed(timed, {"train.epochs": min(timed.train.epochs, _TIMED_EPOCHS)})
    plan = draft(timed, environment.detect())
    require_files(plan)
    data = load_data(timed, plan, progress)
    plan = settle(timed, plan, data, progress)
    found = _time_once(timed, plan, data)
    # What the first trial of a process does once for all counts little beside long trials, and much beside short ones.
    return _time_once(timed, plan, data) if sum(found) < _SHORT_S else found


def _time_once(timed: Recipe, plan: Plan, data: Data) -> tuple[float, float]:
    from bench.stages.setup import make_trainer

    begun = time.perf_counter()
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            timed,
            plan,
            data,
            seed=0,
            folder=Path(folder),
            progress=Progress(),
            on_epoch=lambda _number, _values: ends.append(time.perf_counter()),
        )
        trainer.fit()
    whole = time.perf_counter() - begun
    if not ends:
        return whole, 0.0
    epoch_seconds = ends[-1] - ends[-2] if len(ends) > 1 else ends[0] - begun
    return max(0.0, whole - len(ends) * epoch_seconds), epoch_seconds
