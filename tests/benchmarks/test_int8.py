"""MobileNetV2 at 64 px, one image at a time: torch, onnxruntime and int8, in turns.

pytest -m benchmark -s tests/benchmarks/test_int8.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from bench.kinds import DataSpec
from bench_export.conversion.core import convert_core
from bench_export.conversion.quantise import Quantised, quantise
from bench_plugins.models.mobilenet_v2 import mobilenet_v2

#: Must reach. The accuracy is in points.
TORCH_OVER_FP32, FP32_OVER_INT8, ALLOWED_LOSS = 6.0, 1.15, 0.5

BLOCKS, QUERIES, UNCOUNTED = 15, 40, 10
SIDE, CLASSES = 64, 10


@dataclass(frozen=True)
class Subject:
    """A trained network, the same in ONNX and in int8, and images that none of them has seen."""

    network: torch.nn.Module
    fp32: onnx.ModelProto
    int8: Quantised
    images: NDArray[np.float32]


def drawn(count: int, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Gratings in ten directions, with phases, colours and noise of their own: N,3,64,64 and the direction."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    angle = (labels + generator.uniform(-0.2, 0.2, count)) * np.pi / CLASSES
    waves = generator.uniform(0.3, 0.7, count)
    down, right = np.mgrid[:SIDE, :SIDE]
    along = np.cos(angle)[:, None, None] * right + np.sin(angle)[:, None, None] * down
    phase = waves[:, None, None] * along + generator.uniform(0, 2 * np.pi, (count, 1, 1))
    colours = generator.uniform(0.3, 1.2, (count, 3, 1, 1))
    noise = generator.normal(scale=0.5, size=(count, 3, SIDE, SIDE))
    return (colours * np.sin(phase)[:, None] + noise).astype(np.float32), labels


def trained() -> torch.nn.Module:
    """MobileNetV2 after a few passes over the gratings: its activations are those of a trained network."""
    torch.manual_seed(0)
    names = tuple(str(number) for number in range(CLASSES))
    network = mobilenet_v2(DataSpec("classification", names, 3, (SIDE, SIDE))).train()
    images, labels = (torch.from_numpy(values) for values in drawn(800, seed=1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    steps = 6 * len(images) // 32
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(images), (32,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        cross_entropy(network(images[rows]), labels[rows]).backward()
        optimizer.step()
        scheduler.step()
    return network.eval()


@pytest.fixture(scope="module")
def subject() -> Subject:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads beside a busy neighbour are slower than one
    network = trained()
    torch.set_num_threads(before)
    names = tuple(str(number) for number in range(CLASSES))
    fp32 = convert_core(network, DataSpec("classification", names, 3, (SIDE, SIDE))).proto
    images, labels = drawn(1000, seed=2)

    def accuracy(proto: onnx.ModelProto) -> float:
        outputs = session(proto, threads=2).run(None, {"normalised": images})[0]
        return 100 * float((outputs.argmax(1) == labels).mean())

    exact = accuracy(fp32)
    start = time.perf_counter()
    int8 = quantise(
        fp32,
        calibration=[{"normalised": drawn(300, seed=3)[0]}],
        accuracy_loss=lambda proto: exact - accuracy(proto),
        allowed_loss=ALLOWED_LOSS,
    )
    seconds = time.perf_counter() - start
    sys.stderr.write(f"\nfp32 {exact:.1f} %; int8 ({int8.calibration}, {int8.remark}) loses {int8.loss:.2f} points; ")
    sys.stderr.write(f"quantised in {seconds:.1f} s\n")
    return Subject(network, fp32, int8, images[:QUERIES])


def session(proto: onnx.ModelProto, *, threads: int):  # type: ignore[no-untyped-def]  # noqa: ANN201  # onnxruntime is untyped
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def medians(
    candidates: Mapping[str, Callable[[NDArray[np.float32]], object]], images: NDArray[np.float32]
) -> dict[str, list[float]]:
    """Milliseconds an image: the median of each block, the candidates in turns, warm before each block."""
    blocks: dict[str, list[float]] = {name: [] for name in candidates}
    for block in range(BLOCKS + 1):
        for name, predict in candidates.items():
            times = []
            for query in range(UNCOUNTED + QUERIES):
                image = images[query % len(images)][None]
                start = time.perf_counter()
                predict(image)
                times.append(time.perf_counter() - start)
            if block:  # the first one warms up
                blocks[name].append(1e3 * statistics.median(times[UNCOUNTED:]))
    return blocks


def told(name: str, slow: list[float], fast: list[float]) -> float:
    """Print the ratio of each block pair's medians with its quartiles, and return their median."""
    ratios = sorted(one / other for one, other in zip(slow, fast, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    sys.stderr.write(
        f"{name}: {middle:.2f}x (quartiles {low:.2f} to {high:.2f}, all {ratios[0]:.2f} to {ratios[-1]:.2f}, "
        f"{len(ratios)} blocks of {QUERIES}; {statistics.median(slow):.3f} / {statistics.median(fast):.3f} ms)\n"
    )
    return middle


@pytest.mark.benchmark
@pytest.mark.parametrize("threads", [1, 2])
def test_mobilenet_is_faster_exported_and_faster_still_in_int8(subject: Subject, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    fp32, int8 = session(subject.fp32, threads=threads), session(subject.int8.proto, threads=threads)

    @torch.inference_mode()
    def eager(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return subject.network(torch.from_numpy(image)).numpy()

    try:
        # Torch apart from int8: idle threads of three pools on two cores spin against each other.
        both = {"fp32": lambda image: fp32.run(None, {"normalised": image})}
        against_torch = medians({"torch": eager, **both}, subject.images)
        against_int8 = medians({**both, "int8": lambda image: int8.run(None, {"normalised": image})}, subject.images)
    finally:
        torch.set_num_threads(before)
    sys.stderr.write("\n")
    exported = told(f"torch over fp32, {threads} threads", against_torch["torch"], against_torch["fp32"])
    quantised = told(f"fp32 over int8, {threads} threads", against_int8["fp32"], against_int8["int8"])
    assert subject.int8.holds, subject.int8.remark
    assert exported >= TORCH_OVER_FP32
    assert quantised >= FP32_OVER_INT8
