"""torch -> ONNX: the same outputs at every batch size, by the newer exporter or, recorded, by the older one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from bench import registry, schema
from bench.errors import BenchError
from bench.kinds import PAIR_CLASSES, DataSpec
from bench_export.conversion.core import Core, convert_core, core_inputs

CLASSES = DataSpec("classification", ("a", "b", "c"), 3, (16, 16))
LARGER = DataSpec("classification", ("a", "b", "c"), 1, (32, 48))
PAIRS = DataSpec("verification", PAIR_CLASSES, 3, (64, 64))
BLOCKS = [{"channels": 4, "kernel": 5, "pool": 2, "batch_norm": True}, {"channels": 8, "kernel": 3, "pool": 4}]

QUICK: list[tuple[str, DataSpec, dict[str, Any]]] = [
    ("cnn", CLASSES, {}),
    ("lenet", CLASSES, {"batch_norm": True}),
    ("linear", CLASSES, {}),
    ("mlp", CLASSES, {}),
    ("siamese", PAIRS, {"blocks": BLOCKS, "embedding": [8], "distance": "euclidean"}),
]
SLOW: list[tuple[str, DataSpec, dict[str, Any]]] = [
    ("siamese", PAIRS, {"blocks": BLOCKS, "embedding": [8], "embedding_batch_norm": True, "distance": "cosine"}),
    ("lenet", LARGER, {"fully_convolutional": True}),
    ("mobilenet_v2", LARGER, {}),
    ("resnet18", LARGER, {}),
    ("timm", DataSpec("classification", ("a", "b", "c"), 3, (64, 64)), {"model": "vit_tiny_patch16_224"}),
    ("timm", DataSpec("classification", ("a", "b", "c"), 3, (64, 64)), {"model": "convnext_atto"}),
    ("siamese_mobilenet_v2", PAIRS, {}),
    ("face_descriptor", PAIRS, {"dims": 8, "face": [56, 50]}),
]


def test_batch_norm_is_merged_and_nodes_still_say_their_module_but_no_path_of_this_machine() -> None:
    network = nn.Sequential()
    network.add_module("first", nn.Conv2d(3, 4, 3))
    network.add_module("norm", nn.BatchNorm2d(4))
    network.add_module("tail", nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)))
    core = convert_core(_with_statistics(network), CLASSES)
    assert Counter(node.op_type for node in core.proto.graph.node)["BatchNormalization"] == 0
    scopes = [
        entry.value for node in core.proto.graph.node for entry in node.metadata_props if "name_scopes" in entry.key
    ]
    assert any("tail.2" in scope for scope in scopes)
    assert b"test_core.py" not in core.proto.SerializeToString()


@pytest.mark.parametrize(("name", "spec", "options"), QUICK, ids=lambda value: value if isinstance(value, str) else "")
def test_a_model_of_ours_gives_the_same_outputs_at_every_batch_size(
    name: str, spec: DataSpec, options: dict[str, Any]
) -> None:
    _check(_with_statistics(_built(name, spec, options)), spec)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "spec", "options"), SLOW, ids=lambda value: value if isinstance(value, str) else "")
def test_a_large_model_of_ours_gives_the_same_outputs_at_every_batch_size(
    name: str, spec: DataSpec, options: dict[str, Any]
) -> None:
    _check(_with_statistics(_built(name, spec, options)), spec)


def test_the_model_stays_as_it_is() -> None:
    network = _built("cnn", CLASSES, {}).to(memory_format=torch.channels_last)
    network.train()
    network.get_submodule("").register_buffer("odd", torch.zeros(1, dtype=torch.float16), persistent=False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    convert_core(network, CLASSES)
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.get_buffer("odd").dtype == torch.float16
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


class Branching(nn.Module):
    """Asks for a value while it is traced, which the newer exporter refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if float(images.abs().sum()) >= 0:
            images = images * 2
        result: torch.Tensor = self.head(self.norm(self.convolution(images)).mean((2, 3)))
        return result


def test_the_older_exporter_takes_over_with_the_reason_and_merges_batch_norm_too() -> None:
    core = _check(_with_statistics(Branching()), CLASSES, exporter="torchscript")
    assert "data-dependent" in str(core.fallback_reason)
    assert "BatchNormalization" not in {node.op_type for node in core.proto.graph.node}


class Frozen(nn.Module):
    """Is right for the example's batch only."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :3] if images.shape[0] == 2 else images.flatten(1)[:, 3:6]


def test_a_frozen_batch_is_refused() -> None:
    with pytest.raises(BenchError, match="Frozen cannot be exported"):
        convert_core(Frozen(), CLASSES)


class Singular(nn.Module):
    """ONNX has no singular values."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(images[:, 0])[:, :3]


class Broken(nn.Module):
    """Fails wherever it is called."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"cannot take {images.ndim} sides")


def test_an_operator_without_counterpart_is_named_with_its_module(capfd: pytest.CaptureFixture[str]) -> None:
    network = nn.Sequential()
    network.add_module("stem", nn.Sequential(nn.Conv2d(3, 3, 1), Singular()))
    with pytest.raises(BenchError, match=r"svd.* in module 'stem\.1'") as caught:
        convert_core(network, CLASSES)
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_a_module_that_fails_is_named() -> None:
    network = nn.Sequential()
    network.add_module("tail", Broken())
    with pytest.raises(BenchError, match=r"in module 'tail' .*cannot take 4 sides"):
        convert_core(network, CLASSES)


def _built(name: str, spec: DataSpec, options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    plugin = registry.find("models", name).load()
    table, problems = schema.validate(schema.options_model("models", plugin), options, "model")
    assert not problems
    network: nn.Module = plugin(spec, **table)
    if hasattr(network, "fit_features"):  # what it learns is otherwise 0, and so are its outputs
        images = torch.rand(40, spec.channels, *spec.image_size).lerp(torch.rand(20, 1, 1, 1).repeat(2, 1, 1, 1), 0.7)
        matched = torch.arange(20)
        pairs = torch.cat([torch.stack([matched, matched + 20], 1), torch.stack([matched, (matched + 7) % 20], 1)])
        network.fit_features([images], pairs=pairs, labels=torch.arange(40) < 20)
    return network


def _with_statistics(network: nn.Module) -> nn.Module:
    """As after training: BatchNorm's statistics are not those it starts with."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


def _check(network: nn.Module, spec: DataSpec, *, exporter: str = "dynamo") -> Core:
    core = convert_core(network, spec)
    assert (core.exporter, core.opset, core.fallback_reason is None) == (exporter, 18, exporter == "dynamo")
    session = onnxruntime.InferenceSession(core.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert tuple(value.name for value in session.get_inputs()) == core_inputs(spec.task)
    assert [value.name for value in session.get_outputs()] == ["outputs"]
    network.eval()
    rng = np.random.default_rng(0)
    for batch in (1, 3, 8):
        shape = (batch, spec.channels, *spec.image_size)
        images = [rng.standard_normal(shape).astype(np.float32) for _ in core_inputs(spec.task)]
        with torch.inference_mode():
            wanted = network(*map(torch.from_numpy, images)).numpy()
        (given,) = session.run(None, dict(zip(core_inputs(spec.task), images, strict=True)))
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-4)
    return core
