"""The first-party models: sizes, shapes, names of parameters, weights, and what they decline."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.model_selection import train_test_split
from torch import nn
from torchvision import models as torchvision_models

from bench.errors import DataError, Unsupported
from bench.kinds import DataSpec
from bench_plugins.datasets.digits import digits
from bench_plugins.models import timm as timm_plugin
from bench_plugins.models.cnn import cnn
from bench_plugins.models.linear import linear
from bench_plugins.models.mlp import mlp
from bench_plugins.models.mobilenet_v2 import mobilenet_v2
from bench_plugins.models.resnet18 import resnet18
from bench_plugins.models.timm import timm_model

HIDDEN = (2048, 1024, 512, 256, 128)
BUILDERS: dict[str, Callable[[DataSpec], nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "cnn": cnn,
    "mobilenet_v2": mobilenet_v2,
    "resnet18": resnet18,
    "timm": lambda spec: timm_model(spec, model="test_resnet"),
}


def spec_of(channels: int = 3, size: int = 32, num_classes: int = 10) -> DataSpec:
    classes = tuple(f"class {number}" for number in range(num_classes))
    return DataSpec(task="classification", classes=classes, channels=channels, image_size=(size, size))


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network and empty caches; returns torch's folder for weights."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(timm_plugin.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_linear_on_64_pixels_has_122890_parameters() -> None:
    assert num_parameters(linear(spec_of(size=64))) == 122_890


@pytest.mark.parametrize(
    ("batch_norm", "bias"), [((True, True, True, True), False), ((False, True, True, True, True), True)]
)
def test_five_layer_mlp_has_27960202_parameters(batch_norm: tuple[bool, ...], bias: bool) -> None:
    model = mlp(spec_of(size=64), hidden=HIDDEN, dropout=(0.1, 0.08, 0.05, 0.03), batch_norm=batch_norm, bias=bias)
    assert num_parameters(model) == 27_960_202
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.1, 0.08, 0.05, 0.03, 0]
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 10)


def test_small_cnn_has_162064_parameters() -> None:
    options: dict[str, Any] = {"convs_per_block": 1, "padding": False, "bias": True, "global_pool": False}
    model = cnn(spec_of(size=64), channels=(12, 12, 42), pools=(2, 2, 3), hidden=(200, 100), **options)
    assert num_parameters(model) == 162_064
    wide = cnn(spec_of(size=64), channels=(100, 120, 140), pools=(2, 4, 2), **options)
    assert wide(torch.zeros(2, 3, 64, 64)).shape == (2, 10)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", BUILDERS)
def test_one_image_in_eval_and_a_batch_in_training(name: str, channels: int) -> None:
    model = BUILDERS[name](spec_of(channels, num_classes=5))
    assert model.training
    assert model(torch.rand(2, channels, 32, 32)).shape == (2, 5)
    model.eval()
    images = torch.rand(1, channels, 32, 32)
    with torch.inference_mode():
        logits = model(images)
        assert logits.shape == (1, 5)
        if hasattr(model, "forward_head"):
            parts: Any = model
            assert torch.equal(parts.forward_head(parts.forward_features(images)), logits)


@pytest.mark.parametrize("name", ["cnn", "mobilenet_v2", "resnet18", "timm"])
def test_models_with_a_backbone_say_where_it_ends(name: str) -> None:
    model: Any = BUILDERS[name](spec_of())
    features = model.eval().forward_features(torch.rand(2, 3, 32, 32))
    assert features.shape[0] == 2
    assert features.ndim == (4 if name == "timm" else 2)


@pytest.mark.parametrize("size", [8, 16, 28, 64])
def test_default_cnn_takes_small_images(size: int) -> None:
    assert cnn(spec_of(1, size))(torch.rand(2, 1, size, size)).shape == (2, 10)


def test_signatures_resolve_at_run_time() -> None:
    for factory in (linear, mlp, cnn, mobilenet_v2, resnet18, timm_model):
        assert get_type_hints(factory, include_extras=True)["spec"] is DataSpec


def test_cnn_that_shrinks_below_one_pixel_is_declined() -> None:
    with pytest.raises(
        Unsupported, match=r"block 3 of 3 \(128 channels, pool 2\) shrinks 1 x 1 to 0 x 0 pixels"
    ) as error:
        cnn(spec_of(size=16), convs_per_block=1, pools=(4, 4, 2))
    assert "padding = true" in (error.value.hint or "")


def test_lists_of_another_length_are_declined() -> None:
    with pytest.raises(Unsupported, match="pools has 2 values for 3 blocks"):
        cnn(spec_of(), pools=(2, 2))
    with pytest.raises(Unsupported, match="dropout has 3 values for 2 layers"):
        mlp(spec_of(), dropout=(0.1, 0.1, 0.1))
    with pytest.raises(Unsupported, match="batch_norm has 3 values for 2 layers"):
        mlp(spec_of(), batch_norm=(True, True, True))


def test_names_of_parameters_are_torchvisions() -> None:
    ours, theirs = mobilenet_v2(spec_of()), torchvision_models.mobilenet_v2(num_classes=10)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert list(resnet18(spec_of()).state_dict()) == list(torchvision_models.resnet18(num_classes=10).state_dict())


def test_same_weights_give_torchvisions_logits() -> None:
    images = torch.rand(2, 3, 64, 64)
    theirs: nn.Module
    for ours, theirs in (
        (mobilenet_v2(spec_of()), torchvision_models.mobilenet_v2(num_classes=10)),
        (resnet18(spec_of()), torchvision_models.resnet18(num_classes=10)),
    ):
        theirs.load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_heads_with_hidden_layers() -> None:
    model: Any = mobilenet_v2(spec_of(num_classes=2), hidden=(200, 50), dropout=(0.3, 0.1))
    kinds = ["Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert [type(layer).__name__ for layer in model.classifier] == kinds
    assert [layer.p for layer in model.classifier if isinstance(layer, nn.Dropout)] == [0.3, 0.1, 0]
    assert [layer.out_features for layer in model.classifier if isinstance(layer, nn.Linear)] == [200, 50, 2]
    assert resnet18(spec_of(), hidden=(64,), dropout=0.1)(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("factory", [mobilenet_v2, resnet18])
def test_expected_input_is_imagenets(factory: Callable[[DataSpec], Any]) -> None:
    assert factory(spec_of(3)).pretrained_cfg == {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    assert factory(spec_of(1)).pretrained_cfg["mean"] == pytest.approx((0.449,))


def test_cached_weights_load_and_grey_images_see_the_same_network(offline: Path) -> None:
    offline.mkdir(parents=True)
    original = torchvision_models.mobilenet_v2()
    torch.save(original.state_dict(), offline / "mobilenet_v2-7ebf99e0.pth")
    colour: Any = mobilenet_v2(spec_of(3), pretrained=True).eval()
    grey: Any = mobilenet_v2(spec_of(1), pretrained=True).eval()
    assert torch.equal(colour.features[18][0].weight, original.features[18][0].weight)
    images = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(
        grey.forward_features(images), colour.forward_features(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("factory", "file"),
    [(mobilenet_v2, "mobilenet_v2-7ebf99e0.pth"), (resnet18, "resnet18-f37072fd.pth")],
)
@pytest.mark.usefixtures("offline")
def test_without_network_the_error_names_file_and_remedy(factory: Callable[..., nn.Module], file: str) -> None:
    with pytest.raises(DataError, match=f"https://download.pytorch.org/models/{file}") as error:
        factory(spec_of(), pretrained=True)
    assert file in (error.value.hint or "")
    assert 'weights = "file.safetensors" in [model]' in (error.value.hint or "")


@pytest.mark.usefixtures("offline")
def test_timm_without_network_fails_at_once() -> None:
    with pytest.raises(DataError, match=r"'resnet18'.*huggingface.co/timm/resnet18.*unreachable") as error:
        timm_model(spec_of(), model="resnet18", pretrained=True)
    assert 'weights = "file.safetensors" in [model]' in (error.value.hint or "")


@pytest.mark.usefixtures("offline")
def test_timm_loads_cached_weights_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = timm_model(spec_of(num_classes=1000), model="test_resnet")
    save_file(original.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(timm_plugin, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    model = timm_model(spec_of(), model="test_resnet", pretrained=True)
    name = "layer4.0.conv1.weight"
    assert torch.equal(model.state_dict()[name], original.state_dict()[name])


def test_timm_names() -> None:
    with pytest.raises(Unsupported, match=r"no model 'convnext_ato'; did you mean \"convnext_atto\"\?"):
        timm_model(spec_of(), model="convnext_ato")
    with pytest.raises(Unsupported, match="no weights 'bogus' for resnet18") as error:
        timm_model(spec_of(), model="resnet18.bogus")
    assert "resnet18.a1_in1k" in (error.value.hint or "")


def test_timm_declines_what_an_architecture_cannot_do() -> None:
    with pytest.raises(Unsupported, match="'inception_v3' takes no images of 32 x 32"):
        timm_model(spec_of(), model="inception_v3")
    with pytest.raises(Unsupported, match=r"'vgg11' cannot be built: .*'drop_path_rate'"):
        timm_model(spec_of(), model="vgg11", drop_path_rate=0.1)
    with pytest.raises(Unsupported, match="no pretrained weights for 'vit_base_patch16_18x2_224'"):
        timm_model(spec_of(), model="vit_base_patch16_18x2_224", pretrained=True)


def test_timm_builds_for_the_image_size_where_it_can() -> None:
    model: Any = timm_model(spec_of(size=48), model="test_vit", drop_rate=0.1, drop_path_rate=0.1)
    assert model.patch_embed.img_size == (48, 48)
    assert model.pretrained_cfg["mean"]


@pytest.mark.real_data
def test_imagenet_features_fill_mobilenet_v2() -> None:
    weights = load_file(Path(os.environ["BENCH_DATA"], "mobilenet_v2_imagenet_features.safetensors"))
    for channels in (1, 3):
        model = mobilenet_v2(spec_of(channels))
        result = model.load_state_dict(weights, strict=False)
        assert result.unexpected_keys == []
        assert result.missing_keys == ["classifier.1.weight", "classifier.1.bias"]


@pytest.mark.slow
def test_default_cnn_learns_digits() -> None:
    scans = digits(Path()).splits["train"]
    images = torch.from_numpy(scans.images)[:, None].float() / 255
    images = nn.functional.interpolate(images, size=(16, 16), mode="bilinear")
    labels = torch.from_numpy(scans.labels)
    train, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    torch.manual_seed(0)
    model = cnn(spec_of(1, 16))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = 12 * -(-len(train) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(steps):
        batch = torch.tensor(train)[torch.randint(len(train), (64,))]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        accuracy = (model.eval()(images[test]).argmax(1) == labels[test]).float().mean().item()
    assert accuracy > 0.985
