"""The run of a trial: recorded like any other, trained as long as the pruner lets it, taken up again after a kill."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import record
from bench.errors import BenchError, Interrupted
from bench.interrupts import StopRequest
from bench.record import Run
from bench.run import record_run, recorded_plan

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

    from bench.plan import Plan
    from bench.recipe import Recipe
    from bench.search.objectives import Constraint, Objective
    from bench.search.pruning import Curve
    from bench.search.shared import Shared
    from bench.stages.data import Data

__all__ = ["Job", "Pruned", "trained"]

#: A checkpoint a trial in so many seconds: a kill then costs no more than that, and a tiny trial writes none.
_CHECKPOINT_EVERY_S = 3.0

_NAME = re.compile(r"-t(\d+)-")


class Pruned(Exception):
    """Ends the training of a trial that is not worth it."""


@dataclass(slots=True)
class Job:
    """A trial on its way."""

    shared: Shared
    study: Study
    trial: Trial
    objectives: Sequence[Objective]
    constraints: Sequence[Constraint]
    recipe: Recipe
    data: Data
    frozen: FrozenTrial
    curve: Curve
    costs: dict[str, float] = field(default_factory=dict)
    run: Run | None = None


def trained(job: Job) -> dict[str, float]:
    """The trial's metrics: those of its run; under the pruner for seeds and folds, the means over its runs."""
    recipe = job.recipe
    folds: Sequence[int | None] = range(job.data.num_folds) if job.data.num_folds else [None]
    several = job.shared.recipe.search.pruner == "wilcoxon"
    parts = [(fold, seed) for fold in folds for seed in recipe.seeds] if several else [(folds[0], recipe.seeds[0])]
    found: list[dict[str, float]] = []
    for number, (fold, seed) in enumerate(parts):
        run = _run(job, fold, seed)
        job.run = job.run or run
        found.append(_finished(job, run) or _train(job, run, fold, by_epoch=not several))
        if several and job.curve.metric in found[-1]:
            job.curve.report(number, found[-1][job.curve.metric])
            if number + 1 < len(parts) and job.curve.should_prune():
                raise Pruned
    return {
        name: statistics.fmean(one[name] for one in found) for name in found[0] if all(name in one for one in found)
    }


def _run(job: Job, fold: int | None, seed: int) -> Run:
    """The run that a killed process has begun, or a new one. The study knows its name before it exists."""
    facts = job.shared.study_facts(job.study)
    first, number = job.frozen.user_attrs.get("run"), job.trial.number
    if first and (named := _NAME.search(first)):  # queued again under another number
        number = int(named[1])
    group, experiment = facts["group"], job.recipe.experiment
    name = record.run_name(group, seed=seed, fold=fold, trial=number)
    folder = record.folder_of(experiment, name)
    if (folder / "run.json").is_file():
        return Run(folder.resolve())
    if not first and job.run is None:
        job.trial.set_user_attr("run", name)
    data = job.data if fold is None else job.data.of_fold(fold)
    return record_run(
        job.recipe,
        job.shared.plan(job.recipe, data, fold=fold),
        data,
        group=group,
        seed=seed,
        fold=fold,
        trial=number,
        surroundings=job.shared.surroundings,
        study=job.study.study_name,
        parent=facts.get("id"),
        params=job.trial.params,
        costs=job.costs,
    )


def _finished(job: Job, run: Run) -> dict[str, float] | None:
    """What a run came to that had ended before its trial was told; None where it is to be trained."""
    info = run.info()
    if info["status"] not in {"finished", "pruned", "failed"}:
        return None
    _mirror(job, run)
    if info["status"] == "pruned":
        raise Pruned
    if info["status"] == "failed":
        raise BenchError(info["error"])
    metrics: dict[str, float] = info["metrics"]
    return metrics


def _train(job: Job, run: Run, fold: int | None, *, by_epoch: bool) -> dict[str, float]:
    """Train a run from its start, or its last checkpoint, to the end of its record."""
    from bench.stages.result import write_result
    from bench.stages.setup import make_trainer

    data = job.data if fold is None else job.data.of_fold(fold)
    info = run.info()
    if info["process"] != record.this_process() or info["status"] != "running":
        run.update(status="running", process=record.this_process())
    with _recorded(job, run):
        trainer = make_trainer(
            job.recipe,
            _on_this_device(job, recorded_plan(run)),
            data,
            seed=info["seed"],
            folder=run.checkpoints,
            progress=job.shared.progress,
            on_epoch=lambda number, values: _epoch(job, run, number, values, by_epoch=by_epoch),
        )
        trainer.keeper.every_s = _CHECKPOINT_EVERY_S
        for line in run.epochs() if by_epoch and job.curve.metric else ():  # a killed process may not have told them
            job.curve.report(line["epoch"], line["values"][job.curve.metric])
        with _stopping(job.shared) as trainer.should_stop:
            outcome = trainer.fit(resume=True)
        metrics = {**job.costs, **write_result(run, trainer, data, outcome)}
        run.finish("finished", metrics=metrics)
    return metrics


def _epoch(job: Job, run: Run, number: int, values: dict[str, float], *, by_epoch: bool) -> None:
    """Record an epoch, and end the training where the pruner says so and there is something left to save."""
    run.log_epoch(number, values)
    metric = job.curve.metric
    if not by_epoch or metric is None:
        return
    job.curve.report(number, values[metric])
    if number < job.recipe.train.epochs and job.curve.should_prune():
        job.shared.progress.end_training()
        raise Pruned


@contextmanager
def _recorded(job: Job, run: Run) -> Iterator[None]:
    """Close the record of a run that does not come to its end, and bring MLflow up to date, once."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except Pruned:
        lines = run.epochs()
        run.finish("pruned", metrics={**job.costs, **lines[-1]["values"], "epochs": float(len(lines))})
        raise
    except (Interrupted, KeyboardInterrupt):
        run.finish("interrupted", error="stopped by a person or the system")
        raise
    except (OptunaError, SQLAlchemyError):
        run.finish("interrupted", error="the study's storage did not answer")
        raise
    except Exception as error:
        failure = _named(job, error)
        run.finish("failed", error=str(failure) or type(failure).__name__)
        raise failure from error
    finally:
        _mirror(job, run)


def _named(job: Job, error: Exception) -> Exception:
    """An error as a person should read it; out of memory is a property of the trial's sizes."""
    from bench.stages.memory import is_out_of_memory

    if not is_out_of_memory(error):
        return error
    size = job.recipe.train.batch_size
    return BenchError(f"out of memory: {job.recipe.model.name} with batches of {size} is too large for this machine")


def _mirror(job: Job, run: Run) -> None:
    if job.shared.mirror is not None:
        job.shared.mirror.watch(run)


@contextmanager
def _stopping(shared: Shared) -> Iterator[Callable[[], bool]]:
    """The worker's wish to stop, or signals; one that comes too late for the training still stops the trial."""
    if shared.should_stop is not None:
        yield shared.should_stop
        return
    with StopRequest() as stop:
        yield stop
    if stop():
        raise Interrupted("stopped", hint="go on with the same command")


def _on_this_device(job: Job, plan: Plan) -> Plan:
    """A recorded plan on the device that this worker has: another one of a kind may have begun."""
    device = job.shared.draft(job.recipe).device
    same_kind = device.partition(":")[0] == plan.device.partition(":")[0]
    return plan.decided(device=(device, "dealt out")) if same_kind and device != plan.device else plan
