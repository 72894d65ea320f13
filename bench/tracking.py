"""MLflow as a mirror of the runs' folders: whatever it lacks is filled in from them, during a run or years later.

mlflow.json in a run's folder says what MLflow has already. It may be lost: nothing is ever logged twice.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
import threading
import time
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bench.errors import BenchError
from bench.files import write_json

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from numpy.typing import NDArray

    from bench.progress import Progress
    from bench.record import Run

__all__ = ["OFF", "Mirror", "sync", "tracking_uri"]

#: The tracking URI that switches MLflow off.
OFF = "off"

_STATUSES = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}

#: Run files that MLflow keeps, those that change all the time only at the end. The weights go into its model.
_EARLY, _LATE = ("recipe.toml", "plan.json"), ("evaluation.json", "manifest.json", "metrics.jsonl", "run.json")
_FOLDERS = ("predictions", "figures")

#: What MLflow is told where the user's environment does not say otherwise: be quiet, phone nobody, give up early.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}

#: Warnings about MLflow's own code, on loading it: nobody who uses it can do anything about them.
_NOISE = (".*Any type hint is inferred as AnyType", "The ``noload`` loader strategy is deprecated")

#: MLflow's limits for one call and for a parameter's length.
_METRICS_A_CALL, _WORDS_A_CALL, _PARAM_LENGTH = 1000, 100, 6000

_LOCK_TIMEOUT_S = 120.0
_RETRY_AFTER_S = 15.0


def tracking_uri() -> str:
    """Where MLflow keeps its runs: MLFLOW_TRACKING_URI, or mlflow.db in the current folder; "off" for nowhere."""
    if os.environ.get("BENCH_TRACKING", "").lower() == OFF:
        return OFF
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    path = _sqlite_file(uri)
    return f"sqlite:///{path.as_posix()}" if path else uri


def sync(run: Run, *, uri: str | None = None) -> str:
    """Bring MLflow up to date with a run's folder and return MLflow's run id. What is there already is left alone.

    A run that somebody deleted in MLflow stays deleted. Raises BenchError where MLflow cannot be reached.
    """
    uri = uri or tracking_uri()
    if uri == OFF:
        raise BenchError("tracking is switched off", hint="unset BENCH_TRACKING")
    with _translated(uri), _lock(run.folder.parent / f".{run.name}.lock"):
        client = connect(uri)
        state = _open(client, run, uri)
        if state["alive"]:
            _fill(client, run, state)
        return str(state["run_id"])


class Mirror:
    """Keeps MLflow up to date from a thread of its own; a run neither waits for MLflow nor fails because of it."""

    def __init__(self, progress: Progress, *, enabled: bool = True) -> None:
        self._progress = progress
        self._uri = tracking_uri() if enabled else OFF
        self._run: Run | None = None
        self._pending: dict[Path, Run] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = self._warned = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def watch(self, run: Run) -> None:
        """Mirror this run from now on; one that was watched before is still brought to its end."""
        self._run = run
        if self._uri != OFF and self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()
        self.touch()

    def touch(self) -> None:
        """The watched run has changed. Returns at once."""
        if self._run is not None:
            with self._lock:
                self._pending[self._run.folder] = self._run
            self._wake.set()

    def close(self, *, run_done_timeout_s: float = 60.0) -> None:
        """Wait until MLflow has everything, but no longer than this."""
        if self._thread is None:
            return
        self._closing = True
        self._wake.set()
        self._thread.join(run_done_timeout_s)
        if self._thread.is_alive():
            self._warn(f"it has not taken everything within {run_done_timeout_s:g} s")
        self._thread = None

    def _work(self) -> None:
        not_before = 0.0
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing
            if closing or time.monotonic() >= not_before:
                with self._lock:
                    runs, self._pending = self._pending, {}
                failed = [run for run in runs.values() if not self._sync(run)]
                with self._lock:
                    self._pending = {**{run.folder: run for run in failed}, **self._pending}
                if failed:
                    not_before = time.monotonic() + _RETRY_AFTER_S
            if closing:
                return

    def _sync(self, run: Run) -> bool:
        try:
            sync(run, uri=self._uri)
        except Exception as error:  # noqa: BLE001  # tracking must never end a run
            self._warn(str(error))
            return False
        return True

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self._progress.warn(f"MLflow is not up to date ({why}). Nothing is lost: bench sync fills it in later")


def connect(uri: str) -> MlflowClient:
    """A client; a SQLite store that does not exist yet is created by one process only."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
    path = _sqlite_file(uri)
    with _lock(path.with_name(f"{path.name}.lock")) if path else nullcontext():
        from mlflow import MlflowClient

        return MlflowClient(uri)


def _open(client: MlflowClient, run: Run, uri: str) -> dict[str, Any]:
    """What mlflow.json says where it is of this store; otherwise MLflow's run with this id, found or created."""
    from mlflow.exceptions import MlflowException

    try:
        state: dict[str, Any] = json.loads((run.folder / "mlflow.json").read_text(encoding="utf-8"))
        if state["uri"] == _without_password(uri):
            state["alive"] = client.get_run(state["run_id"]).info.lifecycle_stage == "active"
            return state
    except (OSError, ValueError, KeyError):  # missing or torn
        pass
    except MlflowException as cause:
        if cause.error_code != "RESOURCE_DOES_NOT_EXIST":  # a store that was made anew
            raise
    state = {"uri": _without_password(uri), **_find_or_create(client, run, uri)}
    state |= {"status": "", "facts": "", "epochs": [], "metrics": {}, "artifacts": {}, "model": {}}
    write_json(run.folder / "mlflow.json", state)
    return state


def _find_or_create(client: MlflowClient, run: Run, uri: str) -> dict[str, Any]:
    from mlflow.entities import ViewType

    info = run.info()
    experiment = _experiment(client, info["experiment"], uri)
    mine = f"tags.`visionbench.id` = '{info['id']}'"
    found = client.search_runs([experiment], mine, run_view_type=ViewType.ALL, max_results=1)
    if found:
        entry = found[0]
    else:
        tags, created = {"visionbench.id": info["id"]}, _milliseconds(info["created"])
        entry = client.create_run(experiment, run_name=run.name, start_time=created, tags=tags)
    alive = entry.info.lifecycle_stage == "active"
    return {"run_id": entry.info.run_id, "experiment_id": experiment, "alive": alive}


def _experiment(client: MlflowClient, name: str, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        path = _sqlite_file(uri)
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


def _fill(client: MlflowClient, run: Run, state: dict[str, Any]) -> None:
    """Log what is new, step by step; each step is noted down as soon as it is done."""
    info = run.info()
    for step in (_log_facts, _log_epochs, _log_metrics, _log_status, _log_artifacts, _log_model):
        before = json.dumps(state)
        step(client, run, info, state)
        if json.dumps(state) != before:
            write_json(run.folder / "mlflow.json", state)


def _log_facts(client: MlflowClient, run: Run, info: dict[str, Any], state: dict[str, Any]) -> None:
    """Parameters, tags, description and dataset, where what they are made from has changed."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

    mark = " ".join(_mark(run.folder / name) for name in ("recipe.toml", "plan.json", "run.json"))
    if mark == state["facts"]:
        return
    known = client.get_run(state["run_id"]).data.params
    undecided = {"auto"} if info["status"] == "running" else set()  # MLflow's parameters cannot be changed
    new = [Param(k, v) for k, v in parameters(run).items() if k not in known and v not in undecided]
    tags = [RunTag(key, value) for key, value in describe(run).items()]
    for start in range(0, max(len(new), len(tags)), _WORDS_A_CALL):
        end = start + _WORDS_A_CALL
        client.log_batch(state["run_id"], params=new[start:end], synchronous=True)
        client.log_batch(state["run_id"], tags=tags[start:end], synchronous=True)
    if data := info.get("dataset"):
        source, profile = json.dumps({"uri": data["root"]}), json.dumps(data.get("counts", {}))
        dataset = Dataset(data["name"][:500], data["fingerprint"][:36], "local", source, profile=profile)
        context = [InputTag("mlflow.data.context", "training")]
        client.log_inputs(state["run_id"], datasets=[DatasetInput(dataset, context)])
    state["facts"] = mark


def _log_epochs(client: MlflowClient, run: Run, _info: dict[str, Any], state: dict[str, Any]) -> None:
    """Lines of metrics.jsonl are told apart by their time: a resumed run may have written an epoch anew."""
    known = set(state["epochs"])
    lines = [line for line in run.epochs() if line["time"] not in known]
    values = [item for line in lines for item in _metrics(line["values"], line["time"], line["epoch"])]
    for start in range(0, len(values), _METRICS_A_CALL):
        client.log_batch(state["run_id"], metrics=values[start : start + _METRICS_A_CALL], synchronous=True)
    state["epochs"] += [line["time"] for line in lines]


def _log_metrics(client: MlflowClient, run: Run, info: dict[str, Any], state: dict[str, Any]) -> None:
    """The final metrics, as the last step's latest values: they are what MLflow's tables show."""
    final = info.get("metrics") or {}
    if not final or final == state["metrics"]:
        return
    step = max((line["epoch"] for line in run.epochs()), default=0)
    client.log_batch(state["run_id"], metrics=_metrics(final, _milliseconds(info["ended"]), step), synchronous=True)
    state["metrics"] = final


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
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'", max_results=1)
    entry = found[0] if found else client.create_logged_model(experiment, name="model", source_run_id=run_id)
    with tempfile.TemporaryDirectory() as place:
        package(run, Path(place) / "model", model_id=entry.model_id, run_id=run_id)
        client.log_model_artifacts(entry.model_id, str(Path(place) / "model"))
    outputs = client.get_run(run_id).outputs
    if entry.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else ())]:
        client.log_outputs(run_id, [LoggedModelOutput(entry.model_id, step=0)])
    ended, final = _milliseconds(info["ended"]), info.get("metrics") or {}
    step = max((line["epoch"] for line in run.epochs()), default=0)
    client.log_batch(run_id, metrics=_metrics(final, ended, step, model_id=entry.model_id), synchronous=True)
    client.finalize_logged_model(entry.model_id, "READY")
    state["model"] = {"id": entry.model_id, "mark": mark}


def _log_status(client: MlflowClient, _run: Run, info: dict[str, Any], state: dict[str, Any]) -> None:
    status = _STATUSES[info["status"]]
    if status == state["status"]:
        return
    if status == "RUNNING":
        client.update_run(state["run_id"], status)
    else:
        client.set_terminated(state["run_id"], status, _milliseconds(info["ended"]))
    state["status"] = status


def _metrics(values: Mapping[str, Any], time_ms: int, step: int, *, model_id: str | None = None) -> list[Metric]:
    from mlflow.entities import Metric

    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return [Metric(name, float(value), time_ms, step, model_id=model_id) for name, value in numbers.items()]


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """What MLflow, its database and its connections raise, as one BenchError without the password in the address."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except Exception as cause:
        from mlflow.exceptions import MlflowException

        if not isinstance(cause, MlflowException | SQLAlchemyError | OSError):
            raise
        text = str(cause).strip().partition("\n")[0] or type(cause).__name__
        if text.startswith("API request to"):  # the reason stands at the end
            text = text.rpartition(": ")[2].rstrip("\"')")
        message = _without_password(f"{uri}: {text[:300]}")
        raise BenchError(
            message, hint="the run's folder is complete; bench sync can be repeated at any time"
        ) from cause


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path, timeout=_LOCK_TIMEOUT_S):
        yield


def _sqlite_file(uri: str) -> Path | None:
    """The database's file, None for other stores."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def _mark(path: Path) -> str:
    """Tells a changed file from an unchanged one; "" where there is none."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _milliseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


# What MLflow is told about a run.

#: Plan values -> the recipe key whose "auto" they decide.
_DECIDED = {
    "device": "compute.device",
    "precision": "compute.precision",
    "memory_format": "compute.memory_format",
    "threads": "compute.threads",
    "image_size": "data.size",
    "channels": "data.channels",
    "normalize": "data.normalize",
    "mean": "data.mean",
    "std": "data.std",
    "cache_features": "train.cache_features",
    "steps_per_epoch": "train.steps_per_epoch",
    "dataset_root": "dataset.root",
    "weights": "model.weights",
}


def parameters(run: Run) -> dict[str, str]:
    """The recipe's keys with their defaults and, in place of "auto", what the plan decided."""
    from bench.recipe import parse
    from bench.tables import SECTIONS

    path = run.folder / "recipe.toml"
    text = path.read_text(encoding="utf-8")
    tables: dict[str, Any] = tomllib.loads(text)
    with suppress(BenchError):  # a plugin may be gone by now; then without its defaults
        recipe = parse(text, path=path)
        tables |= {name: getattr(recipe, name).model_dump() for name in SECTIONS}
        for name in ("dataset", "model", "optimizer", "scheduler"):
            chosen = getattr(recipe, name)
            tables[name] = {**tables.get(name, {}), "name": chosen.name, **chosen.options}
    plan = json.loads((run.folder / "plan.json").read_text(encoding="utf-8"))
    values = {
        f"{name}.{key}": v for name, table in tables.items() if isinstance(table, dict) for key, v in table.items()
    }
    values |= {key: plan[name] for name, key in _DECIDED.items() if plan.get(name) is not None}
    values |= {"seed": run.info()["seed"], "augment": ", ".join(map(_call, tables.get("augment", []))) or "none"}
    return {key: _word(value) for key, value in values.items() if value not in (None, "", (), [])}


def describe(run: Run) -> dict[str, str]:
    """Tags, among them MLflow's own for source, commit, user and description."""
    info = run.info()
    git, environment = info.get("git") or {}, info.get("environment") or {}
    machine = environment.get("machine") or {}
    tags = {
        "visionbench.group": info["group"],
        "visionbench.folder": run.folder,
        "visionbench.recipe_digest": info.get("recipe_digest"),
        "visionbench.dataset_fingerprint": (info.get("dataset") or {}).get("fingerprint"),
        "visionbench.machine": machine.get("gpu") or machine.get("cpu"),
        "visionbench.git_dirty": git.get("dirty"),
        "visionbench.error": info.get("error"),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": " ".join(environment.get("argv") or ["bench"]),
        "mlflow.source.git.commit": git.get("commit"),
        "mlflow.user": os.environ.get("USER") or os.environ.get("USERNAME"),
        "mlflow.note.content": _note(info),
        **{f"version.{name}": version for name, version in (environment.get("versions") or {}).items()},
    }
    return {key: str(value)[:8000] for key, value in tags.items() if value not in (None, "")}


def _note(info: dict[str, Any]) -> str:
    """The key figures in Markdown."""
    metrics, data = info.get("metrics") or {}, info.get("dataset") or {}
    lines = [f"Run of group `{info['group']}`, seed {info['seed']}: **{info['status']}**", ""]
    if info.get("error"):
        lines += [f"> {info['error']}", ""]
    splits = {"test": "test", "val": "validation"}
    shown = [split for split in splits if f"{split}_accuracy" in metrics]
    if shown:
        lines += [
            "| split | images | accuracy | 95 % interval | macro F1 | log loss | ECE |",
            "|---|---|---|---|---|---|---|",
        ]
    for split in shown:
        images = sum((data.get("counts") or {}).get(splits[split], {}).values()) or ""
        low, high, f1, loss, ece = (
            metrics.get(f"{split}_{name}", math.nan)
            for name in ("accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece")
        )
        accuracy = f"**{metrics[f'{split}_accuracy']:.2%}** | {low:.2%} to {high:.2%}"
        lines.append(f"| {splits[split]} | {images} | {accuracy} | {f1:.4f} | {loss:.4f} | {ece:.4f} |")
    if "train_seconds" in metrics:
        machine = ((info.get("environment") or {}).get("machine")) or {}
        place = machine.get("gpu") or machine.get("cpu") or "this machine"
        lines += ["", f"Trained in {metrics['train_seconds']:.1f} s on {place}."]
    return "\n".join(lines)


def _call(table: Mapping[str, Any]) -> str:
    """An [[augment]] table as it would be called: affine(degrees=10.0)."""
    options = ", ".join(f"{key}={value}" for key, value in table.items() if key != "name")
    return f"{table.get('name')}({options})"


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text[:_PARAM_LENGTH]


# The model that MLflow keeps, and how MLflow loads it.


def package(run: Run, folder: Path, *, model_id: str, run_id: str) -> None:
    """Write a run's weights, recipe and plan as a model of MLflow: uint8 images N,H,W,C in, probabilities out."""
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import Schema, TensorSpec

    plan = json.loads((run.folder / "plan.json").read_text(encoding="utf-8"))
    shape = (-1, *plan["image_size"], plan["channels"])
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), shape, "images")]),
        Schema([TensorSpec(np.dtype(np.float32), (-1, len(plan["classes"])))]),
    )
    versions = (run.info().get("environment") or {}).get("versions") or {}
    needed = ["visionbench", *(f"{name}=={versions[name]}" for name in ("torch", "timm") if name in versions)]
    data = folder.with_name("data")
    data.mkdir()
    for name in ("model.safetensors", "recipe.toml", "plan.json"):
        shutil.copy(run.folder / name, data / name)
    entry = Model(run_id=run_id, model_uuid=model_id, model_id=model_id, signature=signature)
    save_model(
        str(folder),
        loader_module="bench.tracking",
        data_path=str(data),
        mlflow_model=entry,
        pip_requirements=needed,
    )


class _Classifier:
    """What `mlflow.pyfunc.load_model` gives: the trained model on the CPU, in fp32."""

    def __init__(self, folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        from bench.kinds import DataSpec
        from bench.plan import from_json
        from bench.recipe import Chosen, parse
        from bench.stages.batches import Preprocessing
        from bench.stages.model import build

        path = folder / "recipe.toml"
        recipe = parse(path.read_text(encoding="utf-8"), path=path)
        plan = from_json(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
        spec = DataSpec("classification", plan.classes or (), plan.channels or 3, plan.image_size)
        options = {name: False if name == "pretrained" else value for name, value in recipe.model.options.items()}
        self._model = build(Chosen(recipe.model.name, options), spec).eval()
        self._model.load_state_dict(load_file(folder / "model.safetensors"))
        self._preprocessing = Preprocessing(plan.mean or (), plan.std or (), torch.contiguous_format)
        self._loss = recipe.train.loss

    def predict(self, images: Mapping[str, NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images N,H,W,C of the run's size -> class probabilities N,num_classes."""
        import torch

        from bench.stages.optim import probabilities

        array = images["images"] if isinstance(images, Mapping) else images
        with torch.inference_mode():
            pixels = self._preprocessing.scale(torch.from_numpy(array.copy()))
            outputs = self._model(self._preprocessing.normalise(pixels))
            return probabilities(outputs, self._loss).numpy()


def _load_pyfunc(path: str) -> _Classifier:
    """MLflow calls this by its name."""
    return _Classifier(Path(path))
