"""Resize and normalise a photograph in the graph, against Pillow and numpy: as fast as that, and to the same values."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper
from PIL import Image
from side_by_side import compare, seconds_of, table

from bench.images import fit
from bench_export.card import Preprocessing
from bench_export.conversion.preprocessing import preprocess

pytestmark = [pytest.mark.benchmark, pytest.mark.real_data]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CALLS = 100


@pytest.mark.parametrize("filter_", ["bilinear", "bicubic"])
def test_a_photograph_of_250_pixels_costs_at_most_one_and_a_half_times_pillow_and_numpy(filter_: str) -> None:
    how = Preprocessing((64, 64), 3, "squash", filter_, MEAN, STD)
    session, photograph = _session(how), _photograph()
    images = np.asarray(photograph)[None]
    assert images.shape == (1, 250, 250, 3)
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)

    def in_python() -> NDArray[np.float32]:
        scaled = fit(photograph, how.decoding())[None].astype(np.float32) / np.float32(255)
        return np.ascontiguousarray(((scaled - mean) / std).transpose(0, 3, 1, 2))

    def in_graph() -> NDArray[np.float32]:
        values: NDArray[np.float32] = session.run(None, {"images": images})[0]
        return values

    np.testing.assert_array_equal(in_graph(), in_python())
    ratios = compare(
        f"Pillow and numpy over the graph, {filter_}", _repeated(in_graph), _repeated(in_python), rounds=15
    )
    table({"graph": _repeated(in_graph)() * 1e3, "Pillow and numpy": _repeated(in_python)() * 1e3}, "ms")
    assert ratios.median >= 1 / 1.5


def test_an_image_of_the_models_size_costs_next_to_nothing() -> None:
    how = Preprocessing((64, 64), 3, "squash", "bilinear", MEAN, STD)
    session, photograph = _session(how), _photograph()
    large, fitted = np.asarray(photograph)[None], fit(photograph, how.decoding())[None]
    resized = _repeated(lambda: session.run(None, {"images": large}))
    untouched = _repeated(lambda: session.run(None, {"images": fitted}))
    assert compare("resizing over not resizing", untouched, resized).median >= 5


def _repeated(work: Callable[[], object]) -> Callable[[], float]:
    """Seconds of one call, from the median of many."""
    return lambda: float(np.median([seconds_of(work) for _ in range(CALLS)]))


def _photograph() -> Image.Image:
    path = next(iter(sorted(Path(os.environ["BENCH_DATA"], "lfw").rglob("*.jpg"))))
    with Image.open(path) as image:
        return image.convert("RGB")


def _session(how: Preprocessing) -> Any:
    part = preprocess("images", how, pixels="pixels", normalised="normalised")
    images = helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", "H", "W", 3])
    normalised = helper.make_tensor_value_info("normalised", onnx.TensorProto.FLOAT, ["N", 3, *how.size])
    graph = helper.make_graph(part.nodes, "preprocessing", [images], [normalised], part.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
