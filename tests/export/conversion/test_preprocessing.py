"""The resize and the normalisation in the graph give the very bytes of Pillow and the very floats of torch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from PIL import Image

from bench.images import FILTERS, fit
from bench.stages.batches import Preprocessing as TorchPreprocessing
from bench_export.card import Preprocessing
from bench_export.conversion.preprocessing import preprocess
from bench_export.conversion.resampling import chooses_order

POLICIES = ("squash", "crop", "pad")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Height and width: reduced, enlarged, both, odd, equal on one side or both, strips, a single pixel.
SIZES = [
    (37, 53),
    (100, 75),
    (24, 18),
    (24, 40),
    (48, 18),
    (25, 18),
    (7, 5),
    (11, 90),
    (200, 9),
    (400, 3),
    (3, 400),
    (1, 1),
    (1, 60),
    (70, 1),
]


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_any_size_are_those_of_pillow(channels: int, policy: str, filter_: str) -> None:
    how = _preprocessing((24, 18), channels, policy, filter_)
    for height, width in SIZES:
        for image in _hard_images(height, width, channels):
            pixels, _ = _run(how, image[None])
            np.testing.assert_array_equal(pixels[0], _by_pillow(image, how), err_msg=f"{height} x {width}")


@pytest.mark.parametrize("filter_", FILTERS)
def test_random_sizes_and_targets_are_those_of_pillow(filter_: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(3):
        target = tuple(int(side) for side in rng.integers(1, 70, 2))
        for policy in POLICIES:
            how = _preprocessing((target[0], target[1]), 3, policy, filter_)
            for _ in range(4):
                height, width = rng.integers(1, 150, 2)
                image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                pixels, _ = _run(how, image[None])
                message = f"{height} x {width} to {target}, {policy}"
                np.testing.assert_array_equal(pixels[0], _by_pillow(image, how), err_msg=message)


@pytest.mark.parametrize("filter_", ["bilinear", "lanczos", "box"])
def test_a_photograph_of_many_megapixels_is_exact_too(filter_: str) -> None:
    how = _preprocessing((24, 18), 1, "squash", filter_)
    for height, width in ((3000, 40), (40, 2900), (900, 1300)):
        for image in _hard_images(height, width, 1):
            np.testing.assert_array_equal(_run(how, image[None])[0][0], _by_pillow(image, how))


def test_the_order_of_the_passes_is_the_installed_pillows() -> None:
    image = next(iter(_hard_images(400, 3, 1)))
    how = _preprocessing((64, 64), 1, "squash", "lanczos")
    across = _by_pillow(_by_pillow(image, _preprocessing((400, 64), 1, "squash", "lanczos")), how)
    down = _by_pillow(_by_pillow(image, _preprocessing((64, 3), 1, "squash", "lanczos")), how)
    assert (across != down).any()
    np.testing.assert_array_equal(_by_pillow(image, how), down if chooses_order() else across)


@pytest.mark.parametrize("policy", POLICIES)
def test_images_of_the_models_size_pass_untouched(policy: str) -> None:
    how = _preprocessing((24, 18), 3, policy, "lanczos")
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 18, 3), dtype=np.uint8)
    np.testing.assert_array_equal(_run(how, images)[0], images)


def test_every_image_of_a_batch_is_treated_alike() -> None:
    how = _preprocessing((24, 18), 3, "crop", "bicubic")
    images = np.random.default_rng(0).integers(0, 256, (5, 61, 45, 3), dtype=np.uint8)
    pixels, normalised = _run(how, images)
    for image, fitted, values in zip(images, pixels, normalised, strict=True):
        np.testing.assert_array_equal(fitted, _by_pillow(image, how))
        np.testing.assert_array_equal(values, _run(how, image[None])[1][0])


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_values_are_those_of_training_bit_for_bit(channels: int) -> None:
    how = _preprocessing((16, 16), channels, "squash", "bilinear")
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(channels, axis=3)  # every value there is
    reference = TorchPreprocessing(how.mean, how.std, torch.contiguous_format)
    wanted = reference.normalise(reference.scale(torch.from_numpy(images))).numpy()
    _, normalised = _run(how, images)
    assert normalised.dtype == np.float32
    np.testing.assert_array_equal(normalised, wanted)


def test_every_node_and_inner_tensor_of_ours_says_so() -> None:
    part = preprocess("images", _preprocessing((8, 8), 3, "pad", "bicubic"), pixels="pixels", normalised="normalised")
    names = {name for node in _all_nodes(part.nodes) for name in (node.name, *node.output)}
    strangers = {name for name in names if not name.startswith("visionbench/")}
    assert strangers == {"pixels", "normalised"}
    assert all(tensor.name.startswith("visionbench/") for tensor in part.constants)


@pytest.mark.real_data
@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize("policy", POLICIES)
def test_real_photographs_are_those_of_pillow(policy: str, filter_: str) -> None:
    for target in ((64, 64), (60, 47), (224, 224), (300, 300)):
        how = _preprocessing(target, 3, policy, filter_)
        for image in _photographs():
            np.testing.assert_array_equal(_run(how, image[None])[0][0], _by_pillow(image, how), err_msg=str(target))


def _preprocessing(size: tuple[int, int], channels: int, policy: str, filter_: str) -> Preprocessing:
    mean, std = MEAN[:channels], STD[:channels]
    return Preprocessing(size, channels, policy, filter_, mean, std)  # type: ignore[arg-type]  # strings from a table


def _hard_images(height: int, width: int, channels: int) -> Iterable[NDArray[np.uint8]]:
    """Noise, black and white only (the filters overshoot), and few grey levels (sums fall between two levels)."""
    rng = np.random.default_rng(height * 1000 + width)
    shape = (height, width, channels)
    yield rng.integers(0, 256, shape, dtype=np.uint8)
    yield (rng.integers(0, 2, shape) * 255).astype(np.uint8)
    yield rng.integers(0, 3, shape, dtype=np.uint8)


def _by_pillow(image: NDArray[np.uint8], how: Preprocessing) -> NDArray[np.uint8]:
    return fit(Image.fromarray(image if how.channels == 3 else image[..., 0]), how.decoding())


def _run(how: Preprocessing, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    pixels, normalised = _session(how).run(["pixels", "normalised"], {"images": images})
    return pixels, normalised


@cache
def _session(how: Preprocessing) -> Any:
    part = preprocess("images", how, pixels="pixels", normalised="normalised")
    size, channels = how.size, how.channels
    graph = helper.make_graph(
        part.nodes,
        "preprocessing",
        [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", "H", "W", channels])],
        [
            helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ["N", *size, channels]),
            helper.make_tensor_value_info("normalised", onnx.TensorProto.FLOAT, ["N", channels, *size]),
        ],
        part.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _all_nodes(attribute.g.node)


@cache
def _photographs() -> tuple[NDArray[np.uint8], ...]:
    """The first few of each set, whose sizes differ: faces, traffic signs, people, everyday photographs."""
    root = Path(os.environ["BENCH_DATA"])
    found: list[NDArray[np.uint8]] = []
    for name in ("lfw", "gtsrb", "smoking", "imagenet_sample"):
        files = sorted(
            path for path in (root / name).rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".ppm"}
        )
        for path in files[:: max(1, len(files) // 4)][:4]:
            with Image.open(path) as image:
                array = np.asarray(image.convert("RGB"))
            found += [array, array[: -(array.shape[0] // 3), 5:], array[3:, : array.shape[1] // 4]]
    assert len({image.shape for image in found}) >= 9
    return tuple(found)
