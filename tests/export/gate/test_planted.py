"""Planted faults: each is rejected, with the right reason and the right node."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from bench_export.conversion.core import convert_core
from bench_export.conversion.half import to_half
from bench_export.gate.departures import Trained, first_departure
from bench_export.gate.judge import judge
from bench_export.gate.probes import ProbeSamples, check_resizing
from bench_export.gate.report import LIMITS, GateReport
from bench_export.prediction.numpy_steps import normalise


class BatchStatistics(nn.Module):
    """What a batch normalisation does that was left in training mode."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(images, None, None, self.norm.weight, self.norm.bias, training=True)


def _with_gather(core: ModelProto, *, source: str, order: list[int]) -> ModelProto:
    """A core that puts axis 1 of its input, or of its output, into another order."""
    changed = copy.deepcopy(core)
    changed.graph.initializer.append(numpy_helper.from_array(np.array(order), "order"))
    if source == "outputs":
        for node in changed.graph.node:
            node.output[:] = ["straight" if name == source else name for name in node.output]
        changed.graph.node.append(helper.make_node("Gather", ["straight", "order"], [source], name="exchange", axis=1))
    else:
        for node in changed.graph.node:
            node.input[:] = ["exchanged" if name == source else name for name in node.input]
        gather = helper.make_node("Gather", [source, "order"], ["exchanged"], name="exchange", axis=1)
        changed.graph.node.insert(0, gather)
    return changed


def test_the_export_itself_passes_and_nothing_departs(finished: Any) -> None:
    candidate = finished.write(finished.joined())
    report = finished.ask(candidate)
    assert report.passed, report.reasons
    assert report.agreement == 1.0
    assert 0 < report.max_difference < 1e-4
    assert report.accuracy["trained"] == report.accuracy["exported"] > 0.6
    assert [batch["size"] for batch in report.batches] == [2, 7]
    assert all(batch["images"] >= batch["size"] for batch in report.batches)
    assert finished.departure(candidate, report) is None


def test_normalisation_left_out(finished: Any) -> None:
    candidate = finished.write(finished.joined(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    report = finished.ask(candidate)
    assert any("probabilities differ by up to" in reason for reason in report.reasons)
    departure = finished.departure(candidate, report)
    assert departure is not None
    assert departure.what == "the normalisation is left out"
    assert departure.node.startswith("visionbench/")


def test_batch_normalisation_in_training_mode(finished: Any) -> None:
    model = copy.deepcopy(finished.restored.model)
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    parent, _, last = norms[0].rpartition(".")
    setattr(model.get_submodule(parent), last, BatchStatistics(model.get_submodule(norms[0])))
    core = convert_core(model, finished.restored.spec).proto
    candidate = finished.write(finished.joined(core))
    report = finished.ask(candidate)
    assert any("in batches of 7 the same images get other answers than one at a time" in r for r in report.reasons)
    departure = finished.departure(candidate, report)
    assert departure is not None
    assert departure.module.startswith(norms[0])


def test_a_trained_model_whose_own_answers_depend_on_the_batch(finished: Any) -> None:
    model = copy.deepcopy(finished.restored.model)
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    parent, _, last = norms[0].rpartition(".")
    setattr(model.get_submodule(parent), last, BatchStatistics(model.get_submodule(norms[0])))
    candidate = finished.write(finished.joined(convert_core(model, finished.restored.spec).proto))
    samples = finished.material.gate()

    def reference(images: Any) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(normalise(images, finished.preprocessing))).softmax(1).numpy()

    report = judge(reference, candidate, samples, precision="fp32")
    assert any("in batches of 7 the same images get other answers than one at a time" in r for r in report.reasons)
    departure = first_departure(
        candidate.session.path,
        samples,
        report,
        preprocessing=finished.preprocessing,
        trained=Trained(reference, model),
    )
    assert departure is not None
    assert departure.module.startswith(norms[0])
    assert departure.what == "its value for an image depends on the others of the batch"


def test_a_batch_dimension_frozen_at_the_input(finished: Any) -> None:
    proto = finished.joined()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    candidate = finished.write(proto)
    report = finished.ask(candidate)
    assert any("it cannot run a batch of 2" in r and "frozen" in r for r in report.reasons)
    departure = finished.departure(candidate, report)
    assert departure is not None
    assert (departure.node, departure.op) == ("images", "input")


def test_a_batch_dimension_frozen_inside(finished: Any) -> None:
    proto = finished.joined()
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 3]), "one row"))
    for node in proto.graph.node:
        node.output[:] = ["free" if name == "outputs" else name for name in node.output]
    place = next(index for index, node in enumerate(proto.graph.node) if "outputs" in node.input)
    proto.graph.node.insert(place, helper.make_node("Reshape", ["free", "one row"], ["outputs"], name="frozen"))
    del proto.graph.value_info[:]
    candidate = finished.write(proto)
    report = finished.ask(candidate)
    assert any("it cannot run a batch of 2" in reason for reason in report.reasons)
    departure = finished.departure(candidate, report)
    assert departure is not None
    assert (departure.node, departure.op) == ("frozen", "Reshape")


def test_channels_exchanged_before_the_model(finished: Any) -> None:
    candidate = finished.write(finished.joined(_with_gather(finished.core, source="normalised", order=[2, 1, 0])))
    report = finished.ask(candidate)
    assert any("another answer than the trained model's" in reason for reason in report.reasons)
    departure = finished.departure(candidate, report)
    assert departure is not None
    assert departure.op == "Gather"
    assert "another order" in departure.what


def test_channels_exchanged_in_the_first_weights(finished: Any, plant: Callable[..., ModelProto]) -> None:
    candidate = finished.write(finished.joined(plant(finished.core, "Conv", lambda weight: weight[:, ::-1])))
    report = finished.ask(candidate)
    assert not report.passed
    departure = finished.departure(candidate, report)
    assert departure is not None
    first = next(node for node in finished.core.graph.node if node.op_type == "Conv")
    assert (departure.op, departure.node) == ("Conv", first.name)


def test_classes_exchanged_in_the_outputs(finished: Any) -> None:
    candidate = finished.write(finished.joined(_with_gather(finished.core, source="outputs", order=[1, 0, 2])))
    report = finished.ask(candidate)
    assert any("accuracy" in r or "another answer" in r for r in report.reasons)
    departure = finished.departure(candidate, report)
    assert departure is not None
    assert departure.op == "Gather"
    assert "another order: the classes" in departure.what


def test_classes_exchanged_in_their_names(finished: Any) -> None:
    red, *others = finished.card.classes[::-1]
    candidate = finished.write(finished.joined(), classes=(red, *others))
    report = finished.ask(candidate)
    assert report.reasons == ["its classes stand in another order: class 0 is 'red', in the run 'blue'"]
    assert finished.departure(candidate, report) is None


def test_a_wrong_resize_filter(finished: Any) -> None:
    candidate = finished.write(finished.joined(filter="nearest"))
    report = finished.ask(candidate)
    assert not report.passed
    departure = finished.departure(candidate, report)
    assert departure is not None
    assert "of the resized values differ from Pillow's" in departure.what
    assert departure.node.startswith("visionbench/")


def test_a_weight_that_is_no_number(finished: Any, plant: Callable[..., ModelProto]) -> None:
    def spoil(weight: Any) -> Any:
        weight.reshape(-1)[0] = np.nan
        return weight

    proto = finished.joined(plant(finished.core, "Conv", spoil, which=1))
    candidate = finished.write(proto)
    report = finished.ask(candidate)
    total = len(finished.material.gate())
    assert report.not_finite == total
    assert report.reasons[0].startswith(f"{total} of {total} answers are not finite, the first for ")
    departure = finished.departure(candidate, report)
    assert departure is not None
    assert departure.op == "Conv"
    assert "not finite" in departure.what
    second = [node for node in finished.core.graph.node if node.op_type == "Conv"][1]
    assert departure.node == second.name


def test_a_rounded_file_is_compared_with_the_exact_one(finished: Any, plant: Callable[..., ModelProto]) -> None:
    proto = finished.joined(plant(finished.core, "Conv", lambda weight: -weight, which=1))
    candidate = finished.write(proto, precision="int8")
    report = finished.ask(candidate, "int8")
    assert any(reason.startswith("accuracy falls by ") for reason in report.reasons)
    departure = finished.departure(candidate, report, exact=finished.joined())
    assert departure is not None
    second = [node for node in finished.core.graph.node if node.op_type == "Conv"][1]
    assert (departure.op, departure.node) == ("Conv", second.name)


def test_a_fault_in_a_raw_file(finished: Any, plant: Callable[..., ModelProto]) -> None:
    how = dataclasses.replace(finished.preprocessing, in_graph=False)
    sound = finished.write(finished.core, preprocessing=how)
    report = finished.ask(sound)
    assert report.passed, report.reasons
    assert finished.departure(sound, report) is None
    faulty = finished.write(plant(finished.core, "Conv", lambda weight: -weight), preprocessing=how)
    report = finished.ask(faulty)
    assert not report.passed
    departure = finished.departure(faulty, report)
    assert departure is not None
    assert departure.node == next(node.name for node in finished.core.graph.node if node.op_type == "Conv")


def test_a_wrong_resize_filter_where_all_images_have_the_models_size_already(finished: Any) -> None:
    wrong = finished.write(finished.joined(filter="nearest"))
    report = GateReport("fp32", "validation", "", 1, dict(LIMITS))
    check_resizing(report, wrong, finished.preprocessing, "classification")
    (reason,) = report.reasons
    assert reason.startswith("it does not resize as Pillow does: answers to synthetic images change by up to ")
    samples = ProbeSamples(finished.preprocessing, "classification")
    looked_at = dataclasses.replace(report, worst=[{"position": one} for one in samples.larger_and_smaller])
    trained = Trained(finished.restored.predict, finished.restored.model)
    departure = first_departure(
        wrong.session.path, samples, looked_at, preprocessing=finished.preprocessing, trained=trained
    )
    assert departure is not None
    assert "of the resized values differ from Pillow's" in departure.what


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_exact_resize_changes_no_answer_at_all(finished: Any, precision: str) -> None:
    core = finished.core if precision == "fp32" else to_half(finished.core)
    report = GateReport(precision, "validation", "", 1, {**LIMITS, "batch_difference": 0.0})
    check_resizing(report, finished.write(finished.joined(core)), finished.preprocessing, "classification")
    assert report.passed, report.reasons
