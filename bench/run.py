"""The order of things: recipe -> plan -> data -> train -> evaluate -> record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench import environment, record
from bench.errors import BenchError, Interrupted
from bench.interrupts import StopRequest
from bench.plan import Plan, draft, from_json, require_files
from bench.progress import Progress
from bench.registry import find
from bench.run_info import readable
from bench.together import call, divided, follow, lead, load_together, require_processes
from bench.tracking import Mirror

if TYPE_CHECKING:
    from bench.recipe import Recipe
    from bench.record import Run
    from bench.stages.data import Data
    from bench.stages.distributed import Team

__all__ = ["follow", "record_run", "recorded_plan", "rerun", "resume", "run", "surroundings", "unfinished"]


@dataclass(frozen=True, slots=True)
class _Bench:
    """What the seeds of one recipe share. Where the dataset has folds, so has the recipe, a bench for each."""

    recipe: Recipe
    plan: Plan
    data: Data
    machine: environment.Machine
    group: str
    progress: Progress
    mirror: Mirror
    fold: int | None = None
    team: Team | None = None


def run(recipe: Recipe, *, progress: Progress | None = None) -> list[Run]:
    """Train, evaluate and record a recipe, once for each fold and seed. Returns the runs' folders."""
    from bench.stages.setup import settle

    progress = progress or Progress()
    machine = environment.detect()
    plan = draft(recipe, machine)
    require_files(plan)
    with lead() as team:
        plan = divided(plan, recipe, machine, team)
        data = load_together(recipe, plan, progress, team)
        plan = settle(recipe, plan, data, progress)
        with Mirror(progress) as mirror:
            bench = _Bench(recipe, plan, data, machine, record.new_group(), progress, mirror, team=team)
            return [_run_seed(part, _new_run(part, seed)) for part in _folds(bench) for seed in plan.seeds]


def resume(recipe: Recipe, begun: Sequence[Run], *, progress: Progress | None = None) -> list[Run]:
    """Finish a group of runs: go on with those that were stopped, start the seeds that are missing.

    The plan is the recorded one, so that a run on the CPU ends with the weights that it would have had. Raises
    BenchError where the dataset is not the recorded one.
    """
    progress = progress or Progress()
    for run_ in begun:
        if run_.status() == "running":
            raise BenchError(f"{run_.name} is still running", hint="wait for it, or stop it first")
    plan, info = recorded_plan(begun[0]), begun[0].info()
    known = {(run.info().get("fold"), run.info()["seed"]): run for run in begun}
    with lead() as team:
        require_processes(plan, team)
        data = load_together(recipe, plan, progress, team)
        if info["dataset"]["fingerprint"] != data.fingerprint:
            raise BenchError(
                f"{plan.dataset_root}: the dataset has changed since {begun[0].name} was started",
                hint="restore the dataset, or start a new run without --resume",
            )
        with Mirror(progress) as mirror:
            bench = _Bench(recipe, plan, data, environment.detect(), info["group"], progress, mirror, team=team)
            return [_go_on(part, seed, known.get((part.fold, seed))) for part in _folds(bench) for seed in plan.seeds]


def rerun(
    recipe: Recipe,
    plan: Plan,
    data: Data,
    *,
    group: str,
    seed: int,
    fold: int | None,
    progress: Progress,
    team: Team | None = None,
    **info: Any,
) -> Run:
    """Train, evaluate and record one run by a settled plan; `info` joins what its run.json says."""
    with Mirror(progress) as mirror:
        bench = _Bench(recipe, plan, data, environment.detect(), group, progress, mirror, fold, team)
        return _run_seed(bench, _new_run(bench, seed, **info))


def unfinished(recipe: Recipe) -> list[Run]:
    """The latest group of runs of this very recipe that has not come to its end, trials of a search and reproductions
    left out; [] where there is none. Raises BenchError where one of its runs has a damaged run.json.
    """
    groups: dict[str, list[Run]] = {}
    for known, info in readable(record.list_runs(recipe.experiment)):
        if info.get("recipe_digest") == recipe.digest and not {"study", "reproduces"} & info.keys():
            groups.setdefault(info["group"], []).append(known)
    for group in reversed(groups.values()):
        asked_for = len(recipe.seeds) * (recorded_plan(group[0]).num_folds or 1)
        if sum(known.status() == "finished" for known in group) < asked_for:
            return record.group_of(group[0])
    return []


def recorded_plan(run: Run) -> Plan:
    """The plan that a run was started with."""
    return from_json(json.loads((run.folder / "plan.json").read_text(encoding="utf-8")))


def _folds(bench: _Bench) -> Iterator[_Bench]:
    """The bench itself; or, where the dataset has folds, one for each, with the data and the plan of its own.

    The machine's choices are those of the first fold: each is calibrated once.
    """
    from bench.stages.setup import settle

    if not bench.plan.num_folds:
        yield bench
        return
    first = bench.plan
    # All are divided before the first one trains: one that cannot be is known at once.
    for fold, data in enumerate([bench.data.of_fold(fold) for fold in range(bench.plan.num_folds)]):
        bench.progress.note(f"fold {fold}: {data.describe()}")
        plan = settle(bench.recipe, first, data, bench.progress)
        yield replace(bench, plan=plan, data=data, fold=fold)


def _go_on(bench: _Bench, seed: int, begun: Run | None) -> Run:
    if begun is None:
        return _run_seed(bench, _new_run(bench, seed))
    if begun.status() == "finished":
        return begun
    return _run_seed(replace(bench, plan=recorded_plan(begun)), begun)


def record_run(
    recipe: Recipe,
    plan: Plan,
    data: Data,
    *,
    group: str,
    seed: int,
    surroundings: Mapping[str, Any],
    fold: int | None = None,
    trial: int | None = None,
    **info: Any,
) -> Run:
    """Make a run's folder with everything that is known before it starts; `surroundings` come from that function."""
    named = [("datasets", recipe.dataset), ("models", recipe.model), *(("augmentations", a) for a in recipe.augment)]
    plugins = [find(kind, chosen.name) for kind, chosen in named]
    return record.create(
        recipe.experiment,
        group=group,
        seed=seed,
        fold=fold,
        trial=trial,
        recipe_text=recipe.text,
        plan=plan.as_json(),
        recipe=str(recipe.path),
        recipe_digest=recipe.digest,
        objective=recipe.train.monitor,
        dataset={
            "name": recipe.dataset.name,
            "root": plan.dataset_root,
            "fingerprint": data.fingerprint,
            "counts": data.counts(),
            "skipped": list(data.skipped),
        },
        plugins=[{k: getattr(p, k) for k in ("kind", "name", "target", "distribution", "version")} for p in plugins],
        **surroundings,
        **info,
    )


def surroundings(recipe: Recipe, machine: environment.Machine) -> dict[str, Any]:
    """What is recorded of the world around a run: the state of git, versions, hardware."""
    return {"git": environment.git_state(recipe.path.parent), "environment": environment.describe(machine)}


def _new_run(bench: _Bench, seed: int, **info: Any) -> Run:
    return record_run(
        bench.recipe,
        bench.plan,
        bench.data,
        group=bench.group,
        seed=seed,
        fold=bench.fold,
        surroundings=surroundings(bench.recipe, bench.machine),
        **(info | ({"hosts": bench.team.hosts} if bench.team else {})),
    )


def _run_seed(bench: _Bench, run: Run) -> Run:
    """One seed from its start, or its last checkpoint, to the end of its record."""
    from bench.stages.figures import draw_run
    from bench.stages.memory import explain_run
    from bench.stages.result import write_result
    from bench.stages.setup import augmentations, make_trainer

    bench.mirror.watch(run)
    fold = f", fold {bench.fold} of {bench.plan.num_folds}" if bench.fold is not None else ""
    bench.progress.note(f"run {run.name}{fold}" + (f", seed {run.info()['seed']}" if len(bench.plan.seeds) > 1 else ""))
    run.update(status="running", process=record.this_process())
    try:
        seed = run.info()["seed"]
        trainer = make_trainer(
            bench.recipe,
            bench.plan,
            bench.data,
            seed=seed,
            folder=run.checkpoints,
            progress=bench.progress,
            on_epoch=lambda number, values: _log_epoch(bench, run, number, values),
            team=call(bench.team, bench.plan, fold=bench.fold, seed=seed),
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
        team = bench.team
        failure = team.explain(error) if team else explain_run(error, bench.recipe, bench.plan, bench.data)
        run.finish("failed", error=str(failure) or type(failure).__name__)
        raise failure from error
    finally:
        bench.mirror.touch()
    return run


def _log_epoch(bench: _Bench, run: Run, number: int, values: dict[str, float]) -> None:
    run.log_epoch(number, {**values, **environment.load(bench.plan.device)})
    bench.mirror.touch()
