"""MLflow's model registry: an accepted export becomes a version, and the champion where it beats the present one."""

from __future__ import annotations

import json
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import tracking
from bench.files import sha256
from bench_export.choice import Objective
from bench_export.metadata import write_properties

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from bench.record import Run
    from bench_export.card import Card

__all__ = ["Registration", "register"]

CHAMPION, CHALLENGER = "champion", "challenger"

#: MLflow refuses these in the names of registered models.
_FORBIDDEN = "/:.%\"'"


@dataclass(frozen=True, slots=True)
class Registration:
    """A version in the registry, its alias, and why it has it."""

    model: str
    version: int
    alias: str
    reason: str


def register(run: Run, path: Path, card: Card, objective: Objective) -> Registration | None:
    """Log an accepted file to the run of MLflow and register it; None where tracking is off.

    The same file is never registered twice. Raises BenchError where MLflow cannot be reached: the file is complete
    all the same, and exporting again registers it.
    """
    uri = tracking.tracking_uri()
    if uri == tracking.OFF:
        return None
    run_id = tracking.sync(run, uri=uri)
    with tracking.translated(uri):
        client = tracking.connect(uri)
        name = "".join("_" if letter in _FORBIDDEN else letter for letter in card.experiment) or "model"
        digest = _digest(path)
        known = _versions(client, name)
        mine = {"visionbench.sha256": digest, "visionbench.run": card.run, "visionbench.precision": card.precision}
        same = next((one for one in known if mine.items() <= one.tags.items()), None)
        version = same or _add_version(client, name, run_id, path, card, objective, digest)
        champion = _with_alias(client, name, CHAMPION)
        if champion is not None and int(champion.version) == int(version.version):
            return Registration(name, int(version.version), CHAMPION, "it is the champion already")
        alias, reason = _compare(objective, card, champion)
        client.set_registered_model_alias(name, alias, version.version)
        client.set_model_version_tag(name, version.version, "visionbench.reason", reason)
        return Registration(name, int(version.version), alias, reason)


def _digest(path: Path) -> str:
    """What a file computes: all of it but its metadata, which say when it was made; and the weights beside it."""
    with tempfile.TemporaryDirectory() as place:
        bare = Path(place) / path.name
        shutil.copyfile(path, bare)
        write_properties(bare, {})
        beside = path.with_name(f"{path.name}.data")
        return sha256(bare) + (sha256(beside) if beside.is_file() else "")


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions; the registered model is made where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as cause:
        if cause.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return list(client.search_model_versions(f"name = '{name}'"))


def _add_version(
    client: MlflowClient, name: str, run_id: str, path: Path, card: Card, objective: Objective, digest: str
) -> ModelVersion:
    """Log the file as an ONNX model of the run, and register it."""
    experiment = client.get_run(run_id).info.experiment_id
    entry = client.create_logged_model(experiment, name=f"onnx-{card.precision}", source_run_id=run_id)
    with tempfile.TemporaryDirectory() as place:
        _package(path, card, Path(place) / "model", model_id=entry.model_id, run_id=run_id)
        client.log_model_artifacts(entry.model_id, str(Path(place) / "model"))
    client.finalize_logged_model(entry.model_id, "READY")
    tags = {
        "visionbench.sha256": digest,
        "visionbench.precision": card.precision,
        "visionbench.objective": objective.metric,
        "visionbench.value": repr(objective.value),
        "visionbench.images": _images(card),
        "visionbench.run": card.run,
    }
    source = f"models:/{entry.model_id}"
    return client.create_model_version(
        name, source, run_id, tags=tags, description=_description(card, objective), model_id=entry.model_id
    )


def _package(path: Path, card: Card, folder: Path, *, model_id: str, run_id: str) -> None:
    """The file as a model of MLflow, with its signature and an example of its input."""
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    model = onnx.load(str(path))
    kinds = {onnx.TensorProto.UINT8: np.uint8, onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.BOOL: np.bool_}

    def specification(value: Any) -> TensorSpec:
        tensor = value.type.tensor_type
        shape = tuple(dimension.dim_value or -1 for dimension in tensor.shape.dim)
        return TensorSpec(np.dtype(kinds[tensor.elem_type]), shape, value.name)

    inputs, outputs = ([specification(value) for value in values] for values in (model.graph.input, model.graph.output))
    height, width = card.preprocessing.size
    free = (1, height, width, card.preprocessing.channels) if card.preprocessing.in_graph else ()
    example = {
        one.name: np.zeros(
            [size if size > 0 else given for size, given in zip(one.shape, free or one.shape, strict=True)],
            dtype=one.type,
        )
        for one in inputs
    }
    mlflow.onnx.save_model(
        model,
        str(folder),
        mlflow_model=Model(run_id=run_id, model_uuid=model_id, model_id=model_id),
        signature=ModelSignature(Schema([*inputs]), Schema([*outputs])),
        input_example=example,
        pip_requirements=["onnxruntime", "numpy"],
        save_as_external_data=path.with_name(f"{path.name}.data").is_file(),
    )


def _with_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as cause:
        if cause.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        return None


def _compare(objective: Objective, card: Card, champion: ModelVersion | None) -> tuple[str, str]:
    """(alias, reason): the champion only where it is plainly better on the same images."""
    if champion is None:
        return CHAMPION, "there was no champion yet"
    tags = champion.tags
    other = f"version {champion.version} (run {tags.get('visionbench.run', '?')}, {tags.get('visionbench.precision')})"
    if tags.get("visionbench.images") != _images(card):
        return (
            CHALLENGER,
            f"the champion, {other}, was judged on other images; set the alias by hand if this one is better",
        )
    if tags.get("visionbench.objective") != objective.metric:
        return (
            CHALLENGER,
            f"the champion, {other}, was judged by {tags.get('visionbench.objective')}, this one by {objective.metric}",
        )
    present = Objective(objective.metric, float(tags.get("visionbench.value", "nan")))
    values = f"{objective.metric} {objective.value:.4f} against {present.value:.4f} of the champion, {other}"
    if objective.rank > present.rank:
        return CHAMPION, f"{values}, which it replaces"
    return CHALLENGER, values + ("; a tie leaves it" if objective.rank == present.rank else "")


def _images(card: Card) -> str:
    """Which images a model was judged on: the dataset, and how it was divided."""
    table = tomllib.loads(card.recipe).get("data", {}) if card.recipe else {}
    divided = {key: table.get(key) for key in ("validation", "test", "split_seed")}
    return f"{card.dataset.get('fingerprint', '')} {json.dumps(divided)}"


def _description(card: Card, objective: Objective) -> str:
    gate = card.gate or {}
    lines = [
        f"`{card.precision}` export of run `{card.run}` of `{card.experiment}`.",
        "",
        f"{objective.metric}: **{objective.value:.4f}**" + (f" ({objective.note})" if objective.note else ""),
    ]
    if gate.get("summary"):
        lines += ["", str(gate["summary"])]
    return "\n".join(lines)
