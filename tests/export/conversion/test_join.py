"""A whole file: images of any size in, answers out, the same as the torch pipeline gives."""

from __future__ import annotations

import itertools
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
from torch import nn

import bench
from bench.errors import BenchError
from bench.images import fit
from bench.kinds import PAIR_CLASSES, DataSpec
from bench.stages.batches import Preprocessing as TorchPreprocessing
from bench.stages.optim import probabilities
from bench_export.card import Card, Preprocessing, read_card
from bench_export.conversion.core import convert_core
from bench_export.conversion.join import image_inputs, join, write

SIZES = [(24, 18), (41, 37), (90, 60), (9, 7)]
THRESHOLD = 0.4321


class Small(nn.Module):
    """Images -> three logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.score = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.score(self.body(images).mean((2, 3)))
        return result


class Twin(nn.Module):
    """Two batches of images -> one logit a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        sides = [self.first(images).mean((2, 3)) for images in (first, second)]
        return 2.4 - (sides[0] - sides[1]).abs().sum(1, keepdim=True)


CLASSES = DataSpec("classification", ("a", "b", "c"), 3, (24, 18))
PAIRS = DataSpec("verification", PAIR_CLASSES, 3, (24, 18))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def core(network: nn.Module) -> onnx.ModelProto:
    return convert_core(network, CLASSES).proto


@pytest.fixture(scope="module")
def twin() -> nn.Module:
    torch.manual_seed(1)
    return Twin().eval()


@pytest.fixture(scope="module")
def pair_core(twin: nn.Module) -> onnx.ModelProto:
    return convert_core(twin, PAIRS).proto


@pytest.mark.parametrize("policy", ["squash", "crop", "pad"])
def test_probabilities_of_images_of_any_size_are_those_of_torch(
    network: nn.Module, core: onnx.ModelProto, policy: str
) -> None:
    how = _preprocessing(policy)
    session = _session(_joined(core, how))
    assert [value.name for value in session.get_inputs()] == ["images"]
    for size, batch in itertools.product(SIZES, (1, 3)):
        images = _images(batch, size)
        (given,) = session.run(None, {"images": images})
        with torch.inference_mode():
            wanted = probabilities(network(_prepared(images, how)), "cross_entropy").numpy()
        np.testing.assert_allclose(given, wanted, atol=1e-6)


def test_scores_and_decisions_of_pairs_of_two_sizes_are_those_of_torch(
    twin: nn.Module, pair_core: onnx.ModelProto
) -> None:
    how = _preprocessing("crop")
    session = _session(_joined_pairs(pair_core, how))
    assert [value.name for value in session.get_inputs()] == ["first", "second"]
    assert [value.name for value in session.get_outputs()] == ["score", "decision"]
    decisions = []
    for sizes, batch in itertools.product(itertools.product(SIZES, SIZES), (1, 4)):
        first, second = _images(batch, sizes[0]), _images(batch, sizes[1], seed=1)
        score, decision = session.run(None, {"first": first, "second": second})
        with torch.inference_mode():
            wanted = probabilities(twin(_prepared(first, how), _prepared(second, how)), "bce").numpy()[:, 1]
        np.testing.assert_allclose(score, wanted, atol=1e-5)
        np.testing.assert_array_equal(decision, score >= np.float32(THRESHOLD))
        decisions += decision.tolist()
    assert len(set(decisions)) == 2  # both occur


def test_the_inner_tensors_can_be_asked_for_by_name(pair_core: onnx.ModelProto, core: onnx.ModelProto) -> None:
    joined = _joined(core, _preprocessing("pad"))
    made = {name for node in joined.graph.node for name in node.output}
    assert {"pixels", "normalised", "outputs", "probabilities"} <= made
    pairs = _joined_pairs(pair_core, _preprocessing("pad"))
    made = {name for node in pairs.graph.node for name in node.output}
    sides = {f"{name}_{side}" for name in ("pixels", "normalised") for side in image_inputs("verification")}
    assert {*sides, "outputs", "score", "decision"} <= made


def test_the_core_stays_as_it_is(core: onnx.ModelProto) -> None:
    before = core.SerializeToString(deterministic=True)
    _joined(core, _preprocessing("pad"))
    assert core.SerializeToString(deterministic=True) == before


def test_tensors_of_the_model_that_have_our_names_are_renamed() -> None:
    nodes = [
        helper.make_node("Flatten", ["normalised"], ["pixels"]),
        helper.make_node("MatMul", ["pixels", "images"], ["visionbench/x"]),
        helper.make_node("Identity", ["visionbench/x"], ["outputs"]),
    ]
    weights = onnx.numpy_helper.from_array(np.ones((24 * 18 * 3, 3), np.float32), "images")
    ends = (("normalised", ["N", 3, 24, 18]), ("outputs", ["N", 3]))
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends]
    graph = helper.make_graph(nodes, "odd", values[:1], values[1:], [weights])
    odd = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (given,) = _session(_joined(odd, _preprocessing("pad"))).run(None, {"images": _images(2, (30, 30))})
    np.testing.assert_allclose(given, np.full((2, 3), 1 / 3), atol=1e-6)


@pytest.mark.parametrize(
    ("preprocessing", "changes", "message"),
    [
        ({"size": (24, 20)}, {}, "3 x 24 x 18, the preprocessing gives 3 x 24 x 20"),
        ({}, {"num_classes": 4}, "3 outputs for 4 classes"),
        ({}, {"loss": "contrastive", "num_classes": 2}, "3 outputs for 2 classes"),
        ({}, {"task": "verification", "threshold": 0.5}, "takes normalised instead of normalised_first"),
    ],
)
def test_a_core_that_does_not_fit_is_refused(
    core: onnx.ModelProto, preprocessing: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    how = _preprocessing("squash", **preprocessing)
    settings = {"task": "classification", "num_classes": 3, "loss": "cross_entropy", "threshold": None} | changes
    with pytest.raises(BenchError, match=message) as caught:
        join(core, preprocessing=how, **settings)
    assert caught.value.hint


def test_a_file_is_checked_carries_its_card_and_answers(core: onnx.ModelProto, tmp_path: Path) -> None:
    how = _preprocessing("pad")
    path, card = tmp_path / "new" / "model.onnx", Card("classification", CLASSES.classes, how, run="r-1")
    joined = _joined(core, how)
    write(joined, path, card)
    assert read_card(path) == card
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]
    assert not joined.metadata_props
    onnx.checker.check_model(path, full_check=True)
    assert _session(path).run(None, {"images": _images(2, (50, 40))})[0].shape == (2, 3)


def test_weights_that_are_too_large_for_one_file_lie_beside_it(core: onnx.ModelProto, tmp_path: Path) -> None:
    how = _preprocessing("squash")
    path, card = tmp_path / "model.onnx", Card("classification", CLASSES.classes, how)
    joined, images = _joined(core, how), _images(2, (50, 40))
    write(joined, path, card, largest=100)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert read_card(path) == card
    (given,) = _session(path).run(None, {"images": images})
    np.testing.assert_array_equal(given, _session(joined).run(None, {"images": images})[0])
    write(joined, path, card)  # small enough again
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_an_invalid_graph_is_refused_and_the_file_before_it_stays(core: onnx.ModelProto, tmp_path: Path) -> None:
    how = _preprocessing("squash")
    path, card = tmp_path / "model.onnx", Card("classification", CLASSES.classes, how)
    joined = _joined(core, how)
    write(joined, path, card)
    before = path.read_bytes()
    joined.graph.node[-1].input[0] = "nowhere"
    for largest in (2**31, 100):
        with pytest.raises(BenchError, match="not valid ONNX"):
            write(joined, path, card, largest=largest)
        assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
        assert path.read_bytes() == before


def _preprocessing(policy: str, **changes: Any) -> Preprocessing:
    settings = {"size": (24, 18), "channels": 3, "resize": policy, "filter": "bilinear"}
    return Preprocessing(**settings | {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)} | changes)


def _joined(core: onnx.ModelProto, how: Preprocessing) -> onnx.ModelProto:
    return join(core, preprocessing=how, task="classification", num_classes=3, loss="cross_entropy", threshold=None)


def _joined_pairs(core: onnx.ModelProto, how: Preprocessing) -> onnx.ModelProto:
    return join(core, preprocessing=how, task="verification", num_classes=2, loss="bce", threshold=THRESHOLD)


def _images(batch: int, size: tuple[int, int], *, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed + 10 * size[0])
    tints = rng.integers(1, 256, (batch, 1, 1, 3))
    return (rng.integers(0, 256, (batch, *size, 3)) * tints // 255).astype(np.uint8)


def _prepared(images: NDArray[np.uint8], how: Preprocessing) -> torch.Tensor:
    """As in training: Pillow, then torch."""
    fitted = np.stack([fit(Image.fromarray(image), how.decoding()) for image in images])
    reference = TorchPreprocessing(how.mean, how.std, torch.contiguous_format)
    return reference.normalise(reference.scale(torch.from_numpy(fitted)))


def _session(model: onnx.ModelProto | Path) -> Any:
    content = model if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def test_the_file_says_which_version_of_ours_made_it(core: onnx.ModelProto) -> None:
    made = _joined(core, _preprocessing("squash"))
    assert (made.producer_name, made.producer_version) == ("visionbench", bench.__version__)
