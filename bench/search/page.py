"""The page of a study: one HTML file that needs no network and no script."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.files import write_text
from bench.search.parallel import parallel_plot
from bench.search.plots import curves_plot, front_plot, history_plot, importances_plot
from bench.search.summary import summarise
from bench.search.wording import (
    counts,
    missed_text,
    name_of,
    params_text,
    pruning,
    reference_text,
    setting,
    time_spent,
    value_text,
    winner_text,
)

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["figures", "render", "write_study_page"]

_MOST_TRIALS = 1000

#: How a trial's state is coloured.
_BADGES = {"complete": "good", "pruned": "note", "infeasible": "warning", "failed": "error"}


def write_study_page(study: Study, path: Path) -> None:
    """Write the page of a study, whole or not at all. Raises BenchError where that is impossible."""
    try:
        write_text(path, render(summarise(study)))
    except OSError as cause:
        raise BenchError(f"{path}: cannot be written: {cause.strerror}", hint="--html PATH names another") from cause


def figures(summary: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Name -> (title, explanation, inline SVG); what there is nothing to draw for is left out."""
    names = [one["metric"] for one in summary["objectives"]]
    found: dict[str, tuple[str, str, str | None]] = {}
    for across in range(1, len(names)):
        title = f"Front: {name_of(names[0])} against {name_of(names[across])}"
        text = "Of the trials on the front none is beaten in every objective. The knee is the one nearest to the ideal."
        found[f"front_{names[across]}"] = (title, text, front_plot(summary, across))
    for index, name in enumerate(names[:1]):
        found["history"] = ("History", f"{name_of(name).capitalize()} by trial.", history_plot(summary, index))
    text = "Which parameters decide whether a trial is among the best (PED-ANOVA); shares of 100 %."
    found["importances"] = ("Importances", text, importances_plot(summary))
    text = "What the trials reported on the way; pruning judges these curves."
    found["curves"] = ("Curves", text, curves_plot(summary))
    text = (
        "A line a trial, through its parameters to its objectives: the stronger, the better; the chosen ones in orange."
    )
    found["parallel"] = ("Parallel coordinates", text, parallel_plot(summary))
    return {name: (title, text, drawn) for name, (title, text, drawn) in found.items() if drawn}


def render(summary: Mapping[str, Any]) -> str:
    """The page's HTML, from what `summarise` gives. Everything from outside is escaped; the summary is in it to download."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = figures(summary)
    wide = drawn.pop("parallel", None)
    rows = {row["number"]: row for row in summary["trials"]}
    chosen = summary["front"] or ([] if summary["best"] is None else [summary["best"]])
    return environment.get_template(
        "page.html.jinja"
    ).render(
        summary=summary,
        heads=[name_of(one["metric"]) for one in summary["objectives"]],
        lines=[line for line in (counts(summary), time_spent(summary), pruning(summary)) if line],
        tiles=_tiles(summary, rows),
        nearest=summary["nearest"] and missed_text(summary["nearest"]["constraints"]),
        chosen=[_row(summary, rows[number]) for number in chosen],
        shown_params=_shown_params(summary, rows),
        winners=[winner_text(one) for one in summary["winners"]],
        reference=reference_text(summary),
        plots=[(title, text, Markup(svg)) for title, text, svg in drawn.values()],  # noqa: S704  # our own SVG
        wide=wide and (wide[0], wide[1], Markup(wide[2])),  # noqa: S704
        trials=[_row(summary, row) for row in summary["trials"][:_MOST_TRIALS]],
        hidden=max(0, len(summary["trials"]) - _MOST_TRIALS),
        download=base64.b64encode(json.dumps(summary, indent=2, default=str).encode()).decode(),
    )


def _tiles(summary: Mapping[str, Any], rows: Mapping[int, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(number, caption): the best values, then the counts."""
    tiles = []
    chosen = summary["best"]
    if chosen is not None:
        pairs = zip(summary["objectives"], rows[chosen]["values"], strict=True)
        tiles += [(value_text(one["metric"], value), name_of(one["metric"])) for one, value in pairs]
        tiles = [(value, f"{caption}, trial {chosen}") for value, caption in tiles[:1]]
    if summary["front"]:
        tiles += [(str(len(summary["front"])), "trials on the front"), (f"trial {summary['knee']}", "the knee")]
    tiles += [(f"{count:,}", state) for state, count in summary["states"].items() if count]
    return tiles


def _shown_params(summary: Mapping[str, Any], rows: Mapping[int, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The parameters of the knee, or of the best trial."""
    number = summary["best"] if summary["knee"] is None else summary["knee"]
    if number is None:
        return None
    params = [(key, setting(value)) for key, value in rows[number]["params"].items()]
    return {"number": number, "what": "the best" if summary["knee"] is None else "the knee", "params": params}


def _row(summary: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    names = [one["metric"] for one in summary["objectives"]]
    values = row["values"] or [None] * len(names)
    marks = [("best", row["number"] == summary["best"]), ("knee", row["number"] == summary["knee"])]
    return {
        "number": row["number"],
        "state": row["state"],
        "badge": _BADGES.get(row["state"], "note"),
        "values": ["" if v is None else value_text(name, v) for name, v in zip(names, values, strict=False)],
        "epochs": row["epochs"] or "",
        "seconds": "" if row["seconds"] is None else f"{row['seconds']:,.1f}",
        "params": params_text(row["params"]),
        "run": row["run"] or "",
        "marks": [name for name, is_so in marks if is_so],
    }
