"""A study in MLflow: the parent of its trials' runs carries what the study came to, and its figures."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.record import list_runs, status_of
from bench.run_info import readable
from bench.search.page import figures, render
from bench.search.summary import summarise
from bench.search.wording import counts, name_of, params_text, pruning, setting, time_spent, value_text, winner_text
from bench.svg import standalone
from bench.tracking import OFF, connect, sync, tracking_uri, translated

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from optuna import Study

    from bench.progress import Progress
    from bench.record import Run

__all__ = ["publish"]

_METRICS_A_CALL, _TAGS_A_CALL = 1000, 100

#: States of trials -> what MLflow calls a study whose trials are all of these.
_OPEN = ("running", "waiting")


def publish(study: Study, progress: Progress) -> str | None:
    """Bring the study's parent run in MLflow up to date; returns MLflow's run id, None where that was not possible.

    Nothing is ever logged twice, so that it can be called at any time and by several processes. Tracking never ends a
    search: what goes wrong is a warning.
    """
    uri = tracking_uri()
    if uri == OFF or not study.user_attrs.get("id"):
        return None
    try:
        with translated(uri):
            return _published(study, connect(uri), uri)
    except BenchError as error:
        progress.warn(f"MLflow is not up to date ({error}). Nothing is lost: bench search --show fills it in later")
        return None


def _published(study: Study, client: MlflowClient, uri: str) -> str:
    from bench.tracking.parent import find_or_create_parent
    from bench.tracking.store import experiment_of

    summary = summarise(study)
    experiment = experiment_of(client, study.user_attrs.get("experiment") or study.study_name, uri)
    run_id = find_or_create_parent(client, experiment, study.user_attrs["id"], name=study.study_name)
    if client.get_run(run_id).info.lifecycle_stage != "active":  # a person has deleted it
        return run_id
    _log_tags(client, run_id, study, summary)
    _log_history(client, run_id, study, summary)
    _log_artifacts(client, run_id, summary)
    _fill_gaps(study, uri)
    is_open = any(summary["states"][state] for state in _OPEN)
    if is_open:
        client.update_run(run_id, "RUNNING")
    else:
        ended = max((int(1000 * t.timestamp()) for t in _ends(study)), default=time.time_ns() // 1_000_000)
        client.set_terminated(run_id, "FINISHED", ended)
    return run_id


def _fill_gaps(study: Study, uri: str) -> None:
    """Mirror the study's ended runs that MLflow does not know to the end: who was to do it has been killed."""
    for run, info in readable(list_runs(study.user_attrs.get("experiment") or study.study_name)):
        if info.get("parent") == study.user_attrs["id"] and status_of(info) != "running" and _is_behind(run):
            sync(run, uri=uri)


def _is_behind(run: Run) -> bool:
    try:
        known = json.loads((run.folder / "mlflow.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return known.get("status") in {None, "", "RUNNING"}


def _log_tags(client: MlflowClient, run_id: str, study: Study, summary: Mapping[str, Any]) -> None:
    """The space as parameters; states, the winner and its parameters as tags, which may change from call to call."""
    from mlflow.entities import Param, RunTag

    entry = client.get_run(run_id)
    params = {f"space.{key}": json.dumps(spec) for key, spec in (study.user_attrs.get("space") or {}).items()}
    params["metrics"] = ", ".join(f"{one['metric']} ({one['direction']})" for one in summary["objectives"])
    new = [Param(key, text[:6000]) for key, text in params.items() if key not in entry.data.params]
    tags = {f"visionbench.trials.{state}": str(count) for state, count in summary["states"].items()}
    for which in ("best", "knee"):
        tags |= _winner_tags(which, summary)
    for winner in summary["winners"]:
        tags[f"visionbench.retrained.{winner['trial']}"] = winner_text(winner)
    tags["mlflow.note.content"] = _note(summary)
    stale = [
        key for key in entry.data.tags if key.startswith(("visionbench.best.", "visionbench.knee.")) and key not in tags
    ]
    for key in stale:
        client.delete_tag(run_id, key)
    entries = [RunTag(key, value[:8000]) for key, value in tags.items()]
    for start in range(0, max(len(new), len(entries)), _TAGS_A_CALL):
        end = start + _TAGS_A_CALL
        client.log_batch(run_id, params=new[start:end], tags=entries[start:end], synchronous=True)


def _winner_tags(which: str, summary: Mapping[str, Any]) -> dict[str, str]:
    number = summary[which]
    if number is None:
        return {}
    row = next(row for row in summary["trials"] if row["number"] == number)
    pairs = zip(summary["objectives"], row["values"], strict=True)
    tags = {f"visionbench.{which}.{one['metric']}": f"{value:.6g}" for one, value in pairs}
    tags |= {f"visionbench.{which}.{key}": setting(value) for key, value in row["params"].items()}
    return {**tags, f"visionbench.{which}": str(number), f"visionbench.{which}.run": str(row["run"] or "")}


def _log_history(client: MlflowClient, run_id: str, study: Study, summary: Mapping[str, Any]) -> None:
    """The best so far of each objective, a step a trial; MLflow keeps one of two equal entries."""
    from mlflow.entities import Metric

    ended = {trial.number: trial.datetime_complete for trial in study.get_trials(deepcopy=False)}
    known = {
        name: {entry.step for entry in client.get_metric_history(run_id, name)}
        for name in (f"best_{one['metric']}" for one in summary["objectives"])
    }
    entries: list[Metric] = []
    for one in summary["history"]:
        moment = ended[one["number"]]
        at = int(1000 * moment.timestamp()) if moment else 0
        for objective, value in zip(summary["objectives"], one["best"], strict=True):
            name = f"best_{objective['metric']}"
            if one["number"] not in known[name]:
                entries.append(Metric(name, value, at, one["number"]))
    for start in range(0, len(entries), _METRICS_A_CALL):
        client.log_batch(run_id, metrics=entries[start : start + _METRICS_A_CALL], synchronous=True)


def _log_artifacts(client: MlflowClient, run_id: str, summary: Mapping[str, Any]) -> None:
    """The page, the summary and each figure, which replace those of an earlier call."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "figures").mkdir()
        (folder / "search.html").write_text(render(summary), encoding="utf-8")
        (folder / "search.json").write_text(json.dumps(summary, indent=2, default=str), encoding="utf-8")
        for name, (_, _, svg) in figures(summary).items():
            (folder / "figures" / f"{name}.svg").write_text(standalone(svg), encoding="utf-8")
        client.log_artifacts(run_id, place)


def _note(summary: Mapping[str, Any]) -> str:
    """The study in Markdown: counts, and the front or the best trial."""
    names = [one["metric"] for one in summary["objectives"]]
    lines = [line for line in (counts(summary), time_spent(summary), pruning(summary)) if line]
    lines += [winner_text(one) for one in summary["winners"]]
    lines += [summary["noise"]["text"]] if summary["noise"] else []
    shown = summary["front"] or ([] if summary["best"] is None else [summary["best"]])
    heads = ["trial", *map(name_of, names), "parameters"]
    table = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"] if shown else []
    for number in shown:
        row = next(row for row in summary["trials"] if row["number"] == number)
        values = [value_text(name, value) for name, value in zip(names, row["values"], strict=True)]
        mark = f"{number} (knee)" if number == summary["knee"] else str(number)
        table.append(f"| {' | '.join([mark, *values, params_text(row['params'])])} |")
    return "\n\n".join([*lines, "\n".join(table)])


def _ends(study: Study) -> list[Any]:
    return [trial.datetime_complete for trial in study.get_trials(deepcopy=False) if trial.datetime_complete]
