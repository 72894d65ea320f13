"""Rerun a recorded run from its folder: the recorded recipe, plan, seed and fold, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import record
from bench import run as stages
from bench.errors import BenchError, Interrupted, RecipeError
from bench.places import find_root, find_weights
from bench.plan import Plan, require_files
from bench.record import Run
from bench.reproduction.changes import Change, changes, require_plugins
from bench.reproduction.data import Opened, check_data, fresh_cache
from bench.reproduction.evidence import Evidence, collect
from bench.together import lead

if TYPE_CHECKING:
    from bench.environment import Machine
    from bench.progress import Progress
    from bench.recipe import Recipe
    from bench.stages.data import Data
    from bench.stages.distributed import Team

__all__ = ["Prepared", "Rerun", "prepare", "rerun_all"]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A recorded run, ready to be rerun: `plan` is the recorded one as far as it can hold here."""

    run: Run
    info: dict[str, Any]
    recipe: Recipe
    plan: Plan
    evidence: Evidence
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Rerun:
    """A recorded run and its rerun. `failure` is the error that both ended with, `other_data` that the images differ."""

    prepared: Prepared
    run: Run
    other_data: bool
    failure: str = ""


def prepare(run: Run, *, device: str | None, machine: Machine, progress: Progress) -> Prepared:
    """Read a run's record and fit its plan to this machine.

    Raises BenchError where the record is not enough to rerun it, PluginError where a plugin has gone, RecipeError where
    the recorded device or weights are not here.
    """
    info, status = run.info(), run.status()
    if status == "running":
        raise BenchError(f"{run.name} is still running", hint="wait for it, or stop it first")
    if status in {"interrupted", "pruned"} and not run.epochs():
        raise BenchError(
            f"{run.name} was stopped before its first epoch ended: there is nothing to compare a rerun with",
            hint=f"bench run --resume {run.name} finishes it",
        )
    require_plugins(run)
    recipe = _recipe(run, info)
    plan = _here(_plan(run), recipe, info["seed"], device, machine)
    if plan.threads is not None and plan.threads > machine.cores:
        cores = f"{machine.cores} core{'s' if machine.cores > 1 else ''}"
        progress.warn(
            f"{run.name} was recorded with {plan.threads} threads and this machine has {cores}: the threads are kept, as "
            "they decide about the last bits, and it takes longer"
        )
    return Prepared(run, info, recipe, plan, collect(run), changes(run, plan, machine))


def rerun_all(prepared: Sequence[Prepared], *, any_data: bool, progress: Progress) -> list[Rerun]:
    """Rerun each, one after the other; what shared a group shares one again. Every dataset is looked at first.

    Raises DataError where a dataset is not the recorded one, unless `any_data`; Interrupted where somebody stops it.
    """
    with lead() as team, fresh_cache(prepared, alone=team is None):
        for one in prepared:
            _require_processes(one, team)
        opened = Opened(progress, team)
        same = [check_data(one, opened.data(one), any_data=any_data) for one in prepared]
        groups: dict[tuple[Any, ...], str] = {}
        reruns = []
        for one, is_same in zip(prepared, same, strict=True):
            # The trials of a search share their group and their seed: each has a group of its own here.
            key = one.info["experiment"], one.info["group"], one.info.get("trial")
            group = groups.setdefault(key, record.new_group())
            reruns.append(_rerun(one, opened.data(one), group, progress, team, other_data=not is_same))
        return reruns


def _require_processes(prepared: Prepared, team: Team | None) -> None:
    """Raise RecipeError where a run was made by another number of processes: it would not come to the same."""
    size, recorded = 1 if team is None else team.size, prepared.plan.processes
    if size != recorded:
        start = "bench" if recorded == 1 else f"torchrun --nproc-per-node {recorded} -m bench"
        raise RecipeError(
            f"{prepared.run.name} was trained by {recorded} process{'es' if recorded > 1 else ''}, not {size}",
            hint=f"{start} reproduce {prepared.run.name}",
        )


def _recipe(run: Run, info: dict[str, Any]) -> Recipe:
    from bench.recipe import parse

    path = run.folder / "recipe.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise BenchError(
            f"{path}: cannot be read: {cause}", hint="restore the file from where it was copied"
        ) from cause
    return replace(parse(text, path=Path(info["recipe"])), experiment=info["experiment"])


def _plan(run: Run) -> Plan:
    try:
        return stages.recorded_plan(run)
    except (OSError, ValueError, TypeError) as cause:
        raise BenchError(
            f"{run.folder / 'plan.json'}: not a plan that this version can read: {cause}",
            hint="restore the file, or install the version of visionbench that run.json names",
        ) from cause


def _here(plan: Plan, recipe: Recipe, seed: int, device: str | None, machine: Machine) -> Plan:
    """The recorded plan with the places where data and weights lie here, and another device where one is asked for."""
    choices: dict[str, tuple[Any, str]] = {"seeds": ((seed,), "the recorded run's")}
    if not Path(plan.dataset_root).exists():
        choices["dataset_root"] = find_root(recipe.root or recipe.dataset.name)
    if plan.weights and not Path(plan.weights).is_file():
        choices["weights"] = find_weights(recipe.weights)
    wanted = device or plan.device
    _require_device(wanted, machine)
    if wanted != plan.device:
        choices["device"] = wanted, "asked for"
        if wanted == "cpu" and plan.precision == "fp16":
            choices["precision"] = "fp32", "fp16 needs CUDA"
    fitted = plan.decided(**choices)
    require_files(fitted)
    return fitted


def _require_device(wanted: str, machine: Machine) -> None:
    """Raise RecipeError where a device is not here."""
    if wanted == "cpu":
        return
    if not machine.gpu:
        raise RecipeError(
            f"the run is to be on {wanted}, but torch sees no CUDA device",
            hint="--device cpu reruns it on the CPU and compares by test",
        )
    import torch

    if int(wanted.partition(":")[2] or 0) >= (count := torch.cuda.device_count()):
        raise RecipeError(f"the run is to be on {wanted}, but this machine has {count}", hint="--device cuda")


def _rerun(
    prepared: Prepared, data: Data, group: str, progress: Progress, team: Team | None, *, other_data: bool
) -> Rerun:
    info = prepared.info
    seed, fold = info["seed"], info.get("fold")
    try:
        made = stages.rerun(
            prepared.recipe,
            prepared.plan,
            data,
            group=group,
            seed=seed,
            fold=fold,
            progress=progress,
            team=team,
            reproduces=prepared.run.name,
        )
    except Interrupted as error:
        raise Interrupted(str(error), hint=f"bench reproduce {prepared.run.name} starts again") from error
    except BenchError as error:
        if info["status"] != "failed" or info.get("error") != str(error):
            raise
        failed = record.folder_of(info["experiment"], record.run_name(group, seed=seed, fold=fold))
        return Rerun(prepared, Run(failed.resolve()), other_data, str(error))
    return Rerun(prepared, made, other_data)
