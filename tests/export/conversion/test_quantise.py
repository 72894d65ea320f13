"""int8: what is quantised, how the calibration is chosen, and what stays in float."""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))
from toy_cores import classifier, core, images, pair_model

from bench.errors import BenchError
from bench_export.conversion.calibration import METHODS, Observed, observe, portions
from bench_export.conversion.qdq import layers, prepared
from bench_export.conversion.quantise import Quantised, quantise
from bench_export.conversion.sensitivity import fewest, noise
from bench_export.conversion.sessions import quiet_session

CALIBRATION = [{"normalised": images(40, seed=3)}, {"normalised": images(24, seed=4)}]
SELECTION = images(400, seed=5)


def run(proto: onnx.ModelProto, *arrays: NDArray[np.float32]) -> NDArray[np.float32]:
    session = quiet_session(proto)
    names = [value.name for value in session.get_inputs()]
    outputs: NDArray[np.float32] = session.run(["outputs"], dict(zip(names, arrays, strict=True)))[0]
    return outputs


class Disagreement:
    """Points of images on which a core decides otherwise than the float model."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.decided = run(proto, SELECTION).argmax(1)
        self.asked = 0

    def __call__(self, proto: onnx.ModelProto) -> float:
        self.asked += 1
        return 100 * float((run(proto, SELECTION).argmax(1) != self.decided).mean())


def quantise_toy(proto: onnx.ModelProto, *, allowed_loss: float = 2.0) -> Quantised:
    return quantise(proto, calibration=CALIBRATION, accuracy_loss=Disagreement(proto), allowed_loss=allowed_loss)


@pytest.fixture(scope="module")
def plain() -> Quantised:
    return quantise_toy(classifier())


@pytest.fixture(scope="module")
def with_a_loud_channel() -> Quantised:
    return quantise_toy(classifier(loud=3000.0), allowed_loss=1.0)


def test_weights_are_int8_per_channel_and_activations_uint8(plain: Quantised) -> None:
    constants = {tensor.name: tensor for tensor in plain.proto.graph.initializer}
    kernels = [tensor for tensor in constants.values() if len(tensor.dims) == 4]
    assert [tensor.data_type for tensor in kernels] == [TensorProto.INT8] * 4
    scales = {node.input[0]: node.input[1] for node in plain.proto.graph.node if node.op_type == "DequantizeLinear"}
    assert all(list(constants[scales[kernel.name]].dims) == [kernel.dims[0]] for kernel in kernels)
    zeros = [constants[node.input[2]] for node in plain.proto.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros
    assert {tensor.data_type for tensor in zeros} == {TensorProto.UINT8}


def test_batch_norm_and_relu6_melt_into_the_convolution(plain: Quantised) -> None:
    assert {"BatchNormalization", "Clip", "ReduceMean"}.isdisjoint(node.op_type for node in plain.proto.graph.node)


def test_eight_bits_pass_through_the_residual_sum_and_the_pooling(plain: Quantised) -> None:
    produced = {name: node for node in plain.proto.graph.node for name in node.output}
    for node in plain.proto.graph.node:
        if node.op_type in ("Conv", "Add", "GlobalAveragePool", "Gemm"):
            assert produced[node.input[0]].op_type == "DequantizeLinear", node.name


def test_the_logits_are_not_rounded_to_eight_bits(plain: Quantised) -> None:
    assert plain.proto.graph.node[-1].op_type == "Gemm"
    assert len(np.unique(run(plain.proto, SELECTION))) > 1000


@pytest.mark.parametrize("count", [1, 2, 5])
def test_it_is_a_valid_model_of_any_batch_size_with_the_same_names(plain: Quantised, count: int) -> None:
    onnx.checker.check_model(plain.proto, full_check=True)
    assert [value.name for value in plain.proto.graph.input] == ["normalised"]
    outputs = run(plain.proto, SELECTION[:count])
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, run(plain.proto, SELECTION)[:count], atol=1e-5)


def test_it_answers_nearly_as_the_float_model(plain: Quantised) -> None:
    assert noise(run(classifier(), SELECTION), run(plain.proto, SELECTION)) < 1e-3
    assert plain.holds
    assert plain.kept_float == ()
    assert plain.remark == "all 5 layers are int8"


def test_of_the_calibrations_the_one_that_loses_least_is_taken(plain: Quantised) -> None:
    assert [one["calibration"] for one in plain.tried] == ["minmax", "entropy", "percentile"]
    best = min(plain.tried, key=lambda one: (one["loss"], one["noise"]))
    assert plain.calibration == best["calibration"]
    assert plain.loss == best["loss"] == Disagreement(classifier())(plain.proto)


def test_calibrations_that_lose_the_same_are_told_apart_by_the_outputs_error() -> None:
    chosen = quantise(classifier(), calibration=CALIBRATION, accuracy_loss=lambda _: 0.25, allowed_loss=0.25)
    assert chosen.calibration == min(chosen.tried, key=lambda one: one["noise"])["calibration"]


def test_a_loss_that_is_no_number_is_never_taken() -> None:
    answers = iter([math.nan, 0.1, math.nan])
    chosen = quantise(classifier(), calibration=CALIBRATION, accuracy_loss=lambda _: next(answers), allowed_loss=0.5)
    assert chosen.calibration == "entropy"


def test_only_the_layers_that_eight_bits_ruin_stay_in_float(with_a_loud_channel: Quantised) -> None:
    chosen = with_a_loud_channel
    assert all(one["loss"] > 10 for one in chosen.tried[:3])
    assert chosen.holds
    assert chosen.loss <= 1.0
    assert {"project", "expand"} >= set(chosen.kept_float) > set()
    assert chosen.remark == f"{len(chosen.kept_float)} of 5 layers stay in float32: {', '.join(chosen.kept_float)}"
    kept = {node.name: node for node in chosen.proto.graph.node if node.name in chosen.kept_float}
    constants = {tensor.name: tensor.data_type for tensor in chosen.proto.graph.initializer}
    assert [constants[node.input[1]] for node in kept.values()] == [TensorProto.FLOAT] * len(kept)
    onnx.checker.check_model(chosen.proto, full_check=True)


def test_every_step_on_the_way_is_recorded(with_a_loud_channel: Quantised) -> None:
    steps = with_a_loud_channel.tried[3:]
    assert {one["calibration"] for one in steps} == {with_a_loud_channel.calibration}
    enough = min((one for one in steps if one["loss"] <= 1.0), key=lambda one: len(one["kept_float"]))
    assert tuple(enough["kept_float"]) == with_a_loud_channel.kept_float
    assert not any(one["loss"] <= 1.0 and len(one["kept_float"]) < len(enough["kept_float"]) for one in steps)


def test_a_limit_that_float_misses_too_is_said_to_be_missed() -> None:
    chosen = quantise(classifier(), calibration=CALIBRATION, accuracy_loss=lambda _: 3.0, allowed_loss=0.5)
    assert not chosen.holds
    assert len(chosen.kept_float) == 5
    assert chosen.remark == "even with all 5 layers in float32 it loses 3.00 points; int8 is not the reason"
    assert noise(run(classifier(), SELECTION), run(chosen.proto, SELECTION)) < 1e-9


def test_a_model_that_only_holds_in_float_says_that_nothing_is_int8() -> None:
    proto = classifier()

    def only_float(candidate: onnx.ModelProto) -> float:
        return 9.0 if any(node.op_type == "QuantizeLinear" for node in candidate.graph.node) else 0.0

    chosen = quantise(proto, calibration=CALIBRATION, accuracy_loss=only_float, allowed_loss=0.5)
    assert chosen.holds
    assert chosen.remark == "all 5 layers had to stay in float32: nothing is left of int8"


def test_a_model_without_layers_is_returned_as_it_is_and_says_so() -> None:
    nodes = [helper.make_node("ReduceMean", ["normalised", "axes"], ["outputs"], "mean", keepdims=0)]
    proto = core(nodes, {}, num_outputs=3)
    chosen = quantise(proto, calibration=CALIBRATION, accuracy_loss=lambda _: 0.0, allowed_loss=0.5)
    assert chosen.proto is proto
    assert (chosen.calibration, chosen.tried, chosen.num_layers) == ("", [], 0)
    assert chosen.remark.startswith("nothing to quantise")


def test_a_model_of_pairs_is_quantised_over_both_inputs() -> None:
    proto = pair_model()
    first, second = images(64, seed=6), 2 * images(64, seed=7)
    pairs = [{"normalised_first": first, "normalised_second": second}]
    chosen = quantise(proto, calibration=pairs, accuracy_loss=lambda _: 0.0, allowed_loss=0.5)
    assert [value.name for value in chosen.proto.graph.input] == ["normalised_first", "normalised_second"]
    assert layers(prepared(proto)) == ("twin", "head")
    assert noise(run(proto, first, second), run(chosen.proto, first, second)) < 1e-2
    assert run(chosen.proto, first[:1], second[:1]).shape == (1, 1)


def test_progress_ends_at_its_total_or_before() -> None:
    seen: list[tuple[int, int]] = []
    loss = Disagreement(classifier())
    quantise(
        classifier(),
        calibration=CALIBRATION,
        accuracy_loss=loss,
        allowed_loss=-1.0,
        report=lambda done, total: seen.append((done, total)),
    )
    assert seen[:3] == [(1, 3), (2, 3), (3, 3)]
    assert all(done <= total for done, total in seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert loss.asked < len(seen)


def test_nothing_is_printed_left_behind_or_written_into_the_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    proto = classifier()
    before = proto.SerializeToString(deterministic=True)
    quantise_toy(proto)
    assert proto.SerializeToString(deterministic=True) == before
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_no_images_to_calibrate_on_is_an_error() -> None:
    for empty in ([], [{"normalised": images(0)}]):
        with pytest.raises(BenchError, match="no images to calibrate on"):
            quantise(classifier(), calibration=empty, accuracy_loss=lambda _: 0.0, allowed_loss=0.5)


def test_a_nan_in_the_weights_is_named_by_the_tensor_that_it_reaches() -> None:
    proto = classifier()
    deep = next(tensor for tensor in proto.graph.initializer if tensor.name == "deep.w")
    values = numpy_helper.to_array(deep).copy()
    values[2, 0, 1, 1] = np.nan
    deep.CopyFrom(numpy_helper.from_array(values, "deep.w"))
    with pytest.raises(BenchError, match="tensor 'd' is not finite"):
        quantise_toy(proto)


def test_a_model_that_onnxruntime_refuses_is_an_error_with_its_reason() -> None:
    proto = classifier()
    proto.graph.node[0].op_type = "Convolution"
    with pytest.raises(BenchError, match=r"onnxruntime refuses the model: .*Convolution"):
        quantise_toy(proto)


def test_extremes_are_exact_whatever_the_batches() -> None:
    model = prepared(classifier())
    values = np.concatenate([batch["normalised"] for batch in CALIBRATION])
    whole = observe(model, [{"normalised": values}], tensors=["normalised", "f"])
    parts = observe(model, list(portions(CALIBRATION, num_images=7)), tensors=["normalised", "f"])
    assert (whole["normalised"].low, whole["normalised"].high) == (values.min(), values.max())
    assert parts["f"].low == pytest.approx(whole["f"].low, rel=1e-5)
    assert parts["f"].high == pytest.approx(whole["f"].high, rel=1e-5)


def test_a_sample_is_bounded_and_covers_every_column() -> None:
    seen = Observed()
    columns = np.broadcast_to(np.arange(64, dtype=np.float32), (4, 16, 64, 64))
    for turn in range(3):
        seen.add(np.ascontiguousarray(columns), quota=3000, turn=turn)
    assert 8000 < seen.sample.size <= 9100
    counts = np.bincount(seen.sample.astype(int), minlength=64)
    assert counts.min() > 0.8 * counts.max()


def test_percentile_cuts_a_hundredth_of_a_percent_and_entropy_an_outlier() -> None:
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    values[0] = 500.0
    seen = Observed()
    seen.add(values, quota=values.size, turn=0)
    assert METHODS["minmax"](seen) == (seen.low, 500.0)
    low, high = METHODS["percentile"](seen)
    assert (low, high) == pytest.approx((-3.89, 3.89), abs=0.15)  # the normal's quantiles at 0.005 % and 99.995 %
    assert METHODS["entropy"](seen)[1] < 50


def test_what_is_zero_everywhere_has_an_empty_range() -> None:
    seen = Observed()
    seen.add(np.zeros(10, np.float32), quota=10, turn=0)
    assert [rule(seen) for rule in METHODS.values()] == [(0.0, 0.0)] * 3


@pytest.mark.parametrize("least", [1, 2, 3, 5, 8, 13, 53, 54])
def test_the_fewest_that_hold_are_found_in_few_trials(least: int) -> None:
    asked: list[int] = []

    def holds(count: int) -> bool:
        asked.append(count)
        return count >= least

    assert fewest(holds, 53) == (least if least <= 53 else None)
    assert len(asked) == len(set(asked)) <= 2 * math.log2(53) + 1
