"""The data page: one HTML file that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.exploration import pictures

if TYPE_CHECKING:
    from bench.exploration.doctor import Finding
    from bench.exploration.survey import Survey
    from bench.recipe import Recipe

__all__ = ["render"]

_MOST_LISTED = 500  # cases of a finding that the page names; --json has all
_MOST_CLASSES = 100


def render(recipe: Recipe, survey: Survey, summary: Mapping[str, Any], findings: Sequence[Finding]) -> str:
    """The page's HTML. Everything that comes from files or names is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda value: f"{value:,.0f}"
    environment.filters["percent"] = lambda value: f"{100 * value:.2f}%"
    return environment.get_template("page.html.jinja").render(
        experiment=recipe.experiment,
        dataset=recipe.dataset.name,
        summary=summary,
        verification=summary["task"] == "verification",
        classes=_classes(summary),
        hidden_classes=max(0, len(summary["classes"]) - _MOST_CLASSES),
        findings=[_finding(survey, finding) for finding in findings],
        samples=pictures.samples(survey),
        pairs=pictures.pairs(survey),
        augmented=pictures.augmented(recipe, survey),
        augmentations=[chosen.name for chosen in recipe.augment],
    )


def _classes(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line a class: its count in each split, with the bar's length, and its brightness where it has one."""
    counts = summary["divided"] or {name: split["classes"] for name, split in summary["splits"].items()}
    largest = max((count for classes in counts.values() for count in classes.values()), default=1)
    return [
        {
            "name": name,
            "bars": [(split, classes[name], classes[name] / max(largest, 1)) for split, classes in counts.items()],
            "brightness": summary["brightness"].get(name),
        }
        for name in summary["classes"][:_MOST_CLASSES]
    ]


def _finding(survey: Survey, finding: Finding) -> dict[str, Any]:
    values = finding.as_json(survey)
    return {
        **values,
        "cases": values["cases"][:_MOST_LISTED],
        "unlisted": max(0, len(finding.cases) - _MOST_LISTED),
        "rows": pictures.of_cases(survey, finding.cases),
    }
