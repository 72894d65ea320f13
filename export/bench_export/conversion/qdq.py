"""A float model -> the same with eight-bit weights and activations, as QuantizeLinear and DequantizeLinear pairs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from bench_export.conversion.sessions import optimised

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["layers", "observable", "prepared", "quantised"]

#: What has weights. The activation behind it melts into its output's range.
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "Clip")

#: What passes eight bits on, between layers that give eight bits.
_BETWEEN = ("Add", "AveragePool", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Reshape")

#: Their outputs stay float: the last layer's are the logits, whose ties eight bits would decide by rounding.
_FLOAT_OUTPUTS = ("Gemm", "MatMul")

#: The ReduceMean of N,C,H,W over H and W is a pooling that onnxruntime has in eight bits.
_SPATIAL_AXES = ((2, 3), (-2, -1))
_IMAGE_RANK = 4


def prepared(core: ModelProto) -> ModelProto:
    """The core as a quantiser wants it: BatchNorm folded, constants computed, shapes known, every node named."""
    import onnx

    model = optimised(core)
    _pool_where_averaged(model)
    taken = {node.name for node in model.graph.node}
    for position, node in enumerate(model.graph.node):
        if not node.name:
            node.name = next(name for name in _names(f"{node.op_type}_{position}") if name not in taken)
            taken.add(node.name)
    return onnx.shape_inference.infer_shapes(model)


def layers(model: ModelProto) -> tuple[str, ...]:
    """The names of the nodes with constant weights, in the graph's order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in _LAYERS]
    return tuple(node.name for node in nodes if node.input[1] in constants and node.input[0] not in constants)


def observable(model: ModelProto, names: Collection[str]) -> dict[str, str]:
    """The tensors whose ranges a quantiser of these layers asks for -> the tensor to look at.

    That is the tensor itself, or the output of the Relu or Clip that alone reads it.
    """
    quantised_nodes = _quantised_nodes(model, names)
    constants = {tensor.name for tensor in model.graph.initializer}
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    wanted: dict[str, str] = {}
    for node in model.graph.node:
        if node.name in quantised_nodes:
            for name in [*node.input, *node.output]:
                reading = readers.get(name, [])
                melts = len(reading) == 1 and reading[0].op_type in _ACTIVATIONS and name not in outputs
                wanted[name] = reading[0].output[0] if melts and reading[0].input[0] == name else name
    floats = _float_tensors(model)
    return {name: source for name, source in wanted.items() if name in floats and name not in constants}


def quantised(
    model: ModelProto, ranges: Mapping[str, tuple[float, float]], names: Collection[str], *, weight_bits: int = 8
) -> ModelProto:
    """The prepared model with the layers `names` in eight bits: weights int8 per channel, activations uint8.

    `ranges` are (low, high) of every tensor of `observable`. uint8 activations with int8 weights is what x86 has
    instructions for (VNNI, AMX); `weight_bits` 7 keeps sums of two products inside 16 bits on CPUs without them.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData

    work = onnx.ModelProto()
    work.CopyFrom(model)
    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    chosen = _quantised_nodes(model, names)
    excluded = [node.name for node in model.graph.node if node.name not in chosen]
    with _silence():
        quantiser = QDQQuantizer(
            work,
            True,  # per channel
            weight_bits == 7,  # noqa: PLR2004  # reduce_range is onnxruntime's name for it
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, data),
            [],
            excluded,
            [*_LAYERS, *_ACTIVATIONS, *_BETWEEN],
            {"OpTypesToExcludeOutputQuantization": list(_FLOAT_OUTPUTS)},
        )
        quantiser.quantize_model()
    quantiser.model.topological_sort()
    result: ModelProto = quantiser.model.model
    return result


def _quantised_nodes(model: ModelProto, names: Collection[str]) -> set[str]:
    """The given layers, and what stands behind them and gets nothing but eight bits."""
    constants = {tensor.name for tensor in model.graph.initializer}
    eight_bits: set[str] = set()
    chosen: set[str] = set()
    for node in model.graph.node:
        inputs = [name for name in node.input if name and name not in constants]
        passes = node.op_type in (*_ACTIVATIONS, *_BETWEEN) and inputs and eight_bits.issuperset(inputs)
        if node.name in names or passes:
            chosen.add(node.name)
            if node.op_type not in _FLOAT_OUTPUTS:
                eight_bits.update(node.output)
    return chosen


def _pool_where_averaged(model: ModelProto) -> None:
    """Write the mean over height and width as the GlobalAveragePool that it is."""
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    values = [*model.graph.input, *model.graph.value_info]
    images = {value.name for value in values if len(value.type.tensor_type.shape.dim) == _IMAGE_RANK}
    for position, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type != "ReduceMean" or node.input[0] not in images or len(node.input) < 2:  # noqa: PLR2004
            continue
        axes = constants.get(node.input[1])
        if axes is None or tuple(sorted(numpy_helper.to_array(axes).tolist())) not in _SPATIAL_AXES:
            continue
        keeps = next((attribute.i for attribute in node.attribute if attribute.name == "keepdims"), 1)
        pooled = node.output[0] if keeps else f"{node.output[0]}_pooled"
        new = [helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=f"{node.name}_pool")]
        if not keeps:
            new.append(helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}_flat", axis=1))
        del model.graph.node[position]
        for offset, replacement in enumerate(new):
            model.graph.node.insert(position + offset, replacement)


def _float_tensors(model: ModelProto) -> set[str]:
    from onnx import TensorProto

    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    return {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}


def _names(stem: str) -> Iterator[str]:
    yield stem
    number = 1
    while True:
        number += 1
        yield f"{stem}_{number}"


@contextmanager
def _silence() -> Iterator[None]:
    """The quantiser gives advice on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
