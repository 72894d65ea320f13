"""The order of things in a search: space -> objectives -> storage -> study -> trials -> winner."""

from __future__ import annotations

import time
import tomllib
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from bench.errors import RecipeError
from bench.interrupts import StopRequest
from bench.progress import Progress
from bench.recipe import changed
from bench.search.board import Board, BoardProgress
from bench.search.claim import counted
from bench.search.ending import End, judge
from bench.search.loop import Watcher, work
from bench.search.mirroring import MirrorProcess
from bench.search.objectives import Constraint, Objective, constraints, objectives
from bench.search.ray_cluster import Cluster
from bench.search.ray_engine import started
from bench.search.samplers import EXHAUSTIVE, make_sampler
from bench.search.shared import Shared
from bench.search.space import Space, parse_space
from bench.search.storage import missing_file, open_storage
from bench.search.storage_errors import deleted_file
from bench.search.study import finished, open_study
from bench.search.tracking import publish
from bench.search.winner import choose, retrain
from bench.search.workers import run_workers

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage

    from bench.recipe import Recipe

__all__ = ["Setting", "prepare", "search", "work_alone"]

#: More combinations than this are hardly meant.
_MANY_COMBINATIONS = 1000


@dataclass(frozen=True, slots=True)
class Setting:
    """What a recipe says of a search, checked. `total` is the number of finished trials that it asks for."""

    recipe: Recipe
    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    total: int


def search(
    recipe: Recipe,
    *,
    trials: int | None = None,
    workers: int | None = None,
    timeout_s: float | None = None,
    storage_url: str | None = None,
    cluster: Cluster | None = None,
    sampler: str | None = None,
    new: bool = False,
    large: bool = False,
    progress: Progress | None = None,
) -> Study:
    """Search a recipe's [search.space] until `trials` are finished, then train the winner with its seeds and test it.

    The same call goes on where an earlier one has stopped, whatever stopped it. `trials`, `timeout_s` and `sampler`
    stand above the recipe's; after the timeout no trial is started. `workers` are local processes (default: one), or on
    a `cluster` of Ray the most trials at once (default: as many as it has room for). `large` allows a grid of any size.
    Raises RecipeError for what the recipe says wrongly, Interrupted, and BenchError where nothing came of the search.
    """
    progress = progress or Progress()
    setting = prepare(recipe, trials=trials, sampler=sampler, large=large)
    timeout_s = timeout_s or setting.recipe.search.timeout_s
    storage = open_storage(storage_url)
    study = open_study(storage, setting.recipe, setting.space, setting.objectives, new=new)
    _say(study, setting, progress)
    since = datetime.now()  # noqa: DTZ005  # as Optuna's times
    deadline = None if timeout_s is None else time.time() + timeout_s
    end = _run(study, setting, storage, cluster, workers=workers, url=storage_url, deadline=deadline, progress=progress)
    try:
        judge(study, end, since=since, total=setting.total, constraints=setting.constraints)
        if end == "timeout":
            progress.note(f"time is up after {finished(study)} of {setting.total} trials; the same command goes on")
        retrain(setting.recipe, study, choose(study), progress)
    finally:
        publish(study, progress)
    return study


def prepare(recipe: Recipe, *, trials: int | None = None, sampler: str | None = None, large: bool = False) -> Setting:
    """Everything that can be wrong with a recipe's search, before any file is opened. Raises RecipeError."""
    if not recipe.search.space:
        raise RecipeError(
            f"{recipe.path}: there is no [search.space]",
            hint='write [search.space] and, for example, "optimizer.lr" = {float = [1e-4, 1e-1], log = true}',
        )
    recipe = recipe if sampler is None else changed(recipe, {"search.sampler": sampler})
    space = parse_space(recipe)
    space.check(recipe)
    goals, limits = objectives(recipe), constraints(recipe)
    make_sampler(recipe.search, space, len(goals))
    total = _total(recipe, space, trials, large=large)
    # Samplers go by the number of trials, and workers are told of it by the recipe.
    recipe = recipe if total == recipe.search.trials else changed(recipe, {"search.trials": total})
    return Setting(recipe, space, goals, limits, total)


def work_alone(recipe: Recipe, *, storage_url: str | None, deadline: float | None, threads: int, board: Watcher) -> End:
    """What one of several workers does. The parent has checked the recipe and made the study."""
    total = recipe.search.trials
    setting = Setting(recipe, parse_space(recipe), objectives(recipe), constraints(recipe), total)
    if (missing := missing_file(storage_url)) is not None:
        raise deleted_file(missing)
    study = open_study(open_storage(storage_url), recipe, setting.space, setting.objectives)
    shared = Shared(recipe, progress=BoardProgress(board), threads=threads)
    return _work(study, setting, shared, deadline=deadline, board=board)


def _total(recipe: Recipe, space: Space, trials: int | None, *, large: bool) -> int:
    """As many trials as are asked for; a grid has no more than its combinations, and all of them unless told otherwise."""
    asked = trials or tomllib.loads(recipe.text).get("search", {}).get("trials")
    size = space.size()
    if recipe.search.sampler not in EXHAUSTIVE or size is None:
        return asked or recipe.search.trials
    if size > _MANY_COMBINATIONS and not large:
        raise RecipeError(
            f"{recipe.path}: the grid has {size:,} combinations",
            hint="--yes searches it all the same; --sampler tpe looks at the promising ones only",
        )
    return min(asked or size, size)


def _say(study: Study, setting: Setting, progress: Progress) -> None:
    known = counted(study)
    done = sum(trial.state.is_finished() for trial in known)
    size = setting.space.size()
    combinations = "" if size is None else f", {size:,} combinations"
    goals = ", ".join(f"{one.direction.removesuffix('imize')}. {one.metric}" for one in setting.objectives)
    progress.note(f"search {study.study_name}: {setting.total} trials, {setting.recipe.search.sampler}{combinations}")
    progress.note(f"objectives: {goals}" + "".join(f"; {limit}" for limit in setting.constraints))
    if done >= setting.total:
        all_of = f"all of its {done} trials are" if done > 1 else "its only trial is"
        progress.note(f"{all_of} finished; --trials N asks for more, --new starts afresh")
    elif known:
        waiting = len(known) - done
        progress.note(
            f"going on after {done} trials"
            + (f"; {waiting} unfinished {'is' if waiting == 1 else 'are'} taken up" if waiting else "")
        )


def _run(
    study: Study,
    setting: Setting,
    storage: RDBStorage,
    cluster: Cluster | None,
    *,
    workers: int | None,
    url: str | None,
    deadline: float | None,
    progress: Progress,
) -> End:
    """The trials, by this process, by workers or on a cluster, with a board."""
    if finished(study) >= setting.total:
        return "complete"
    recipe = setting.recipe
    with nullcontext() if cluster is None else started(cluster, recipe, storage, progress) as engine:
        # Decodes the images for this process and all workers; what is wrong with them comes out here, and once.
        shared = Shared(recipe, progress=progress)
        objectives(recipe, task=shared.data(recipe).spec.task)
        silent = type(progress) is Progress
        with Board(study.study_name, setting.objectives, total=setting.total, silent=silent) as board:
            board.show(counted(study))
            if engine is not None:
                return engine.run(recipe, study=study, workers=workers, deadline=deadline, board=board)
            if workers in {None, 1}:
                shared.progress = BoardProgress(board)
                return _work(study, setting, shared, deadline=deadline, board=board)
            return run_workers(
                recipe, study=study, storage_url=url, workers=workers or 1, deadline=deadline, board=board
            )


def _work(study: Study, setting: Setting, shared: Shared, *, deadline: float | None, board: Watcher) -> End:
    """The trials of one process."""
    with StopRequest() as should_stop, MirrorProcess(shared.progress) as mirror:
        shared.mirror, shared.should_stop = mirror, should_stop
        return work(
            study,
            shared,
            space=setting.space,
            objectives=setting.objectives,
            constraints=setting.constraints,
            total=setting.total,
            deadline=deadline,
            should_stop=should_stop,
            board=board,
        )
