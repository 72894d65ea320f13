"""Which runs `bench run --resume` goes on with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench import recipe as recipes
from bench.errors import RecipeError
from bench.recipe import Recipe
from bench.record import Run, find, list_runs
from bench.run import unfinished

__all__ = ["to_resume"]


def to_resume(recipe: Path | None, changes: Iterable[str], name: str) -> tuple[Recipe, list[Run]]:
    """The recipe and the runs to go on with; [] where none was started yet. A named run's recorded recipe counts."""
    if name == "latest" and recipe is not None:
        checked = recipes.load(recipe, changes)
        begun = unfinished(checked)
        known = [run for run in list_runs(checked.experiment) if run.info()["recipe_digest"] == checked.digest]
        if known and not begun:
            raise RecipeError(f"{recipe}: {known[-1].name} is finished", hint="start a new run without --resume")
        return checked, begun
    if name == "latest":
        open_runs = [known for known in list_runs() if known.status() != "finished"]
        if not open_runs:
            raise RecipeError("no unfinished run", hint="bench runs lists what is recorded")
        chosen = open_runs[-1]
    else:
        chosen = find(name)
    info = chosen.info()
    checked = recipes.parse((chosen.folder / "recipe.toml").read_text(encoding="utf-8"), path=Path(info["recipe"]))
    return checked, [known for known in list_runs(info["experiment"]) if known.info()["group"] == info["group"]]
