"""An ONNX graph in memory -> a file, checked, that says what it is."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.files import atomic
from bench_export.conversion.proof import BYTES_IN_ONE_FILE, num_bytes

if TYPE_CHECKING:
    from onnx import ModelProto

    from bench_export.card import Card

__all__ = ["write"]

#: Smaller tensors stay in the graph: shapes and axes, without which nothing can be inferred.
_SMALLEST_BYTES = 512


def write(proto: ModelProto, path: Path, card: Card, *, largest: int = BYTES_IN_ONE_FILE) -> None:
    """Write a graph with its card: one file, or from `largest` bytes on its weights in NAME.onnx.data beside it.

    The graph has passed onnx's full check, with strict shape inference, and stays as it is. The file appears whole or not
    at all. Raises BenchError where the check fails.
    """
    import onnx

    labelled = onnx.ModelProto()
    labelled.CopyFrom(proto)
    del labelled.metadata_props[:]
    onnx.helper.set_model_props(labelled, card.properties())
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_name(f"{path.name}.data")
    if num_bytes(labelled) < largest:
        _check(labelled, path)
        with atomic(path) as partial:
            partial.write_bytes(labelled.SerializeToString())
        data.unlink(missing_ok=True)  # of a larger model that had this name
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        aside = Path(folder, path.name)
        onnx.save_model(labelled, aside, save_as_external_data=True, location=data.name, size_threshold=_SMALLEST_BYTES)
        _check(aside, path)
        for made in (aside.with_name(data.name), aside):  # the weights first: the graph is nothing without them
            with made.open("rb+") as file:
                os.fsync(file.fileno())
            shutil.move(made, path.with_name(made.name))


def _check(what: ModelProto | Path, path: Path) -> None:
    from onnx import checker, shape_inference

    try:
        checker.check_model(what, full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError) as cause:
        raise BenchError(
            f"{path}: the exported graph is not valid ONNX: {str(cause).splitlines()[0]}",
            hint="a fault of the exporter; please report it with the run's recipe",
        ) from cause
