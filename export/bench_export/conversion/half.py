"""A core model in half precision, for GPUs; float32 at its inputs and outputs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError
from bench_export.conversion.qdq import prepared
from bench_export.conversion.sessions import quiet_session

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

__all__ = ["to_half"]

_LARGEST = float(np.finfo(np.float16).max)

#: Activations this close to the limit are left alone: other images reach further.
_HEADROOM = 4.0

_PROBES = 4


def to_half(core: ModelProto, *, samples: Mapping[str, NDArray[np.float32]] | None = None) -> ModelProto:
    """The core with float16 weights and activations, and casts at its float32 inputs and outputs.

    Nodes whose constants or activations pass float16's largest value, 65504, stay in float32. Activations are looked at
    on `samples`, a batch of the core's inputs, or on noise of a normalised image's mean and deviation.
    Raises BenchError where the result does not load, or gives no finite outputs where the float model does.
    Source: onnxruntime.transformers.float16.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = prepared(core)
    samples = samples or _noise(model)
    wide = _too_wide(model, samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of each constant that is rounded to the nearest float16
        half: ModelProto = convert_float_to_float16(
            model, keep_io_types=True, op_block_list=DEFAULT_OP_BLOCK_LIST, node_block_list=sorted(wide)
        )
    _join_casts(half)
    ONNXModel(half).topological_sort()  # the converter appends its casts
    _prove(core, half, samples)
    return half


def _too_wide(model: ModelProto, samples: Mapping[str, NDArray[np.float32]]) -> set[str]:
    """The nodes that float16 cannot hold: a constant or an activation of theirs is beyond its range."""
    from onnx import numpy_helper

    large = {tensor.name for tensor in model.graph.initializer if _reach(numpy_helper.to_array(tensor)) > _LARGEST}
    inner = [name for node in model.graph.node for name in node.output if name]
    arrays = quiet_session(model, also=inner).run(inner, dict(samples))
    hot = {name for name, values in zip(inner, arrays, strict=True) if _reach(values) * _HEADROOM > _LARGEST}
    wide = set()
    for node in model.graph.node:
        # The bounds of a Clip may be as large as they like: to saturate them changes nothing.
        constants = [] if node.op_type == "Clip" else node.input
        if large.intersection(constants) or hot.intersection([*node.input, *node.output]):
            wide.add(node.name)
    return wide


def _join_casts(half: ModelProto) -> None:
    """Between two nodes in float32 the converter casts to float16 and back: hand the float32 values on instead."""
    from onnx import TensorProto

    casts = [(node, node.attribute[0].i) for node in half.graph.node if node.op_type == "Cast"]
    narrowed = {node.output[0]: node.input[0] for node, to in casts if to == TensorProto.FLOAT16}
    for node, to in casts:
        if to == TensorProto.FLOAT and node.input[0] in narrowed:
            node.input[0] = narrowed[node.input[0]]
    read = {name for node in half.graph.node for name in node.input} | {value.name for value in half.graph.output}
    for node, _ in casts:
        if node.output[0] not in read:
            half.graph.node.remove(node)


def _reach(values: NDArray[np.generic]) -> float:
    """The largest absolute value; 0 of integers and of what is empty."""
    if values.dtype != np.float32 or values.size == 0:
        return 0.0
    return float(np.abs(values).max())


def _noise(model: ModelProto) -> dict[str, NDArray[np.float32]]:
    """Seeded stand-ins for normalised images, a batch for each input of the model."""
    generator = np.random.default_rng(0)
    shapes = {
        value.name: [_PROBES, *(axis.dim_value or _PROBES for axis in value.type.tensor_type.shape.dim[1:])]
        for value in model.graph.input
    }
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _prove(core: ModelProto, half: ModelProto, samples: Mapping[str, NDArray[np.float32]]) -> None:
    exact = quiet_session(core).run(None, dict(samples))
    found = quiet_session(half).run(None, dict(samples))
    if all(np.isfinite(values).all() for values in exact) and not all(np.isfinite(values).all() for values in found):
        raise BenchError(
            "the model's values are too large or too close together for float16: its outputs are not finite in fp16",
            hint="export fp32 or int8; or train with normalised inputs and weight decay, so that values stay small",
        )
