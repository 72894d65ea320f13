"""Sessions of onnxruntime on models in memory, for the steps of a conversion."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["optimised", "quiet_session"]

#: onnxruntime's level of "error": a conversion's warnings are not for the person who asked for an export.
_ERRORS_ONLY = 3


def quiet_session(proto: ModelProto, *, also: Sequence[str] = ()) -> Any:
    """An onnxruntime session on the CPU, which also gives the inner tensors `also`.

    Raises BenchError where onnxruntime refuses the model.
    """
    import onnx

    if also:
        shown = onnx.ModelProto()
        shown.CopyFrom(proto)
        present = {value.name for value in shown.graph.output}
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in also if name not in present)
        proto = shown
    return _open(proto, _options())


def optimised(proto: ModelProto) -> ModelProto:
    """The same model after onnxruntime's basic graph optimisation: BatchNorm in the convolutions, constants folded."""
    import onnx
    import onnxruntime

    options = _options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory(prefix="visionbench-") as folder:
        path = Path(folder, "optimised.onnx")
        options.optimized_model_filepath = str(path)
        _open(proto, options)
        model = onnx.load(path)
    used = {node.domain for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]  # onnxruntime lists all that it knows
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return onnx.shape_inference.infer_shapes(model)


def _options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(proto: ModelProto, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base of their own
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BenchError(f"onnxruntime refuses the model: {first}") from error
