"""How MLflow shows an experiment at first sight: as model training, with a saved view that compares its runs.

MLflow keeps saved views as tags of the experiment; its address takes one by name. The view is written once an
experiment, and again by a newer version; one that a person has changed in MLflow stays as it is.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from bench.record import Run

__all__ = ["RUNS_VIEW", "SEARCH_VIEW", "log_view", "page_of", "view_of"]

#: The views' names in MLflow's addresses: that of runs, and that of a search's trials.
RUNS_VIEW, SEARCH_VIEW = "visionbench", "visionbench-search"

_VIEW_TAG = "mlflow.sharedViewState."

#: MLflow's own pages for language models are no place for these runs.
_KIND = {"mlflow.experimentKind": "custom_model_development"}

#: Unix ms. It marks the views of this version; a person who changes one in MLflow gives it a later time of change.
_VERSION = 1_795_600_000_000

_CLASSES, _PAIRS = ("test_macro_f1", "test_ece"), ("test_auroc", "test_eer")
_COSTS = ("parameters", "train_seconds")
_CURVES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "lr")
_PARAMS = ("model.name", "data.size", "optimizer.lr", "train.epochs")

#: Of a column, in pixels: wide enough for its head.
_WIDTH = 125


def log_view(client: MlflowClient, run: Run, info: Mapping[str, Any], state: dict[str, Any]) -> None:
    """Give the run's experiment its kind and its view, unless the run's mlflow.json says that it has them."""
    name, value = view_of(run, info)
    if state.get("view") == f"{name} {_VERSION}":
        return
    identity = state["experiment_id"]
    tags = client.get_experiment(identity).tags
    for key, kind in _KIND.items():
        if key not in tags:
            client.set_experiment_tag(identity, key, kind)
    known = tags.get(f"{_VIEW_TAG}{name}")
    if known is None or (known != value and _is_ours(known)):
        client.set_experiment_tag(identity, f"{_VIEW_TAG}{name}", value)
    state["view"] = f"{name} {_VERSION}"


def page_of(run: Run, uri: str) -> str:
    """What to add to MLflow's address to come to the run's experiment in its view; "" where MLflow does not have it."""
    try:
        state = json.loads((run.folder / "mlflow.json").read_text(encoding="utf-8"))
        if state["uri"] != uri:
            return ""
        view = str(state.get("view", "")).partition(" ")[0]
        query = f"workflowType=machine_learning{f'&viewStateShareKey={view}' if view else ''}"
        return f"/#/experiments/{state['experiment_id']}/runs?{query}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def view_of(run: Run, info: Mapping[str, Any]) -> tuple[str, str]:
    """The view's name and what MLflow keeps of it: for a trial, axes and columns are the keys that the search varies."""
    search: dict[str, Any] = {}
    if info.get("trial") is not None:
        search = tomllib.loads((run.folder / "recipe.toml").read_text(encoding="utf-8")).get("search", {})
    if search.get("space"):
        goals = tuple(search.get("metrics") or (info.get("objective") or "val_accuracy",))
        state = _state(goals, others=(), params=tuple(search["space"]))
        return SEARCH_VIEW, _envelope("Trials", state)
    pairs = "pairs" in str(info.get("dataset", {}).get("name")) or "threshold" in (info.get("metrics") or {})
    return RUNS_VIEW, _envelope(
        "Runs", _state(("test_accuracy",), others=_PAIRS if pairs else _CLASSES, params=_PARAMS)
    )


def _state(goals: tuple[str, ...], *, others: tuple[str, ...], params: tuple[str, ...]) -> dict[str, Any]:
    """Columns, and charts: parallel coordinates, goals and costs as bars or curves, and the other curves."""
    shown = (*goals, *others)
    chosen = [f"params.`{name}`" for name in params]
    metrics = [f"metrics.`{name}`" for name in dict.fromkeys((*shown, "val_accuracy", *_COSTS))]
    columns = [*chosen[:1], *metrics, *chosen[1:], "attributes.`Source`", "attributes.`Dataset`"]
    parallel = {"selectedParams": list(params), "selectedMetrics": list(goals), "showAllRuns": False}
    curves = [name for name in _CURVES if name not in goals]
    charts = [_chart("PARALLEL", "parallel", "comparison", **parallel)]
    bars = dict.fromkeys((*shown, *_COSTS))
    charts += [_line(name, "comparison") if name.startswith("val_") else _bar(name, "comparison") for name in bars]
    charts += [_line(name, "curves") for name in curves]
    return {
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, _WIDTH),
        "compareRunCharts": charts,
        "compareRunSections": [_section("comparison", "Comparison"), _section("curves", "Curves")],
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
    }


def _bar(name: str, section: str) -> dict[str, Any]:
    return _chart("BAR", name, section, metricKey=name)


def _line(name: str, section: str) -> dict[str, Any]:
    """A curve over epochs, as it is: MLflow would smooth it."""
    axis = {"xAxisKey": "step", "useGlobalXaxisKey": True, "lineSmoothness": 0, "useGlobalLineSmoothing": True}
    return _chart("LINE", name, section, metricKey=name, **axis)


def _chart(kind: str, name: str, section: str, **options: Any) -> dict[str, Any]:
    return {"type": kind, "uuid": f"bench-{name}", "metricSectionId": section, "deleted": False, **options}


def _section(key: str, title: str) -> dict[str, Any]:
    return {"uuid": key, "name": title, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}


def _envelope(name: str, state: Mapping[str, Any]) -> str:
    return json.dumps({"name": name, "createdAt": _VERSION, "updatedAt": _VERSION, "state": json.dumps(state)})


def _is_ours(value: str) -> bool:
    """Whether a saved view is as some version of this module wrote it."""
    try:
        known = json.loads(value)
        return bool(known["createdAt"] == known["updatedAt"])
    except (ValueError, KeyError, TypeError):
        return False
