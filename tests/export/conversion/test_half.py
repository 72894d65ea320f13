"""fp16: what becomes half precision, what float16 cannot hold, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))
from toy_cores import classifier, core, images, pair_model

from bench.errors import BenchError
from bench_export.conversion.half import to_half
from bench_export.conversion.sessions import quiet_session

IMAGES = images(5)


def run(proto: onnx.ModelProto, *arrays: NDArray[np.float32]) -> NDArray[np.float32]:
    session = quiet_session(proto)
    names = [value.name for value in session.get_inputs()]
    outputs: NDArray[np.float32] = session.run(["outputs"], dict(zip(names, arrays, strict=True)))[0]
    return outputs


def types(proto: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in proto.graph.initializer}


def linear(weight: float, *, second: float = 1.0) -> onnx.ModelProto:
    """The image's means through two diagonal layers of constant weights."""
    nodes = [
        helper.make_node("ReduceMean", ["normalised", "axes"], ["a"], "mean", keepdims=0),
        helper.make_node("Gemm", ["a", "first.w"], ["b"], "first"),
        helper.make_node("Gemm", ["b", "second.w"], ["outputs"], "second"),
    ]
    weights = {"first.w": weight * np.eye(3, dtype=np.float32), "second.w": second * np.eye(3, dtype=np.float32)}
    return core(nodes, weights, num_outputs=3)


def test_weights_become_half_and_inputs_and_outputs_stay_float32() -> None:
    half = to_half(classifier())
    onnx.checker.check_model(half, full_check=True)
    edges = [*half.graph.input, *half.graph.output]
    assert [(value.name, value.type.tensor_type.elem_type) for value in edges] == [
        ("normalised", TensorProto.FLOAT),
        ("outputs", TensorProto.FLOAT),
    ]
    floats = {name: kind for name, kind in types(half).items() if kind != TensorProto.INT64}
    assert set(floats.values()) == {TensorProto.FLOAT16}
    assert {"deep.w", "project.w", "expand.w", "head.w"} <= floats.keys()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_it_runs_on_the_cpu_at_any_batch_size_and_answers_alike(count: int) -> None:
    outputs = run(to_half(classifier()), IMAGES[:count])
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, run(classifier(), IMAGES[:count]), atol=0.02)


def test_a_model_of_pairs_keeps_both_inputs() -> None:
    half = to_half(pair_model())
    assert [value.name for value in half.graph.input] == ["normalised_first", "normalised_second"]
    found = run(half, IMAGES, 2 * images(5, seed=8))
    np.testing.assert_allclose(found, run(pair_model(), IMAGES, 2 * images(5, seed=8)), rtol=0.02, atol=0.02)


def test_the_core_itself_is_not_changed() -> None:
    proto = classifier()
    before = proto.SerializeToString(deterministic=True)
    to_half(proto)
    assert proto.SerializeToString(deterministic=True) == before


def test_a_weight_beyond_the_range_stays_in_float32() -> None:
    proto = linear(1e6, second=1e-6)
    half = to_half(proto)
    assert types(half)["first.w"] == TensorProto.FLOAT
    np.testing.assert_allclose(run(half, IMAGES), run(proto, IMAGES), rtol=1e-3, atol=1e-3)


def test_an_activation_beyond_the_range_keeps_its_nodes_in_float32() -> None:
    proto = linear(60_000.0, second=1e-4)
    bright = {"normalised": 3 + images(8)}
    half = to_half(proto, samples=bright)
    assert types(half)["first.w"] == TensorProto.FLOAT
    assert float(np.abs(run(linear(60_000.0), bright["normalised"])).max()) > 65504
    np.testing.assert_allclose(run(half, bright["normalised"]), run(proto, bright["normalised"]), rtol=2e-3)


def test_open_bounds_of_a_clip_do_not_keep_it_in_float32() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["normalised", "axes"], ["a"], "mean", keepdims=0),
        helper.make_node("Clip", ["a", "low", "high"], ["b"], "clip"),
        helper.make_node("Gemm", ["b", "w"], ["outputs"], "head"),
    ]
    largest = np.finfo(np.float32).max
    weights = {"low": np.array(0.0), "high": np.array(largest), "w": np.eye(3, dtype=np.float32)}
    proto = core(nodes, weights, num_outputs=3)
    half = to_half(proto)
    assert set(types(half).values()) <= {TensorProto.FLOAT16, TensorProto.INT64}
    np.testing.assert_allclose(run(half, IMAGES), run(proto, IMAGES), atol=2e-3)


def test_outputs_beyond_the_range_come_out_as_they_are() -> None:
    proto = linear(1e4, second=1e4)
    assert float(np.abs(run(proto, IMAGES)).max()) > 65504
    np.testing.assert_allclose(run(to_half(proto), IMAGES), run(proto, IMAGES), rtol=2e-3)


def test_constants_that_float16_cannot_tell_apart_are_refused_where_they_ruin_the_outputs() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["normalised", "axes"], ["a"], "mean", keepdims=0),
        helper.make_node("Sigmoid", ["a"], ["b"], "squash"),
        helper.make_node("Mul", ["b", "zero"], ["e"], "erase"),  # keeps the constants from being folded
        helper.make_node("Add", ["e", "nearly"], ["f"], "back"),
        helper.make_node("Sub", ["f", "one"], ["g"], "little"),
        helper.make_node("Div", ["b", "g"], ["outputs"], "ratio"),
    ]
    weights = {"nearly": np.full(3, 1.0001), "one": np.ones(3), "zero": np.zeros(3)}
    proto = core(nodes, weights, num_outputs=3)
    assert np.isfinite(run(proto, IMAGES)).all()
    with pytest.raises(BenchError, match="outputs are not finite in fp16") as caught:
        to_half(proto)
    assert "export fp32" in (caught.value.hint or "")


def test_a_nan_in_the_weights_is_left_for_the_gate_to_find() -> None:
    proto = classifier()
    head = next(tensor for tensor in proto.graph.initializer if tensor.name == "head.w")
    head.CopyFrom(numpy_helper.from_array(np.full((5, 8), np.nan, np.float32), "head.w"))
    assert np.isnan(run(to_half(proto), IMAGES)).all()


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    to_half(linear(1e6, second=1e-6))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
