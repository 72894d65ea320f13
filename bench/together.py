"""One run of several processes, started by torchrun. The first one leads; the others follow its calls in silence.

Without torchrun all of this comes down to doing it alone, and nothing of torch's distribution is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, Interrupted, RecipeError
from bench.interrupts import StopRequest
from bench.launch import launched
from bench.progress import Progress

if TYPE_CHECKING:
    from bench.environment import Machine
    from bench.plan import Plan
    from bench.recipe import Recipe
    from bench.stages.data import Data
    from bench.stages.distributed import Team

__all__ = ["call", "divided", "follow", "lead", "load_together", "require_processes"]


@contextmanager
def lead() -> Iterator[Team | None]:
    """Meet the processes that follow, and dismiss them at the end; None where there are none."""
    launch = launched()
    if launch is None:
        yield None
        return
    if launch.rank:
        raise RecipeError(
            f"process {launch.rank} of {launch.world_size} cannot lead",
            hint="torchrun is for bench run; bench search has --workers",
        )
    from bench.stages.distributed import joined

    with joined(launch) as team, team.words.heeding_torchrun():
        yield team


def divided(plan: Plan, recipe: Recipe, machine: Machine, team: Team | None) -> Plan:
    """The plan with what is divided among the processes. Raises RecipeError where a batch has too few images for that."""
    if team is None:
        return plan
    if plan.batch_size < team.size:
        raise RecipeError(
            f"train.batch_size: {plan.batch_size} cannot be divided among {team.size} processes",
            hint=f"--set train.batch_size={team.size}",
        )
    hosts, local = list(dict.fromkeys(team.hosts)), team.launch.local_world_size
    where = f"on {hosts[0]}" if len(hosts) == 1 else f"on {len(hosts)} hosts ({', '.join(hosts)})"
    backend = "nccl" if plan.device.startswith("cuda") else "gloo"
    each = f"{plan.reasons['batch_size']}; of all processes together, {team.shard.size(plan.batch_size)} each"
    plan = plan.decided(
        processes=(team.size, f"started by torchrun {where}; {backend}"), batch_size=(plan.batch_size, each)
    )
    if recipe.compute.threads != "auto":
        return plan
    return plan.decided(threads=(max(1, machine.cores // local), f"{machine.cores} cores for {local} processes"))


def require_processes(plan: Plan, team: Team | None) -> None:
    """Raise BenchError where a run was started with another number of processes: it would not end as it would have."""
    size = 1 if team is None else team.size
    if plan.processes != size:
        start = "bench run" if plan.processes == 1 else f"torchrun --nproc-per-node {plan.processes} -m bench run"
        raise BenchError(
            f"the run was started with {plan.processes} process{'es' if plan.processes > 1 else ''}, not {size}",
            hint=f"{start} ... --resume",
        )


def load_together(recipe: Recipe, plan: Plan, progress: Progress, team: Team | None) -> Data:
    """The recipe's data. With a team its other processes load them too, after one of their host has decoded them."""
    from bench.stages.setup import load_data

    if team is None:
        return load_data(recipe, plan, progress)
    if team.leads:
        team.broadcast(("data", recipe.text, str(recipe.path), plan))
    team.take_device(plan.device)
    with team.one_a_host_first():
        data = load_data(_with_its_memory(recipe, team), plan, progress)
    team.same_data(data.fingerprint)
    return data


def call(team: Team | None, plan: Plan, *, fold: int | None, seed: int) -> Team | None:
    """Call the others to a seed's training. Where nothing is trained they are not needed, and there is no team."""
    if team is None or not plan.epochs:
        return None
    team.broadcast(("train", plan, fold, seed))
    return team


def follow() -> None:
    """The whole life of a process that does not lead: it ends here with the run's exit code, by SystemExit.

    It says nothing, unless it fails and the first one does not. In any other process nothing happens.
    """
    launch, stop = launched(), StopRequest()
    if launch is None or not launch.rank:
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch reads it once; that others have gone is no news
    from bench.stages.distributed import joined
    from bench.stages.last_words import Left

    try:
        with joined(launch) as team, stop:
            _work(team, stop)
    except (Left, Interrupted) as end:
        raise SystemExit(Interrupted.exit_code if stop() else end.exit_code) from None
    raise SystemExit(0)


def _work(team: Team, stop: StopRequest) -> None:
    """Take part in every seed and fold that the first process calls to."""
    from bench.recipe import parse
    from bench.stages.result import judged
    from bench.stages.setup import make_trainer

    recipe, data = None, None
    while (called := team.broadcast()) is not None:
        if called[0] == "data":
            _, text, path, plan = called
            recipe = parse(text, path=Path(path))
            data = load_together(recipe, plan, Progress(), team)
            continue
        assert recipe is not None and data is not None  # noqa: S101, PT018  # they are called for first
        _, plan, fold, seed = called
        part = data if fold is None else data.of_fold(fold)
        trainer = make_trainer(
            recipe,
            plan,
            part,
            seed=seed,
            folder=Path(),
            progress=Progress(),
            on_epoch=lambda _number, _values: None,
            team=team,
        )
        trainer.should_stop = stop
        trainer.fit(resume=True)
        judged(trainer, part)


def _with_its_memory(recipe: Recipe, team: Team) -> Recipe:
    """The recipe with a process's part of the memory that a host has for images."""
    import psutil

    given = recipe.data.memory_gb
    budget = psutil.virtual_memory().available / 2e9 if isinstance(given, str) else given
    share = budget / team.launch.local_world_size
    return replace(recipe, data=recipe.data.model_copy(update={"memory_gb": share}))
