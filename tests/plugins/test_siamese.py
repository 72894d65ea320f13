"""Models that compare pairs: the order in a block, distances by hand, options, weights, and what is declined."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torchvision import models as torchvision_models

from bench.errors import RecipeError, Unsupported
from bench.kinds import PAIR_CLASSES, DataSpec
from bench.recipe import parse
from bench.stages.model import freeze, has_frozen_backbone, load_weights
from bench_plugins.models.siamese import Block, siamese
from bench_plugins.models.siamese_mobilenet_v2 import siamese_mobilenet_v2

BLOCKS = (Block(channels=4, kernel=5, pool=2, batch_norm=True, dropout=0.1), Block(channels=6, kernel=3))
HEAD = ["classifier.distance.linear.weight", "classifier.distance.linear.bias"]


def spec_of(height: int = 20, width: int = 20, channels: int = 3) -> DataSpec:
    return DataSpec("verification", PAIR_CLASSES, channels, (height, width))


def small(**options: Any) -> Any:
    torch.manual_seed(0)
    return siamese(spec_of(), **{"blocks": BLOCKS, "embedding": (8,), **options})


def pairs(size: int = 20, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.rand(2, 4, channels, size, size, generator=torch.Generator().manual_seed(1))
    return first, second


def kinds_in(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model.modules() if not list(layer.children())]


@pytest.fixture(params=["siamese", "siamese_mobilenet_v2"])
def build(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Either model, for the images of `pairs(32)`."""
    if request.param == "siamese":
        return lambda **options: siamese(spec_of(32, 32), blocks=BLOCKS, **{"embedding": (8,), **options})
    return lambda **options: siamese_mobilenet_v2(spec_of(32, 32), **options)


# Both


@pytest.mark.parametrize("model", [siamese, siamese_mobilenet_v2])
def test_data_that_are_no_pairs_are_declined(model: Callable[[DataSpec], nn.Module]) -> None:
    with pytest.raises(Unsupported, match=f"{model.__name__} compares pairs of images, .* for classification") as error:
        model(replace(spec_of(105, 105), task="classification"))
    assert "pairs" in (error.value.hint or "")


@pytest.mark.parametrize("distance", ["weighted_l1", "euclidean", "cosine"])
def test_a_pair_becomes_one_value_the_same_in_either_order(build: Callable[..., Any], distance: str) -> None:
    model, (first, second) = build(distance=distance).eval(), pairs(32)
    with torch.no_grad():
        values = model(first, second)
        assert values.shape == (4, 1)
        torch.testing.assert_close(model(second, first), values)
        parts = model.forward_head(model.forward_features(first), model.forward_features(second))
        torch.testing.assert_close(parts, values)
        assert model(first[:1], second[:1]).shape == (1, 1)


@pytest.mark.parametrize("distance", ["weighted_l1", "euclidean", "cosine"])
def test_an_image_with_itself_has_a_finite_gradient(build: Callable[..., Any], distance: str) -> None:
    model, (first, second) = build(distance=distance), pairs(32)
    model.eval()  # no dropout, so that both sides are exactly equal
    model(first, torch.cat((first[:2], second[2:]))).square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.count_nonzero() for gradient in gradients)


def test_both_sides_are_one_batch_so_a_single_pair_can_train_with_batch_norm() -> None:
    model, (first, second) = small(embedding_batch_norm=True), pairs()
    model(first[:1], second[:1]).sum().backward()
    statistics = model.twin.features[0].norm.running_mean.clone()
    model(first, second)
    assert not statistics.equal(model.twin.features[0].norm.running_mean)
    assert model.twin.features[0].norm.num_batches_tracked == 2


def test_an_exported_graph_takes_any_number_of_pairs() -> None:
    model, (first, second) = small().eval(), pairs()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (first, second), dynamic_shapes=({0: batch}, {0: batch})).module()
    for count in (1, 3):
        torch.testing.assert_close(exported(first[:count], second[:count]), model(first[:count], second[:count]))


def test_the_weighted_distance_is_a_linear_layer_on_absolute_differences() -> None:
    model = small()
    first, second = torch.tensor([[1.0, 2, 0, 0, 0, 0, 0, 0]]), torch.tensor([[3.0, 1, 0, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        model.distance.linear.weight.copy_(torch.arange(1.0, 9)[None])
        model.distance.linear.bias.fill_(0.5)
        assert model.forward_head(first, second).item() == 1 * 2 + 2 * 1 + 0.5


def test_the_euclidean_distance_is_the_root_of_squares_and_0_for_an_image_with_itself() -> None:
    model = small(distance="euclidean")
    first, second = torch.zeros(2, 8), torch.zeros(2, 8)
    first[0, 0], second[0, 1] = 3.0, 4.0
    assert model.forward_head(first, second).flatten().tolist() == [5.0, 0.0]
    assert not list(model.distance.parameters())


def test_the_cosine_has_a_scale_and_a_bias_that_learn() -> None:
    model = small(distance="cosine")
    first, second = torch.ones(3, 8), torch.ones(3, 8)
    second[0] *= 7
    second[1] *= -1
    second[2, :4] = -1
    logits = model.forward_head(first, second)
    torch.testing.assert_close(logits.flatten(), torch.tensor([5.0, -15.0, -5.0]))
    logits.sum().backward()
    assert model.distance.scale.grad.item() == pytest.approx(0.0, abs=1e-6)  # 1 - 1 + 0
    assert model.distance.bias.grad.item() == 3


# siamese


def test_a_block_normalises_behind_its_pool() -> None:
    kinds = kinds_in(small().twin.features)
    assert kinds == ["Conv2d", "ReLU", "MaxPool2d", "BatchNorm2d", "Dropout", "Conv2d", "ReLU", "Dropout", "Flatten"]


def test_strides_and_padding_count() -> None:
    blocks = (Block(channels=4, kernel=5, stride=2, padding=1, pool=3), Block(channels=6, kernel=3, padding=1))
    model = small(blocks=blocks)
    # (20 + 2 - 5) // 2 + 1 = 9, pooled to 3, kept by the padding.
    assert model.twin.features[:-1](pairs()[0]).shape == (4, 6, 3, 3)
    assert model.twin.embedding[0].linear.in_features == 6 * 3 * 3


def test_an_embedding_is_made_of_layers_with_values_for_all_or_each() -> None:
    model = small(
        embedding=(16, 8),
        embedding_activation=("relu", "none"),
        embedding_dropout=(0.3,),
        embedding_batch_norm=(True, False),
    )
    kinds = ["Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear", "Identity", "Dropout"]
    assert kinds_in(model.twin.embedding) == kinds
    assert [layer.p for layer in model.twin.embedding.modules() if isinstance(layer, nn.Dropout)] == [0.3, 0]
    assert kinds_in(small(embedding=(16, 8)).twin.embedding).count("Sigmoid") == 2
    embedded = small().eval().forward_features(pairs()[0])
    assert ((embedded > 0) & (embedded < 1)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_activation": ("relu", "none")}, "embedding_activation has 2 values for 1 layers"),
        ({"embedding_dropout": (0.1, 0.1)}, "embedding_dropout has 2 values for 1 layers"),
        ({"embedding_batch_norm": (True, True)}, "embedding_batch_norm has 2 values for 1 layers"),
    ],
)
def test_lists_of_another_length_are_declined(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        small(**options)


def test_blocks_that_shrink_the_image_to_nothing_are_declined_with_number_and_sizes() -> None:
    expected = r"block 3 of 4 \(128 channels, kernel 4, pool 2\) shrinks 2 x 10 to 0 x 3 pixels for images of 32 x 64"
    with pytest.raises(Unsupported, match=expected) as error:
        siamese(spec_of(32, 64))
    assert "larger images" in (error.value.hint or "")
    with pytest.raises(Unsupported, match=r"block 2 of 2 .*pool 9.* shrinks 8 x 8 to 0 x 0"):
        small(blocks=(BLOCKS[0], Block(channels=6, kernel=3, pool=9)))


def test_a_frozen_twin_leaves_the_distance_to_train() -> None:
    model = small()
    freeze(model, ["twin"])
    assert has_frozen_backbone(model)


RECIPE = """
[dataset]
name = "lfw_pairs"
[model]
name = "siamese"
[[model.blocks]]
channels = 8
kernel = 5
pool = 2
[[model.blocks]]
channels = 16
{key} = {value}
[train]
loss = "bce"
"""


def blocks_of(key: str, value: str, *changes: str) -> Any:
    return parse(RECIPE.format(key=key, value=value), path=Path("toy.toml"), changes=changes).model.options["blocks"]


def test_blocks_are_tables_of_the_recipe() -> None:
    assert blocks_of("kernel", "3") == (Block(channels=8, kernel=5, pool=2), Block(channels=16, kernel=3))
    assert blocks_of("kernel", "3", "model.blocks.1.kernel=4")[1].kernel == 4


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("kernal", "3", 'model.blocks.1.kernal: unknown key; did you mean "kernel"?'),
        ("kernal", "3", "model.blocks.1.kernel: required, but not given"),
        ("kernel", '"3"', 'model.blocks.1.kernel: input should be a valid integer, but "3" was given'),
        ("kernel", "0", "model.blocks.1.kernel: input should be greater than or equal to 1, but 0 was given"),
        ("dropout", "1.0", "model.blocks.1.dropout: input should be less than 1, but 1.0 was given"),
    ],
)
def test_a_fault_in_a_block_is_named_in_full(key: str, value: str, problem: str) -> None:
    with pytest.raises(RecipeError) as error:
        blocks_of(key, value)
    assert problem in error.value.problems


# siamese_mobilenet_v2


def test_names_of_parameters_are_torchvisions() -> None:
    theirs = [name for name in torchvision_models.mobilenet_v2().state_dict() if name.startswith("features.")]
    assert list(siamese_mobilenet_v2(spec_of(32, 32)).state_dict()) == [*theirs, *HEAD]


def test_features_are_pooled_and_the_embedding_belongs_to_the_head() -> None:
    model: Any = siamese_mobilenet_v2(spec_of(32, 32), embedding=(64, 16), dropout=(0.2, 0.1))
    assert model.forward_features(pairs(32)[0]).shape == (4, 1280)
    kinds = kinds_in(model.classifier["embedding"])
    assert kinds == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert model.classifier["distance"].linear.in_features == 16
    freeze(model, ["features"])
    assert has_frozen_backbone(model)
    with pytest.raises(Unsupported, match="dropout"):
        siamese_mobilenet_v2(spec_of(32, 32), embedding=(64,), dropout=(0.2, 0.1))


def test_dropout_without_an_embedding_is_declined() -> None:
    with pytest.raises(Unsupported, match="dropout is in front of the embedding's layers") as error:
        siamese_mobilenet_v2(spec_of(32, 32), dropout=0.2)
    assert "embedding" in (error.value.hint or "")


def test_weights_of_a_classifier_fill_the_twin_and_leave_the_head_new(tmp_path: Path) -> None:
    theirs = torchvision_models.mobilenet_v2()
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    model = siamese_mobilenet_v2(spec_of(32, 32), embedding=(16,))
    loaded = load_weights(model, tmp_path / "w.safetensors")
    assert set(loaded.left_out) == {"classifier.1.bias", "classifier.1.weight"}
    assert set(loaded.new) == {"classifier.embedding.1.weight", "classifier.embedding.1.bias", *HEAD}
    images = torch.rand(2, 3, 32, 32)
    expected = functional.adaptive_avg_pool2d(theirs.eval().features(images), 1).flatten(1)
    torch.testing.assert_close(model.eval().forward_features(images), expected)  # type: ignore[operator]


def test_cached_imagenet_weights_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    theirs = torchvision_models.mobilenet_v2()
    torch.save(theirs.state_dict(), cache / "mobilenet_v2-7ebf99e0.pth")
    model: Any = siamese_mobilenet_v2(spec_of(32, 32), pretrained=True)
    assert torch.equal(model.features[18][0].weight, theirs.features[18][0].weight)
    assert model.pretrained_cfg["mean"] == (0.485, 0.456, 0.406)


@pytest.mark.real_data
@pytest.mark.parametrize("distance", ["weighted_l1", "euclidean", "cosine"])
def test_imagenet_features_fill_the_twin(distance: Any) -> None:
    model = siamese_mobilenet_v2(spec_of(96, 96), distance=distance)
    loaded = load_weights(model, Path(os.environ["BENCH_DATA"], "mobilenet_v2_imagenet_features.safetensors"))
    assert set(loaded.new) == {name for name in model.state_dict() if name.startswith("classifier.")}
    assert loaded.left_out == ()
