"""Small core models with seeded weights, written node by node: nothing here needs torch."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["classifier", "core", "images", "pair_model"]

Weights = dict[str, NDArray[np.float32]]


def images(count: int, *, seed: int = 0, channels: int = 3, side: int = 16) -> NDArray[np.float32]:
    """Smooth normalised images N,C,H,W, each with a brightness and a slope of its own."""
    generator = np.random.default_rng(seed)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    parts = generator.normal(size=(3, count, channels, 1, 1)).astype(np.float32)
    noise = generator.normal(scale=0.2, size=(count, channels, side, side)).astype(np.float32)
    return parts[0] + parts[1] * ramp[:, None] + parts[2] * ramp + noise


def classifier(*, loud: float = 1.0, seed: int = 1) -> onnx.ModelProto:
    """Convolution, BatchNorm, ReLU6, depthwise, a residual sum, mean over the image, linear: a tiny MobileNet.

    `loud` scales one channel behind the convolution "project", and the next one scales it back: in float that changes
    nothing, in eight bits it leaves the other channels no levels.
    """
    draw = np.random.default_rng(seed).normal
    gain = np.ones(8, np.float32)
    gain[0] = loud
    weights: Weights = {
        "stem.w": draw(scale=0.4, size=(8, 3, 3, 3)),
        "bn.scale": np.full(8, 0.7),
        "bn.bias": draw(scale=0.2, size=8),
        "bn.mean": draw(scale=0.2, size=8),
        "bn.var": np.full(8, 1.5),
        "low": np.array(0.0),
        "six": np.array(6.0),
        "deep.w": draw(scale=0.4, size=(8, 1, 3, 3)),
        "project.w": draw(scale=0.4, size=(8, 8, 1, 1)) * gain[:, None, None, None],
        "expand.w": draw(scale=0.4, size=(8, 8, 1, 1)) / gain[None, :, None, None],
        "head.w": draw(size=(5, 8)),
        "head.b": draw(size=5),
    }
    nodes = [
        helper.make_node("Conv", ["normalised", "stem.w"], ["a"], "stem", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["b"], "bn"),
        helper.make_node("Clip", ["b", "low", "six"], ["c"], "relu6"),
        helper.make_node("Conv", ["c", "deep.w"], ["d"], "deep", pads=[1, 1, 1, 1], group=8),
        helper.make_node("Conv", ["d", "project.w"], ["e"], "project"),
        helper.make_node("Conv", ["e", "expand.w"], ["f"], "expand"),
        helper.make_node("Add", ["f", "c"], ["g"], "sum"),
        helper.make_node("ReduceMean", ["g", "axes"], ["h"], "mean", keepdims=0),
        helper.make_node("Gemm", ["h", "head.w", "head.b"], ["outputs"], "head", transB=1),
    ]
    return core(nodes, weights, inputs=("normalised",))


def pair_model() -> onnx.ModelProto:
    """Two images through one convolution each with the same weights, and the distance of their means."""
    draw = np.random.default_rng(2).normal
    nodes = [
        helper.make_node("Concat", ["normalised_first", "normalised_second"], ["both"], "both", axis=0),
        helper.make_node("Conv", ["both", "twin.w"], ["a"], "twin"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("ReduceMean", ["b", "axes"], ["c"], "mean", keepdims=0),
        helper.make_node("Split", ["c"], ["left", "right"], "split", axis=0, num_outputs=2),
        helper.make_node("Sub", ["left", "right"], ["d"], "difference"),
        helper.make_node("Abs", ["d"], ["e"], "distance"),
        helper.make_node("Gemm", ["e", "head.w"], ["outputs"], "head", transB=1),
    ]
    weights: Weights = {"twin.w": draw(size=(6, 3, 3, 3)), "head.w": draw(size=(1, 6))}
    return core(nodes, weights, inputs=("normalised_first", "normalised_second"), num_outputs=1)


def core(
    nodes: list[onnx.NodeProto],
    weights: Weights,
    *,
    inputs: tuple[str, ...] = ("normalised",),
    num_outputs: int = 5,
    side: int = 16,
) -> onnx.ModelProto:
    """A model of opset 18 with inputs N,3,side,side, the output `outputs` N,num_outputs, and `axes` = 2, 3."""
    constants = [numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in weights.items()]
    constants.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, side, side]) for name in inputs],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["N", num_outputs])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model
