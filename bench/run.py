"""The order of things: recipe -> plan -> data -> train -> evaluate -> record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import environment, record
from bench.errors import BenchError, Interrupted
from bench.interrupts import StopRequest
from bench.plan import Plan, draft, from_json, require_files
from bench.progress import Progress
from bench.registry import find
from bench.tracking import Mirror

if TYPE_CHECKING:
    from bench.recipe import Recipe
    from bench.record import Run
    from bench.stages.data import Data

__all__ = ["resume", "run", "unfinished"]


@dataclass(frozen=True, slots=True)
class _Bench:
    """What the seeds of one recipe share."""

    recipe: Recipe
    plan: Plan
    data: Data
    machine: environment.Machine
    group: str
    progress: Progress
    mirror: Mirror


def run(recipe: Recipe, *, progress: Progress | None = None) -> list[Run]:
    """Train, evaluate and record a recipe, once for each of its seeds. Returns the runs' folders."""
    from bench.stages.setup import load_data, settle

    progress = progress or Progress()
    machine = environment.detect()
    plan = draft(recipe, machine)
    require_files(plan)
    data = load_data(recipe, plan, progress)
    plan = settle(recipe, plan, data, progress)
    with Mirror(progress) as mirror:
        bench = _Bench(recipe, plan, data, machine, record.new_group(), progress, mirror)
        return [_run_seed(bench, _new_run(bench, seed)) for seed in plan.seeds]


def resume(recipe: Recipe, begun: Sequence[Run], *, progress: Progress | None = None) -> list[Run]:
    """Finish a group of runs: go on with those that were stopped, start the seeds that are missing.

    The plan is the recorded one, so that a run on the CPU ends with the weights that it would have had. Raises
    BenchError where the dataset is not the recorded one.
    """
    from bench.stages.setup import load_data

    progress = progress or Progress()
    for known in begun:
        if known.status() == "running":
            raise BenchError(f"{known.name} is still running", hint="wait for it, or stop it first")
    plan = from_json(json.loads((begun[0].folder / "plan.json").read_text(encoding="utf-8")))
    data = load_data(recipe, plan, progress)
    info = begun[0].info()
    if info["dataset"]["fingerprint"] != data.fingerprint:
        raise BenchError(
            f"{plan.dataset_root}: the dataset has changed since {begun[0].name} was started",
            hint="restore the dataset, or start a new run without --resume",
        )
    by_seed = {run.info()["seed"]: run for run in begun}
    with Mirror(progress) as mirror:
        bench = _Bench(recipe, plan, data, environment.detect(), info["group"], progress, mirror)
        return [_go_on(bench, seed, by_seed.get(seed)) for seed in plan.seeds]


def unfinished(recipe: Recipe) -> list[Run]:
    """The latest group of runs of this very recipe that has not come to its end; [] where there is none."""
    groups: dict[str, list[Run]] = {}
    for known in record.list_runs(recipe.experiment):
        info = known.info()
        if info["recipe_digest"] == recipe.digest:
            groups.setdefault(info["group"], []).append(known)
    for group in reversed(groups.values()):
        if sum(known.status() == "finished" for known in group) < len(recipe.seeds):
            return group
    return []


def _go_on(bench: _Bench, seed: int, begun: Run | None) -> Run:
    if begun is not None and begun.status() == "finished":
        return begun
    return _run_seed(bench, begun or _new_run(bench, seed))


def _new_run(bench: _Bench, seed: int) -> Run:
    recipe, data = bench.recipe, bench.data
    named = [("datasets", recipe.dataset), ("models", recipe.model), *(("augmentations", a) for a in recipe.augment)]
    plugins = [find(kind, chosen.name) for kind, chosen in named]
    return record.create(
        recipe.experiment,
        group=bench.group,
        seed=seed,
        recipe_text=recipe.text,
        plan=bench.plan.as_json(),
        recipe=str(recipe.path),
        recipe_digest=recipe.digest,
        objective=recipe.train.monitor,
        dataset={
            "name": recipe.dataset.name,
            "root": bench.plan.dataset_root,
            "fingerprint": data.fingerprint,
            "counts": data.counts(),
            "skipped": list(data.skipped),
        },
        plugins=[{k: getattr(p, k) for k in ("kind", "name", "target", "distribution", "version")} for p in plugins],
        git=environment.git_state(recipe.path.parent),
        environment=environment.describe(bench.machine),
    )


def _run_seed(bench: _Bench, run: Run) -> Run:
    """One seed from its start, or its last checkpoint, to the end of its record."""
    from bench.stages.figures import draw_run
    from bench.stages.result import write_result
    from bench.stages.setup import augmentations, make_trainer

    bench.mirror.watch(run)
    bench.progress.note(f"run {run.name}" + (f", seed {run.info()['seed']}" if len(bench.plan.seeds) > 1 else ""))
    run.update(status="running", process=record.this_process())
    try:
        trainer = make_trainer(
            bench.recipe,
            bench.plan,
            bench.data,
            seed=run.info()["seed"],
            folder=run.checkpoints,
            progress=bench.progress,
            on_epoch=lambda number, values: _log_epoch(bench, run, number, values),
        )
        with StopRequest() as trainer.should_stop:
            outcome = trainer.fit(resume=True)
        metrics = write_result(run, trainer, bench.data, outcome)
        draw_run(run, bench.data, augmentations(bench.recipe), best_epoch=outcome.best_epoch)
        run.finish("finished", metrics=metrics)
    except (Interrupted, KeyboardInterrupt) as error:
        run.finish("interrupted", error="stopped by a person or the system")
        raise Interrupted(f"run {run.name} stopped", hint="go on with the same command and --resume") from error
    except Exception as error:
        failure = _explain(bench, error)
        run.finish("failed", error=str(failure) or type(failure).__name__)
        raise failure from error
    finally:
        bench.mirror.touch()
    return run


def _log_epoch(bench: _Bench, run: Run, number: int, values: dict[str, float]) -> None:
    run.log_epoch(number, {**values, **environment.load(bench.plan.device)})
    bench.mirror.touch()


def _explain(bench: _Bench, error: Exception) -> Exception:
    """Out of memory becomes an error that names the batch size that fits; anything else stays as it is."""
    from bench.stages.memory import explain, is_out_of_memory
    from bench.stages.setup import build_model, class_loss, make_batches

    if not is_out_of_memory(error):
        return error
    parts = (bench.recipe, bench.plan, bench.data)
    return explain(error, build_model(*parts), make_batches(*parts, "train"), class_loss(*parts))
