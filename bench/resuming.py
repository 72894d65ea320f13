"""Which runs `bench run --resume` goes on with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import recipe as recipes
from bench.errors import RecipeError
from bench.progress import Progress
from bench.recipe import Recipe
from bench.record import Run, group_of, list_runs, status_of
from bench.run import unfinished
from bench.run_info import left_out, readable
from bench.run_names import find

__all__ = ["to_resume"]


def to_resume(
    recipe: Path | None, changes: Iterable[str], name: str, *, progress: Progress | None = None
) -> tuple[Recipe, list[Run]]:
    """The recipe and the runs to go on with; [] where none was started yet. A named run's recorded recipe counts.

    Raises RecipeError where nothing is left to do, BenchError where a run to go on with has a damaged run.json.
    """
    progress = progress or Progress()
    if name == "latest" and recipe is not None:
        checked = recipes.load(recipe, changes)
        begun = unfinished(checked)
        recorded = _recorded(checked.experiment, progress)
        known = [run for run, info in recorded if info.get("recipe_digest") == checked.digest]
        if known and not begun:
            raise RecipeError(f"{recipe}: {known[-1].name} is finished", hint="start a new run without --resume")
        return checked, begun
    chosen = _latest(progress) if name == "latest" else find(name)
    path = Path(chosen.info("recipe")["recipe"])
    checked = recipes.parse((chosen.folder / "recipe.toml").read_text(encoding="utf-8"), path=path)
    return checked, group_of(chosen)


def _latest(progress: Progress) -> Run:
    """The latest run that has not come to its end; trials are their search's to go on with, as are reproductions."""
    own = [(run, info) for run, info in _recorded(None, progress) if not {"study", "reproduces"} & info.keys()]
    stopped = [run for run, info in own if status_of(info) != "finished"]
    if not stopped:
        raise RecipeError("no unfinished run", hint="bench runs lists what is recorded")
    return stopped[-1]


def _recorded(experiment: str | None, progress: Progress) -> list[tuple[Run, dict[str, Any]]]:
    """Runs with what their run.json says; those where it is damaged are told."""
    damaged: list[Run] = []
    found = list(readable(list_runs(experiment), damaged))
    if damaged:
        progress.warn(left_out(damaged))
    return found
