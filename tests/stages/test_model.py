"""Building, loading and freezing models."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.errors import BenchError, PluginError, RecipeError, Unsupported
from bench.kinds import DataSpec
from bench.recipe import Chosen
from bench.stages.batches import Batches, Preprocessing
from bench.stages.image_set import ImageSet
from bench.stages.model import (
    _check_arguments,
    build,
    fit_features,
    forward_of,
    freeze,
    has_frozen_backbone,
    input_statistics,
    load_weights,
    train_mode,
)

_SPEC = DataSpec("classification", ("cat", "dog", "owl"), 3, (8, 8))


class Net(nn.Module):
    """A backbone and a head, as timm's models have them."""

    def __init__(self, classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.classifier = nn.Linear(width, classes)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.features(images)  # type: ignore[no-any-return]

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.norm(features))  # type: ignore[no-any-return]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


class Wrapped(Net):
    """All of it below one part."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        parts = OrderedDict(body=self.features, norm=self.norm, last=nn.Linear(4, classes))
        del self.features, self.norm, self.classifier
        self.net = nn.Sequential(parts)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.net.body(images)  # type: ignore[operator,no-any-return]

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return self.net.last(features)  # type: ignore[operator,no-any-return]


def saved(path: Path, model: nn.Module, *, without: str = "!", renamed: tuple[str, str] = ("", "")) -> Path:
    tensors = {name.replace(*renamed): t for name, t in model.state_dict().items() if not name.startswith(without)}
    save_file(tensors, path)
    return path


# build


def test_a_plugin_is_called_with_its_options() -> None:
    model = build(Chosen("cnn", {"channels": (4,), "dropout": 0.1}), _SPEC)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


def test_a_plugin_that_fails_is_named() -> None:
    with pytest.raises(PluginError, match=r"model plugin 'cnn' of visionbench failed: TypeError: .*'chanels'") as error:
        build(Chosen("cnn", {"chanels": (4,)}), _SPEC)
    assert error.value.hint == "bench plugins models/cnn prints its options"
    with pytest.raises(Unsupported, match="cnn: pools has 1 values for 2 blocks"):
        build(Chosen("cnn", {"channels": (4, 4), "pools": (2,)}), _SPEC)
    with pytest.raises(PluginError, match="no plugin 'digits' among the models"):
        build(Chosen("digits", {}), _SPEC)


# weights


@pytest.mark.parametrize("kind", [Net, Wrapped])
def test_weights_come_back(tmp_path: Path, kind: Any) -> None:
    torch.manual_seed(0)
    first, second = kind(), kind()
    loaded = load_weights(second, saved(tmp_path / "w", first))
    assert (loaded.loaded, loaded.new, loaded.left_out) == (len(first.state_dict()), (), ())
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize(("kind", "head"), [(Net, "classifier"), (Wrapped, "net.last")])
def test_the_head_may_differ(tmp_path: Path, kind: Any, head: str) -> None:
    names = (f"{head}.weight", f"{head}.bias")
    own, other = kind(), kind(10)
    before = own.state_dict()[names[0]].clone()
    loaded = load_weights(own, saved(tmp_path / "w", other))
    assert (loaded.new, set(loaded.left_out)) == (names, set(names))
    assert f"new in the head: {names[0]}, {names[1]}; of the file's head not used: " in str(loaded)
    assert torch.equal(own.state_dict()[names[0]], before)
    loaded = load_weights(own, saved(tmp_path / "w", other, without=head))
    assert (loaded.new, loaded.left_out) == (names, ())


@pytest.mark.parametrize("name", ["fc", "head", "classifier.1"])
def test_a_foreign_heads_name_is_left_out(tmp_path: Path, name: str) -> None:
    loaded = load_weights(Net(), saved(tmp_path / "w", Net(1000), renamed=("classifier", name)))
    assert set(loaded.left_out) == {f"{name}.weight", f"{name}.bias"}


@pytest.mark.parametrize(
    ("kind", "options", "faults"),
    [
        (Net, {"without": "features.0"}, ["2 missing: features.0.weight, features.0.bias"]),
        (
            Net,
            {"renamed": ("features.0", "stem.0")},
            ["2 missing: features.0.weight", "2 unexpected: stem.0.", "stem.0.weight"],
        ),
        (Wrapped, {"without": "net.body"}, ["6 missing: net.body.0.weight", "and 1 more"]),
        (Net, {"renamed": ("", "module.")}, ["missing", "unexpected"]),
    ],
)
def test_the_weights_of_another_model(tmp_path: Path, kind: Any, options: Any, faults: list[str]) -> None:
    if options.get("renamed", ("x",))[0] == "":
        path = tmp_path / "w"
        save_file({f"module.{name}": tensor for name, tensor in Net().state_dict().items()}, path)
    else:
        path = saved(tmp_path / "w", kind(), **options)
    model = kind()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(BenchError, match="holds the weights of another model") as error:
        load_weights(model, path)
    assert all(fault in str(error.value) for fault in faults), str(error.value)
    assert error.value.hint == "check model.name and its options against the file"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_other_shapes_are_listed_with_both(tmp_path: Path) -> None:
    path = saved(tmp_path / "w", Net(width=6))
    with pytest.raises(BenchError, match=r"8 of another shape: features.0.weight \(6, 3, 3, 3\), the model has \(4, "):
        load_weights(Net(), path)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x80\x02}q\x00."])
def test_a_file_that_holds_no_weights(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    for path in (tmp_path / "w", tmp_path / "nowhere"):
        with pytest.raises(BenchError, match=r"not a readable .safetensors file"):
            load_weights(Net(), path)


# freezing


def test_an_unknown_part_has_a_near_miss() -> None:
    with pytest.raises(RecipeError, match=r"the model has no part 'feature'; did you mean \"features\"\?"):
        freeze(Net(), ["feature"])
    with pytest.raises(RecipeError, match=r"no part 'xyz'; parts: features, features.0, "):
        freeze(Net(), ["xyz"])
    with pytest.raises(RecipeError, match="no part ''"):
        freeze(Net(), [""])
    with pytest.raises(RecipeError, match="nothing is left to train"):
        freeze(Net(), ["features", "classifier"])


def test_frozen_parts_stay_as_they_are_in_training() -> None:
    model = Net()
    freeze(model, ["features"])
    train_mode(model)
    assert model.training
    assert model.classifier.training
    assert not any(module.training for module in model.features.modules())  # its dropout too
    before = {name: tensor.clone() for name, tensor in model.features.state_dict().items()}
    outputs = model.forward_features(torch.randn(8, 3, 8, 8) + 3)
    assert torch.equal(outputs, model.forward_features(torch.randn(8, 3, 8, 8) * 0) * 0 + outputs)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.features.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.features.parameters())


def test_what_is_not_frozen_adapts() -> None:
    model = Net()
    freeze(model, ["features.0"])
    train_mode(model)
    assert (model.features.training, model.features[0].training, model.features[2].training) == (True, False, True)
    before = model.features[1].running_mean.clone()  # type: ignore[operator,union-attr]
    model(torch.randn(8, 3, 8, 8) + 3)
    assert not torch.equal(model.features[1].running_mean, before)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "parts", "expected"),
    [
        (Net(), ["features"], True),
        (Net(), [], False),
        (Net(), ["features.0"], False),
        (Wrapped(), ["net.body"], True),
        (Wrapped(), [], False),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ["0"], False),
    ],
)
def test_a_frozen_backbone_is_recognised(model: nn.Module, parts: list[str], expected: bool) -> None:
    freeze(model, parts)
    assert has_frozen_backbone(model) is expected


def test_input_statistics_follow_timm() -> None:
    model = Net()
    assert input_statistics(model) is None
    model.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": [1, 2, 3]}
    assert input_statistics(model) == ((0.5, 0.4, 0.3), (1.0, 2.0, 3.0))
    model.pretrained_cfg = {"mean": None}
    assert input_statistics(model) is None


# pairs


class Twin(nn.Module):
    """A model of two images, and of their features."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.forward_head(first.flatten(1), second.flatten(1))

    def forward_head(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.scale * (first - 2 * second).sum(1, keepdim=True)


def test_a_batch_of_pairs_is_divided_into_its_halves() -> None:
    inputs = torch.rand(6, 1, 2, 2)
    expected = torch.stack([inputs[row].sum() - 2 * inputs[row + 3].sum() for row in range(3)])[:, None]
    assert torch.allclose(forward_of(Twin(), task="verification")(inputs), expected)
    features = inputs.flatten(1)
    assert torch.allclose(forward_of(Twin(), task="verification", features=True)(features), expected)


def test_a_batch_of_single_images_goes_in_whole() -> None:
    net = Net().eval()
    images = torch.rand(5, 3, 8, 8)
    assert forward_of(net, task="classification") is net
    features = net.forward_features(images)
    assert torch.equal(forward_of(net, task="classification", features=True)(features), net(images))


# models by what their forward takes


class One(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


class OneAndAnOption(nn.Module):
    def forward(self, images: torch.Tensor, scale: float = 1.0, *, mask: Any = None) -> torch.Tensor:
        return images * scale if mask is None else images


class Three(nn.Module):
    def forward(self, one: torch.Tensor, two: torch.Tensor, three: torch.Tensor) -> torch.Tensor:
        return one + two + three


class Several(nn.Module):
    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        return images[0]


@pytest.mark.parametrize(
    ("model", "task"),
    [
        (One(), "classification"),
        (OneAndAnOption(), "classification"),
        (Several(), "classification"),
        (Several(), "verification"),
        (Twin(), "verification"),
        (nn.Sequential(), "classification"),
    ],
)
def test_a_model_takes_as_many_images_as_its_task_has(model: nn.Module, task: Any) -> None:
    _check_arguments(model, "toy", task)
    assert isinstance(model, nn.Module)


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        (One(), "verification", "'toy' takes 1 batch of images; verification needs a model of 2"),
        (nn.Sequential(), "verification", "'toy' takes 1 batch of images"),
        (Twin(), "classification", "'toy' takes 2 batches of images; classification needs a model of 1"),
        (Three(), "verification", "'toy' takes 3 batches of images; verification needs a model of 2"),
    ],
)
def test_a_model_of_another_number_of_images_is_refused(model: nn.Module, task: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        _check_arguments(model, "toy", task)
    assert error.value.hint == "bench plugins lists the models"


# computed from the training images


class Computed(nn.Module):
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.given: dict[str, Any] = {}

    def fit_features(self, batches: Any, **samples: torch.Tensor) -> None:
        self.given = {"sizes": [], "inputs": [], "training": self.training, **samples}
        for images in batches:
            self.given["sizes"].append(len(images))
            self.given["inputs"].append(self.norm(images.flatten(1)))
        self.given["gradient"] = self.given["inputs"][0].requires_grad


def batches_of(rows: Any, labels: Any) -> Batches:
    pixels = np.repeat(np.arange(12, dtype=np.uint8), 4).reshape(12, 2, 2, 1)
    images = ImageSet(pixels, np.array(rows), np.array(labels), tuple(map(str, labels)))
    plain = Preprocessing((0.0,), (1 / 255,), torch.contiguous_format)
    return Batches(images, plain, 2, 3, torch.device("cpu"), augment=(lambda x, t, _: (x * 0, t),))


def test_images_and_labels_are_handed_over_once_and_unaugmented() -> None:
    model = Computed()
    fit_features(model, batches_of([7, 2, 9, 4], [1, 0, 0, 1]))
    assert model.given.keys() == {"sizes", "inputs", "training", "gradient", "labels"}
    assert (model.given["sizes"], model.given["labels"].tolist()) == ([3, 1], [1, 0, 0, 1])
    assert torch.cat(model.given["inputs"])[:, 0].tolist() == pytest.approx([7, 2, 9, 4], rel=1e-4)
    assert (model.given["training"], model.given["gradient"]) == (False, False)
    assert model.norm.running_mean is not None
    assert not model.norm.running_mean.any()  # what is not computed is left alone


def test_pairs_are_positions_among_the_images_of_the_batches() -> None:
    model = Computed()
    fit_features(model, batches_of([[7, 2], [2, 9], [4, 7], [11, 4]], [1, 0, 0, 1]))
    images = torch.cat(model.given["inputs"])[:, 0]
    assert images.tolist() == pytest.approx([2, 4, 7, 9, 11], rel=1e-4)
    assert images[model.given["pairs"]].round().tolist() == [[7, 2], [2, 9], [4, 7], [11, 4]]
    assert model.given["labels"].tolist() == [1, 0, 0, 1]


def test_a_model_without_the_method_is_left_alone() -> None:
    model = Net()
    fit_features(model, batches_of([1, 2], [0, 1]))
    assert model.training
    model.fit_features = None  # type: ignore[assignment]  # an attribute of the name is no method
    fit_features(model, batches_of([1, 2], [0, 1]))
    assert model.training


def test_a_model_without_parameters_has_no_frozen_backbone(tmp_path: Path) -> None:
    class Features(nn.Module):
        forward_features = forward_head = staticmethod(torch.flatten)

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("codebook", torch.rand(3))

    model, other = Features(), Features()
    assert not has_frozen_backbone(model)
    assert load_weights(other, saved(tmp_path / "w", model)).loaded == 1
    assert torch.equal(model.codebook, other.codebook)  # type: ignore[arg-type]
