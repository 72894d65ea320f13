"""What LoadGen and our callbacks add: `bench latency`'s p50 beside a bare loop over the same session and inputs."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench_export.card import Card, Preprocessing
from bench_export.latency import samples
from bench_export.latency.loadgen import Demand, run
from bench_export.latency.subjects import open_subject

pytestmark = pytest.mark.benchmark

SIZE = 64
ROUNDS = 15
BLOCK_S = 0.4


def _network(path: Path, layers: int) -> Path:
    """A few convolutions on uint8 N,64,64,3: about 0.1 ms at four layers."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    weights = []
    for layer in range(layers):
        shape = (32, 32 if layer else 3, 3, 3)
        weights.append(numpy_helper.from_array(random.normal(0, 0.1, shape).astype(np.float32), f"w{layer}"))
        stride = 2 if layer < 2 else 1
        more = {"pads": [1] * 4, "strides": [stride, stride]}
        nodes.append(helper.make_node("Conv", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"], **more))
    nodes += [
        helper.make_node("GlobalAveragePool", [f"x{layers}"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["probabilities"]),
    ]
    pixels = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIZE, SIZE, 3])
    answers = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 32])
    graph = helper.make_graph(nodes, "network", [pixels], [answers], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    how = Preprocessing((SIZE, SIZE), 3, "squash", "bilinear", (0.0,) * 3, (1.0,) * 3)
    card = Card("classification", tuple(f"class {number}" for number in range(32)), how)
    helper.set_model_props(proto, card.properties())
    onnx.save(proto, path)
    return path


def _bare(session: Any, feeds: list[dict[str, Any]], order: list[int]) -> float:
    """The median of session.run in ns over a block's time, nothing else between."""
    times: list[int] = []
    clock, outputs, ask = time.perf_counter_ns, [one.name for one in session.get_outputs()], session.run
    end = clock() + int(BLOCK_S * 1e9)
    position = 0
    while (start := clock()) < end:
        ask(outputs, feeds[order[position]])
        times.append(clock() - start)
        position = (position + 1) % len(order)
    return statistics.median(times)


def _interleaved(ours: Callable[[int], float], bare: Callable[[], float]) -> list[float]:
    """Ours over bare, of neighbours in turns: A B, B A."""
    ratios = []
    for number in range(ROUNDS):
        if number % 2:
            theirs, own = bare(), ours(number)
        else:
            own, theirs = ours(number), bare()
        ratios.append(own / theirs)
    return ratios


@pytest.mark.parametrize("layers", [4, 16])
def test_p50_is_within_three_percent_of_a_bare_loop(layers: int, tmp_path: Path) -> None:
    path = _network(tmp_path / "model.onnx", layers)
    how = Card.from_properties({p.key: p.value for p in onnx.load(path).metadata_props})
    assert how is not None
    library = samples.collect(how.preprocessing.decoding(), pairs=False, run=None, card=None, data=None, seed=0)
    candidate = {"runtime": "ort", "path": str(path), "device": "cpu", "threads": 1, "tuning": None}
    system = open_subject(candidate, library.encoded).systems["compute"]
    session, feeds = _inside(system.one)
    order = np.random.default_rng(0).integers(0, len(feeds), 10_000).tolist()
    expected = _bare(session, feeds, order)
    demand = Demand("single", BLOCK_S, expected_ns=expected)

    def ours(number: int) -> float:
        block = run(system, Demand("single", demand.duration_s, demand.expected_ns, seed=number))
        return float(np.median(block.latencies_ns))

    ratios = _interleaved(ours, lambda: _bare(session, feeds, order))
    median = statistics.median(ratios)
    sys.stderr.write(
        f"\np50 by bench latency over a bare loop, {layers} layers, {expected / 1e6:.3f} ms: {median:.4f} "
        f"(median of {len(ratios)} pairs, {min(ratios):.3f} to {max(ratios):.3f})\n"
    )
    assert 0.97 <= median <= 1.03


def _inside(one: Callable[[int], object]) -> tuple[Any, list[dict[str, Any]]]:
    """The very session and inputs that the system asks."""
    import inspect

    closure = inspect.getclosurevars(one).nonlocals
    return closure["run"].__self__, closure["feeds"]
