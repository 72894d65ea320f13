"""Outputs -> probabilities, scores and decisions: the same as after training, for every loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper

from bench.errors import BenchError
from bench.kinds import Task
from bench.stages.optim import probabilities
from bench_export.conversion.postprocessing import postprocess

#: Ordinary outputs, far ones, ties, none that is left after a sigmoid, and what a broken model gives.
OUTPUTS = np.array(
    [[0.3, -1.2, 2.5], [88.0, -95.0, 0.0], [1.0, 1.0, 1.0], [-120.0, -110.0, -130.0], [np.nan, 0.0, 1.0]], np.float32
)


@pytest.mark.parametrize("loss", ["cross_entropy", "nll", "bce"])
def test_probabilities_are_those_of_training(loss: str) -> None:
    given = _run(OUTPUTS, "classification", loss, None)["probabilities"]
    _same(given, OUTPUTS, loss)
    assert np.isnan(given[4]).any()


def test_a_single_logit_becomes_two_probabilities() -> None:
    single = OUTPUTS.reshape(-1, 1)
    given = _run(single, "classification", "bce", None)["probabilities"]
    assert given.shape == (15, 2)
    _same(given, single, "bce")


@pytest.mark.parametrize("loss", ["bce", "contrastive"])
def test_the_score_is_the_probability_of_same_and_is_compared_as_float32(loss: str) -> None:
    outputs = np.abs(np.nan_to_num(OUTPUTS)).reshape(-1, 1) if loss == "contrastive" else OUTPUTS[:4].reshape(-1, 1)
    wanted = probabilities(torch.from_numpy(outputs), loss).numpy()[:, 1]
    threshold = float(wanted[2])  # one score is just as large
    given = _run(outputs, "verification", loss, threshold)
    np.testing.assert_allclose(given["score"], wanted, rtol=2e-6, atol=1e-30)
    assert given["decision"].dtype == np.bool_
    np.testing.assert_array_equal(given["decision"], given["score"] >= np.float32(threshold))


def test_a_score_that_is_no_number_is_never_the_same() -> None:
    given = _run(np.array([[np.nan]], np.float32), "verification", "bce", 0.0)
    assert np.isnan(given["score"][0])
    assert not given["decision"][0]


def test_two_logits_of_a_pair_are_scored_by_the_second() -> None:
    outputs = OUTPUTS[:, :2]
    given = _run(outputs[:4], "verification", "cross_entropy", 0.5)["score"]
    np.testing.assert_allclose(given, torch.from_numpy(outputs[:4]).softmax(1)[:, 1].numpy(), rtol=2e-6, atol=1e-30)


def test_pairs_without_a_threshold_are_refused() -> None:
    with pytest.raises(BenchError, match="threshold") as caught:
        postprocess("outputs", task="verification", loss="bce", num_outputs=1, threshold=None)
    assert caught.value.hint


def _same(given: NDArray[np.float32], outputs: NDArray[np.float32], loss: str) -> None:
    wanted = probabilities(torch.from_numpy(outputs), loss).numpy()
    sound = ~np.isnan(wanted).any(axis=1)
    assert sound.sum() >= 4
    np.testing.assert_array_equal(np.isnan(given).any(axis=1), ~sound)
    np.testing.assert_allclose(given[sound], wanted[sound], rtol=2e-6, atol=1e-30)


def _run(outputs: NDArray[np.float32], task: Task, loss: str, threshold: float | None) -> dict[str, NDArray[Any]]:
    num_outputs = outputs.shape[1]
    part = postprocess("outputs", task=task, loss=loss, num_outputs=num_outputs, threshold=threshold)
    answers = {"probabilities": onnx.TensorProto.FLOAT}
    if task == "verification":
        answers = {"score": onnx.TensorProto.FLOAT, "decision": onnx.TensorProto.BOOL}
    graph = helper.make_graph(
        part.nodes,
        "postprocessing",
        [helper.make_tensor_value_info("outputs", onnx.TensorProto.FLOAT, ["N", num_outputs])],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in answers.items()],
        part.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(answers, session.run(list(answers), {"outputs": outputs}), strict=True))
