"""`bench data`: look at a recipe's dataset, say what is wrong with it, and write the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, DataError
from bench.exploration.doctor import Finding, examine
from bench.exploration.held_out import divided
from bench.exploration.opening import open_recipe
from bench.exploration.page import render
from bench.exploration.summary import summarise
from bench.exploration.survey import Survey, survey
from bench.files import write_text

if TYPE_CHECKING:
    from bench.progress import Progress
    from bench.recipe import Recipe

__all__ = ["Exploration", "check", "explore", "show"]


@dataclass(frozen=True, slots=True, eq=False)
class Exploration:
    """What was found out about a dataset; `summary` holds plain values."""

    recipe: Recipe
    survey: Survey
    summary: dict[str, Any]
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything, with every file of every finding."""
        return {
            "recipe": str(self.recipe.path),
            "experiment": self.recipe.experiment,
            "dataset": self.recipe.dataset.name,
            **self.summary,
            "findings": [finding.as_json(self.survey) for finding in self.findings],
        }


def explore(recipe: Recipe, progress: Progress) -> Exploration:
    """Look at every image of the recipe's dataset. Raises DataError where the dataset is missing."""
    dataset, root = open_recipe(recipe)
    seen = survey(
        dataset,
        root,
        max_megapixels=recipe.data.max_megapixels,
        report=lambda done, total: progress.advance("looking at images", done, total),
    )
    parts = None
    try:
        seen, parts = divided(seen, recipe.data)
    except BenchError as error:
        progress.warn(f"the splits that a run would make are not known: {error}")
    findings = examine(seen, recipe.data.image_size, progress)
    return Exploration(recipe, seen, summarise(seen, parts), findings)


def show(recipe: Recipe, *, html: Path | None, as_json: bool, progress: Progress) -> tuple[Finding, ...]:
    """Explore, print, and write the page to `html` (default: data_EXPERIMENT.html here). Returns the findings.

    Raises DataError where the dataset is missing or the page cannot be written.
    """
    found = explore(recipe, progress)
    path = html or Path(f"data_{recipe.experiment}.html")
    progress.note("drawing the page")
    page = render(recipe, found.survey, found.summary, found.findings)
    try:
        write_text(path, page)
    except OSError as cause:
        raise DataError(f"{path}: cannot be written: {cause.strerror}", hint="--html PATH names another") from cause
    if as_json:
        from bench.console import print_json

        print_json({**found.as_json(), "page": str(path.resolve())})
    else:
        from bench.exploration.terminal import print_exploration

        print_exploration(found, path.resolve())
    return found.findings


def check(findings: Sequence[Finding]) -> None:
    """Raise DataError (exit code 1) where there are leaks or images that cannot be read."""
    serious = [f"{finding.count:,} {finding.title}" for finding in findings if finding.severity == "error"]
    if serious:
        raise DataError("; ".join(serious), hint="each finding says what to do about it; the page shows the images")
