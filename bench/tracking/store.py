"""One run's folder -> one run of MLflow, step by step, so that a kill loses and repeats nothing."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.files import write_json
from bench.tracking import facts, logged_model
from bench.tracking.inputs import inputs
from bench.tracking.metrics import final, milliseconds, points
from bench.tracking.note import REPORT
from bench.tracking.parent import log_parent
from bench.tracking.view import log_view

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from bench.record import Run

__all__ = ["experiment_of", "fill", "milliseconds", "open_state", "sqlite_file", "without_password"]

_STATUSES = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "pruned": "KILLED",
}

#: Run files that MLflow keeps, those that change all the time only at the end. The weights go into its model.
_EARLY = ("recipe.toml", "plan.json")
_LATE = ("evaluation.json", "manifest.json", "metrics.jsonl", "run.json", REPORT)
_FOLDERS = ("predictions", "figures")

#: MLflow's limits for one call.
_METRICS_A_CALL, _WORDS_A_CALL = 1000, 100


def open_state(client: MlflowClient, run: Run, uri: str) -> dict[str, Any]:
    """What mlflow.json says where it is of this store; otherwise MLflow's run with this id, found or created."""
    from mlflow.exceptions import MlflowException

    try:
        state: dict[str, Any] = json.loads((run.folder / "mlflow.json").read_text(encoding="utf-8"))
        if state["uri"] == without_password(uri):
            state["alive"] = client.get_run(state["run_id"]).info.lifecycle_stage == "active"
            return state
    except (OSError, ValueError, KeyError):  # missing or torn
        pass
    except MlflowException as cause:
        if cause.error_code != "RESOURCE_DOES_NOT_EXIST":  # a store that was made anew
            raise
    state = {"uri": without_password(uri), **_find_or_create(client, run, uri)}
    state |= {"status": "", "facts": "", "epochs": [], "metrics": {}, "artifacts": {}, "model": {}}
    write_json(run.folder / "mlflow.json", state)
    return state


def _find_or_create(client: MlflowClient, run: Run, uri: str) -> dict[str, Any]:
    from mlflow.entities import ViewType

    info = run.info("id", "created")
    experiment = experiment_of(client, info["experiment"], uri)
    mine = f"tags.`visionbench.id` = '{info['id']}'"
    found = client.search_runs([experiment], mine, run_view_type=ViewType.ALL, max_results=1)
    if found:
        entry = found[0]
    else:
        tags, created = {"visionbench.id": info["id"]}, milliseconds(info["created"])
        entry = client.create_run(experiment, run_name=run.name, start_time=created, tags=tags)
    alive = entry.info.lifecycle_stage == "active"
    return {"run_id": entry.info.run_id, "experiment_id": experiment, "alive": alive}


def experiment_of(client: MlflowClient, name: str, uri: str) -> str:
    """MLflow's id of the experiment of this name, made on first use. Raises BenchError where a person deleted it."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        path = sqlite_file(uri)
        folder = re.sub(r"[^\w.-]", "_", name)
        place = (path.parent / "mlruns" / folder).as_uri() if path else None
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:  # otherwise another process was faster
                raise
    if found.lifecycle_stage == "deleted":
        raise BenchError(f"the experiment {name!r} was deleted in MLflow", hint="restore it there, or rename yours")
    return str(found.experiment_id)


def fill(client: MlflowClient, run: Run, state: dict[str, Any]) -> None:
    """Log what is new, step by step; each step is noted down as soon as it is done."""
    info = run.info()
    # The final metrics come before the epochs' where both are there: MLflow's plots begin with the first it was given.
    for step in (
        *(_log_view, _log_parent, _log_facts, _log_metrics, _log_epochs),
        *(_log_status, _log_artifacts, _log_model),
    ):
        before = json.dumps(state)
        step(client, run, info, state)
        if json.dumps(state) != before:
            write_json(run.folder / "mlflow.json", state)


def _log_view(client: MlflowClient, run: Run, info: dict[str, Any], state: dict[str, Any]) -> None:
    """The experiment's page compares its runs at once."""
    log_view(client, run, info, state)


def _log_parent(client: MlflowClient, _run: Run, info: dict[str, Any], state: dict[str, Any]) -> None:
    """A trial's run stands below that of its study."""
    log_parent(client, info, state)


def _log_facts(client: MlflowClient, run: Run, info: dict[str, Any], state: dict[str, Any]) -> None:
    """Parameters, tags, description and dataset, where what they are made from has changed."""
    from mlflow.entities import Param, RunTag

    mark = " ".join(_mark(run.folder / name) for name in ("recipe.toml", "plan.json", "run.json", REPORT)).rstrip()
    if mark == state["facts"]:
        return
    known = client.get_run(state["run_id"]).data.params
    undecided = {"auto"} if info["status"] == "running" else set()  # MLflow's parameters cannot be changed
    new = [Param(k, v) for k, v in facts.parameters(run).items() if k not in known and v not in undecided]
    tags = [RunTag(key, value) for key, value in facts.describe(run).items()]
    for start in range(0, max(len(new), len(tags)), _WORDS_A_CALL):
        end = start + _WORDS_A_CALL
        client.log_batch(state["run_id"], params=new[start:end], synchronous=True)
        client.log_batch(state["run_id"], tags=tags[start:end], synchronous=True)
    if data := info.get("dataset"):
        client.log_inputs(state["run_id"], datasets=inputs(data))
    state["facts"] = mark


def _log_epochs(client: MlflowClient, run: Run, _info: dict[str, Any], state: dict[str, Any]) -> None:
    """Lines of metrics.jsonl are told apart by their time: a resumed run may have written an epoch anew."""
    known = set(state["epochs"])
    lines = [line for line in run.epochs() if line["time"] not in known]
    values = [item for line in lines for item in points(line["values"], line["time"], line["epoch"])]
    for start in range(0, len(values), _METRICS_A_CALL):
        client.log_batch(state["run_id"], metrics=values[start : start + _METRICS_A_CALL], synchronous=True)
    state["epochs"] += [line["time"] for line in lines]


def _log_metrics(client: MlflowClient, run: Run, info: dict[str, Any], state: dict[str, Any]) -> None:
    """The final metrics, as the latest values: they are what MLflow's tables show."""
    values = info.get("metrics") or {}
    if not values or values == state["metrics"]:
        return
    client.log_batch(state["run_id"], metrics=final(run, info), synchronous=True)
    state["metrics"] = values


def _log_artifacts(client: MlflowClient, run: Run, info: dict[str, Any], state: dict[str, Any]) -> None:
    names = _EARLY if info["status"] == "running" else _EARLY + _LATE
    paths = [run.folder / name for name in names]
    paths += [path for folder in _FOLDERS for path in sorted((run.folder / folder).rglob("*"))]
    for path in paths:
        name, mark = path.relative_to(run.folder), _mark(path)
        if path.is_file() and not path.name.startswith(".") and mark != state["artifacts"].get(name.as_posix()):
            parent = name.parent.as_posix()
            client.log_artifact(state["run_id"], str(path), None if parent == "." else parent)
            state["artifacts"][name.as_posix()] = mark


def _log_model(client: MlflowClient, run: Run, info: dict[str, Any], state: dict[str, Any]) -> None:
    """The weights as a model of MLflow that `mlflow.pyfunc.load_model` loads; there is no pickle in it."""
    from mlflow.entities import LoggedModelOutput

    weights = run.folder / "model.safetensors"
    mark = _mark(weights)
    if info["status"] != "finished" or not mark or mark == state["model"].get("mark"):
        return
    run_id, experiment = state["run_id"], state["experiment_id"]
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = 'model'", max_results=1)
    entry = found[0] if found else client.create_logged_model(experiment, name="model", source_run_id=run_id)
    with tempfile.TemporaryDirectory() as place:
        logged_model.package(run, Path(place) / "model", model_id=entry.model_id, run_id=run_id)
        client.log_model_artifacts(entry.model_id, str(Path(place) / "model"))
    outputs = client.get_run(run_id).outputs
    if entry.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else ())]:
        client.log_outputs(run_id, [LoggedModelOutput(entry.model_id, step=0)])
    client.log_batch(run_id, metrics=final(run, info, model_id=entry.model_id), synchronous=True)
    client.finalize_logged_model(entry.model_id, "READY")
    state["model"] = {"id": entry.model_id, "mark": mark}


def _log_status(client: MlflowClient, _run: Run, info: dict[str, Any], state: dict[str, Any]) -> None:
    status = _STATUSES[info["status"]]
    if status == state["status"]:
        return
    if status == "RUNNING":
        client.update_run(state["run_id"], status)
    else:
        client.set_terminated(state["run_id"], status, milliseconds(info["ended"]))
    state["status"] = status


def sqlite_file(uri: str) -> Path | None:
    """The database's file, None for other stores."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def without_password(text: str) -> str:
    """An address without its user and password."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _mark(path: Path) -> str:
    """Tells a changed file from an unchanged one; "" where there is none."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"
