"""The model that MLflow keeps, without pickle, and how MLflow loads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.record import Run

__all__ = ["package"]


def package(run: Run, folder: Path, *, model_id: str, run_id: str) -> None:
    """Write a run's weights, recipe and plan as a model of MLflow: uint8 images N,H,W,C in, probabilities out.

    For pairs two such arrays go in, `first` and `second`.
    """
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import Schema, TensorSpec

    plan = json.loads((run.folder / "plan.json").read_text(encoding="utf-8"))
    shape = (-1, *plan["image_size"], plan["channels"])
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), shape, name) for name in _inputs(plan)]),
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
        loader_module="bench.tracking.logged_model",
        data_path=str(data),
        mlflow_model=entry,
        pip_requirements=needed,
    )


def _inputs(plan: Mapping[str, Any]) -> tuple[str, ...]:
    return ("first", "second") if plan.get("task") == "verification" else ("images",)


class _Predictor:
    """What `mlflow.pyfunc.load_model` gives: the trained model on the CPU, in fp32."""

    def __init__(self, folder: Path) -> None:
        from bench.stages.restore import restore

        self._model = restore(folder)
        self._names = _inputs(self._model.plan.as_json())

    def predict(self, images: Mapping[str, NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images N,H,W,C of the run's size (of pairs a mapping: first and second) -> probabilities N,num_classes."""
        arrays = [images[name] for name in self._names] if isinstance(images, Mapping) else [images]
        return self._model.predict(*arrays)


def _load_pyfunc(path: str) -> _Predictor:
    """MLflow calls this by its name."""
    return _Predictor(Path(path))
