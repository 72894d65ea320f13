"""The conformance checks: first-party plugins pass them, and each one catches a planted fault."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, TypeAlias

import click
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import Field
from torch import nn
from torch.nn import functional

from bench import registry
from bench.errors import DataError, PluginError, Unsupported
from bench.kinds import PAIR_CLASSES, Dataset, DataSpec, Split
from bench.registry import GROUPS, Plugin
from bench.testing import Check, CheckFailed, Result, checks, conformance_test, run_checks

Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]
Recolour: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Generator], Pair]

MODULE = "conformance_toys"

#: The face that a plugin's author uses, on our own plugins.
test_first_party_plugins_conform = conformance_test("visionbench", options={"models/timm": {"model": "test_resnet"}})


# Toys


class ToyNet(nn.Module):
    """Logistic regression behind an average over rows and columns, so that any size fits."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.classifier = nn.Linear(spec.channels, spec.num_classes)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(features)
        return logits

    def forward(self, images: torch.Tensor) -> Any:
        return self.forward_head(self.forward_features(images))


class ToyPair(ToyNet):
    """The same for pairs: a weight for the absolute difference of each feature."""

    def __init__(self, spec: DataSpec) -> None:
        if spec.task != "verification":
            raise Unsupported("only pairs")
        super().__init__(replace(spec, classes=("same",)))

    def forward_head(self, *features: torch.Tensor) -> torch.Tensor:
        first, second = features
        return super().forward_head((first - second).abs())

    def forward(self, *images: torch.Tensor) -> Any:
        return self.forward_head(*map(self.forward_features, images))


def toy_model(net: type[ToyNet]) -> Callable[..., nn.Module]:
    def model(spec: DataSpec) -> nn.Module:
        """A model."""
        return net(spec)

    return model


def toy_augmentation(apply: Recolour) -> Callable[..., Recolour]:
    """An augmentation that does something to the images that p chooses."""

    def augmentation(*, p: float = 0.5) -> Recolour:
        """An augmentation."""

        def augment(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Pair:
            chosen = torch.rand(len(images), generator=generator) < p
            altered, mixed = apply(images, targets, generator)
            return torch.where(chosen[:, None, None, None], altered, images), torch.where(
                chosen[:, None], mixed, targets
            )

        return augment

    return augmentation


def toy_always(apply: Recolour) -> Callable[..., Recolour]:
    """An augmentation without p."""

    def augmentation() -> Recolour:
        """An augmentation."""
        return apply

    return augmentation


def darker(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Pair:
    return images * torch.rand(len(images), 1, 1, 1, generator=generator), targets


def some_split(name: str, *, count: int = 6, **changes: Any) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    ids = [f"{name}/{position}" for position in range(count)]
    return replace(Split(images, np.arange(count) % 3, ids), **changes)


def some_dataset(train: Mapping[str, Any] | None = None, **changes: Any) -> Dataset:
    splits = {"train": some_split("train", **(train or {})), "test": some_split("test")}
    return replace(Dataset(("a", "b", "c"), splits), **changes)


def toy_dataset(make: Callable[[Path], Any]) -> Callable[..., Any]:
    def dataset(root: Path) -> Any:
        """A dataset."""
        return make(root)

    return dataset


@pytest.fixture
def plugin_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plugin]:
    """Makes a plugin of an object, through a real entry point."""

    def make(kind: str, target: Any, *, name: str = "toy") -> Plugin:
        module = ModuleType(MODULE)
        vars(module)[name] = target
        monkeypatch.setitem(sys.modules, MODULE, module)
        point = EntryPoint(name, f"{MODULE}:{name}", GROUPS[kind])
        return Plugin(kind, name, point.value, "toy-distribution", "1.0", point)

    return make


# Planted faults


class AsksTheNetwork(ToyNet):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        socket.create_connection(("weights.invalid", 443)).close()


class AsksAndGoesOn(ToyNet):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        with pytest.raises(OSError, match="no network"):
            socket.getaddrinfo("weights.invalid", 443)


class OneClassMore(ToyNet):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__(replace(spec, classes=(*spec.classes, "other")))


class AuxiliaryLogits(ToyNet):
    def forward(self, images: torch.Tensor) -> Any:
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


class NotFinite(ToyNet):
    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(images).log()


class Squeezes(ToyNet):
    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(images).squeeze()


class Detaches(ToyNet):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.stem = nn.Conv2d(spec.channels, spec.channels, 1)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward_features(self.stem(images).detach())


class BatchStatistics(ToyNet):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.norm = nn.BatchNorm2d(spec.channels, track_running_stats=False)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(images)[:, :, ::2, ::3].mean(dim=(2, 3))  # type: ignore[no-any-return]


class DropsAlways(ToyNet):
    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward_head(functional.dropout(features))


class DropsBehindZeroHead(DropsAlways):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        nn.init.zeros_(self.classifier.weight)


class HiddenState(ToyNet):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.projection = torch.randn(spec.channels, spec.channels)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward_features(images) @ self.projection


class SeedsItself(ToyNet):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.classifier.weight, generator=generator)


class HeadIsNotAll(ToyNet):
    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(images).relu()


class BytesForStatistics(ToyNet):
    pretrained_cfg: Mapping[str, Any] = {"mean": (123.0, 117.0, 104.0), "std": (58.0, 57.0, 57.0)}


class TwoMeans(ToyNet):
    pretrained_cfg: Mapping[str, Any] = {"mean": (0.5, 0.5), "std": (0.5, 0.5)}


class InPlace(ToyNet):
    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(functional.relu(images, inplace=True))


class Views(ToyNet):
    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return images.view(len(images), -1).view(len(images), images.shape[1], -1).mean(dim=2)


class ReadsMemory(ToyNet):
    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        weights = torch.arange(images[0].numel()).float()
        flat = images.as_strided((len(images), images[0].numel()), (images[0].numel(), 1))
        return (flat * weights).mean(dim=1, keepdim=True).expand(-1, images.shape[1])


class TwoLogits(ToyPair):
    def forward(self, *images: torch.Tensor) -> Any:
        return super().forward(*images).expand(-1, 2)


class RootOfSquares(ToyPair):
    def forward_head(self, *features: torch.Tensor) -> torch.Tensor:
        first, second = map(self.classifier, features)
        return (first - second).square().sum(dim=1, keepdim=True).sqrt()


class OneSidedGradient(ToyPair):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, *images: torch.Tensor) -> Any:
        first, second = images
        return self.forward_head(self.forward_features(first), (self.scale * second.mean(dim=(2, 3))).detach())


class CentredPairs(ToyPair):
    def forward_head(self, *features: torch.Tensor) -> torch.Tensor:
        logits = super().forward_head(*features)
        return logits - logits.mean()


class SinglePairSqueezed(ToyPair):
    def forward(self, *images: torch.Tensor) -> Any:
        return super().forward(*images).squeeze(0)


class PairHeadIsNotAll(ToyPair):
    def forward(self, *images: torch.Tensor) -> Any:
        return super().forward(*images) * 2


class OneSided(ToyPair):
    def forward_head(self, *features: torch.Tensor) -> torch.Tensor:
        first, second = features
        return ToyNet.forward_head(self, first - second)


class SecondInPlace(ToyPair):
    def forward(self, *images: torch.Tensor) -> Any:
        return super().forward(images[0], functional.relu(images[1], inplace=True))


def inverted_for_batch(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Pair:
    return (1 - images if torch.rand((), generator=generator) < 0.5 else images), targets


def darker_by_batch(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Pair:
    return images * torch.rand((), generator=generator), targets


def mixed_by_batch(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Pair:
    partner = torch.randperm(len(images), generator=generator)
    share = float(torch.rand((), generator=generator))
    return images.lerp(images[partner], share), targets.lerp(targets[partner], share)


def counting() -> Recolour:
    calls: list[int] = []

    def count(images: torch.Tensor, targets: torch.Tensor, _: torch.Generator) -> Pair:
        calls.append(1)
        return images / len(calls), targets

    return count


def in_place(images: torch.Tensor, targets: torch.Tensor, _: torch.Generator) -> Pair:
    return images.mul_(0.5), targets


def in_place_on_targets(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Pair:
    return darker(images, targets.mul_(0.9).add_(0.02), generator)


def globally(draw: Callable[[], float]) -> Recolour:
    return lambda images, targets, _: (images * draw(), targets)


def only_colour(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Pair:
    return images * torch.tensor([0.9, 0.8, 0.7]).view(3, 1, 1), darker(images, targets, generator)[1]


def not_always(*, p: float = 0.5) -> Recolour:
    """An augmentation that never rests."""
    return lambda images, targets, generator: darker(images * (1 - p / 9), targets, generator)


def flattened(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Pair:
    factors = torch.rand(len(images), 1, generator=generator)
    return (images.view(len(images), -1) * factors).view(images.shape), targets


def unexplained(root: Path) -> Dataset:
    if not (root / "labels.txt").is_file():
        raise DataError(f"{root} holds no labels.txt")
    return some_dataset()


def opens(root: Path) -> Dataset:
    (root / "labels.txt").read_text(encoding="utf-8")
    return some_dataset()


def without_file(root: Path) -> Dataset:
    files = [root / f"{position}.png" for position in range(6)]
    return some_dataset({"images": files, "ids": None})


def with_broken_file(root: Path) -> Dataset:
    files = [root / f"{position}.png" for position in range(6)]
    for file in files[1:]:
        Image.new("RGB", (4, 4)).save(file)
    files[0].write_text("no image", encoding="utf-8")
    return some_dataset({"images": files, "ids": None})


def reshuffled(_: Path) -> Dataset:
    return some_dataset({"ids": [f"train/{os.urandom(8).hex()}" for _ in range(6)]})


def group_in_two_splits(_: Path) -> Dataset:
    groups = ["ann", "ann", "bob", "bob", "cyd", "cyd"]
    splits = {name: some_split(name, groups=groups if name == "train" else groups[::-1]) for name in ("train", "test")}
    return some_dataset(splits=splits)


def some_pairs(name: str, **changes: Any) -> Split:
    """Four images of two persons in every pair that they form."""
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    pairs = np.array([(0, 1), (2, 3), (0, 2), (0, 3), (1, 2), (1, 3)])
    groups = [f"{name} {person}" for person in ("ann", "ann", "bob", "bob")]
    ids = [f"{name} {first} {second}" for first, second in pairs]
    return replace(Split(images, [1, 1, 0, 0, 0, 0], ids, groups=groups, pairs=pairs), **changes)


def verification(train: Mapping[str, Any] | None = None, **changes: Any) -> Callable[..., Any]:
    splits = {"train": some_pairs("train", **(train or {})), "test": some_pairs("test")}
    return toy_dataset(lambda _: replace(Dataset(PAIR_CLASSES, splits, task="verification"), **changes))


def folded(folds: Any, **changes: Any) -> Callable[..., Any]:
    return toy_dataset(lambda _: some_dataset(splits={"train": some_split("train", folds=folds, **changes)}))


def folded_pairs(*, folds: Any) -> Callable[..., Any]:
    """The same twice with other persons: two folds."""
    first, second = some_pairs("train"), some_pairs("other")
    joined = Split(
        np.concatenate([first.images, second.images]),
        [*first.labels, *second.labels],
        [*(first.ids or ()), *(second.ids or ())],
        groups=[*(first.groups or ()), *(second.groups or ())],
        pairs=np.concatenate([first.pairs, second.pairs + 4]),  # type: ignore[operator]  # there are pairs
        folds=folds,
    )
    return toy_dataset(lambda _: Dataset(PAIR_CLASSES, {"train": joined}, task="verification"))


def boxed(boxes: Any) -> Callable[..., Any]:
    """Three files of 4 x 4 pixels with boxes."""

    def make(root: Path) -> Dataset:
        if not root.is_dir():
            raise DataError(f"{root} is missing", hint="set the root")
        files = [root / f"{position}.png" for position in range(3)]
        for path in files:
            Image.new("RGB", (4, 4)).save(path)
        return some_dataset(splits={"train": Split(files, [0, 1, 2], boxes=np.array(boxes))})

    return toy_dataset(make)


def with_other_groups(_: Path) -> Dataset:
    return some_dataset({"groups": [os.urandom(8).hex() for _ in range(6)]})


def positional_option(spec: DataSpec, depth: int = 18) -> nn.Module:
    """A model with an option that can be given by position."""
    raise NotImplementedError(spec, depth)


def default_out_of_bounds(spec: DataSpec, *, model: str, depth: Annotated[int, Field(ge=1)] = 0) -> nn.Module:
    """A model that its own default does not fit."""
    raise NotImplementedError(spec, model, depth)


def default_of_another_type(spec: DataSpec, *, depth: int = None) -> nn.Module:  # type: ignore[assignment]  # noqa: RUF013 - the fault
    """A model whose default is no integer."""
    raise NotImplementedError(spec, depth)


def callable_option(spec: DataSpec, *, activation: Callable[[int], int] = abs) -> nn.Module:
    """A model with an option that TOML cannot write."""
    raise NotImplementedError(spec, activation)


def undocumented(spec: DataSpec) -> nn.Module:
    return ToyNet(spec)


def verbose(spec: DataSpec) -> nn.Module:
    """A model that is described at such a length that its first line fits no list on any terminal, however wide it is."""
    return ToyNet(spec)


#: Check -> plugins (kind, object) that break its promise, and a word that tells the author why.
FAULTS: Mapping[str, list[tuple[str, Any, str]]] = {
    "imports": [("models", 7, "not callable")],
    "has_docstring": [("models", undocumented, "no docstring"), ("models", verbose, "112 characters")],
    "signature_is_schema": [("models", positional_option, "keyword-only")],
    "defaults_are_valid": [
        ("models", default_out_of_bounds, "depth: input should be greater"),
        ("models", default_of_another_type, "depth: input should be a valid integer"),
    ],
    "options_are_toml": [("models", callable_option, "'activation'")],
    "is_click_command": [("commands", undocumented, "not a click.Command")],
    # models
    "builds_offline": [
        ("models", toy_model(AsksTheNetwork), "weights.invalid"),
        ("models", toy_model(AsksAndGoesOn), "weights.invalid"),
    ],
    "output_shape": [
        ("models", toy_model(TwoLogits), "(4, 2), not floats N,1: build it for one value a pair"),
        ("models", toy_model(OneClassMore), "(4, 11), not floats N,10"),
        ("models", toy_model(AuxiliaryLogits), "in training it returns tuple"),
        ("models", toy_model(NotFinite), "not finite"),
        ("models", toy_dataset(lambda _: "no module"), "returns str"),
    ],
    "single_image_in_eval": [
        ("models", toy_model(Squeezes), "single image"),
        ("models", toy_model(SinglePairSqueezed), "single image"),
    ],
    "gradients_reach_all": [
        ("models", toy_model(Detaches), "stem.weight"),
        ("models", toy_model(RootOfSquares), "classifier.weight, classifier.bias is not finite"),
        ("models", toy_model(OneSidedGradient), "no gradient reaches scale"),
    ],
    "images_do_not_mix": [
        ("models", toy_model(BatchStatistics), "neighbours"),
        ("models", toy_model(CentredPairs), "neighbours"),
    ],
    "eval_is_deterministic": [
        ("models", toy_model(DropsAlways), "dropout"),
        ("models", toy_model(DropsBehindZeroHead), "dropout"),
    ],
    "state_roundtrip": [("models", toy_model(HiddenState), "register")],
    "seeded_build": [("models", toy_model(SeedsItself), "classifier.weight")],
    "features_and_head": [
        ("models", toy_model(HeadIsNotAll), "is not forward(images)"),
        ("models", toy_model(PairHeadIsNotAll), "is not forward(first, second)"),
    ],
    "pairs_are_symmetric": [("models", toy_model(OneSided), "symmetric distance")],
    "input_statistics_valid": [
        ("models", toy_model(BytesForStatistics), "scale"),
        ("models", toy_model(TwoMeans), "2 means for 3 channels"),
    ],
    "leaves_input": [
        ("models", toy_model(SecondInPlace), "in-place"),
        ("models", toy_model(InPlace), "in-place"),
        ("augmentations", toy_augmentation(in_place), "images: it changed"),
        ("augmentations", toy_augmentation(in_place_on_targets), "targets: it changed"),
    ],
    "channels_last": [
        ("models", toy_model(Views), "reshape"),
        ("models", toy_model(ReadsMemory), "strides"),
        ("augmentations", toy_augmentation(flattened), "view"),
    ],
    # augmentations
    "keeps_shape_and_dtype": [
        ("augmentations", toy_always(lambda i, t, _: (i[..., 1:], t)), "(6, 3, 20, 27)"),
        ("augmentations", toy_always(lambda i, t, _: (i.double(), t)), "torch.float64"),
        ("augmentations", toy_always(lambda i, _t, _: i), "tuple"),  # type: ignore[arg-type,return-value]  # the fault
    ],
    "keeps_range": [("augmentations", toy_augmentation(lambda i, t, _: (i * 2, t)), "clamp")],
    "targets_stay_distributions": [("augmentations", toy_augmentation(lambda i, t, _: (i, t * 0.5)), "sum")],
    "draws_per_image": [
        ("augmentations", toy_always(inverted_for_batch), "as a whole"),
        ("augmentations", toy_always(darker_by_batch), "alike"),
        ("augmentations", toy_augmentation(darker_by_batch), "alike"),
        ("augmentations", toy_always(mixed_by_batch), "alike"),
    ],
    "seeded_by_generator": [("augmentations", toy_augmentation(counting()), "two results")],
    "only_its_generator": [
        ("augmentations", toy_augmentation(globally(lambda: float(torch.rand(())))), "generator of torch"),
        ("augmentations", toy_augmentation(globally(lambda: float(np.random.rand()))), "generator of numpy"),  # noqa: NPY002 - the fault
        ("augmentations", toy_augmentation(globally(random.random)), "generator of random"),
        ("augmentations", toy_augmentation(globally(lambda: torch.initial_seed() / 2 + 0.1)), "depends on"),
    ],
    "any_size": [("augmentations", toy_augmentation(only_colour), "(1, 1, 8, 8)")],
    "p_zero_is_identity": [("augmentations", not_always, "p = 0")],
    # datasets
    "missing_root_is_explained": [
        ("datasets", toy_dataset(unexplained), "lacks a hint"),
        ("datasets", toy_dataset(opens), "FileNotFoundError"),
        ("datasets", toy_dataset(lambda _: some_dataset({"images": [], "labels": [], "ids": []})), "no images"),
    ],
    "returns_dataset": [
        ("datasets", toy_dataset(lambda _: {"train": 1}), "returned dict"),
        ("datasets", toy_dataset(lambda _: some_dataset(splits={"training": some_split("train")})), "training"),
        ("datasets", toy_dataset(lambda _: some_dataset(classes=("a",))), "at least 2"),
        ("datasets", toy_dataset(lambda _: some_dataset(classes=("a", "b", "b"))), "two classes"),
    ],
    "labels_match": [
        ("datasets", toy_dataset(lambda _: some_dataset({"labels": [0, 1, 2]})), "3 labels"),
        ("datasets", toy_dataset(lambda _: some_dataset({"labels": [1, 2, 3] * 2})), "outside 0..2"),
        ("datasets", toy_dataset(lambda _: some_dataset({"labels": [0.0, 1.0, 2.0] * 2})), "not integers"),
        ("datasets", verification({"labels": [1, 1, 0, 0]}), "6 pairs, but 4 labels"),
    ],
    "ids_unique": [
        ("datasets", toy_dataset(lambda _: some_dataset({"ids": list("aabcde")})), "twice"),
        ("datasets", toy_dataset(lambda _: some_dataset({"ids": list("abc")})), "3 ids"),
        ("datasets", verification({"ids": list("abcd")}), "6 pairs, 4 ids"),
        ("datasets", toy_dataset(lambda _: some_dataset({"ids": list(range(6))})), "strings"),
    ],
    "no_leak": [
        ("datasets", toy_dataset(group_in_two_splits), "group 'ann'"),
        ("datasets", verification({"groups": ["test ann"] * 2 + ["bob"] * 2}), "group 'test ann'"),
        ("datasets", toy_dataset(lambda _: some_dataset({"ids": [f"test/{n}" for n in range(6)]})), "id 'test/0'"),
    ],
    "every_class_has_training_images": [
        ("datasets", toy_dataset(lambda _: some_dataset({"labels": [0, 1] * 3})), "'c'"),
    ],
    "images_usable": [
        ("datasets", toy_dataset(lambda _: some_dataset({"images": np.zeros((6, 8, 8, 3))})), "float64"),
        ("datasets", toy_dataset(without_file), "do not exist"),
        ("datasets", toy_dataset(with_broken_file), "cannot be decoded"),
    ],
    "channels_declared": [
        ("datasets", toy_dataset(lambda _: some_dataset(channels=1)), "3 channels, 1 declared"),
        ("datasets", toy_dataset(lambda _: some_dataset(channels=4)), "1 and 3"),
    ],
    "deterministic": [
        ("datasets", toy_dataset(reshuffled), "sort"),
        ("datasets", toy_dataset(with_other_groups), "sort"),
    ],
    "pairs_valid": [
        ("datasets", verification({"pairs": None}), "no pairs"),
        ("datasets", verification(task="classification"), "set task"),
        ("datasets", verification(classes=("same", "different")), "PAIR_CLASSES"),
        ("datasets", verification({"pairs": np.zeros((6, 3), dtype=int)}), "(6, 3), not integers P,2"),
        ("datasets", verification({"pairs": np.array([(0, 1)] * 5 + [(0, 4)])}), "1 pairs point outside its 4"),
        ("datasets", verification({"pairs": np.array([(0, 1)] * 5 + [(3, 3)])}), "image with itself"),
        ("datasets", verification({"pairs": np.array([(0, 1), (1, 0), (0, 2), (0, 3), (1, 2), (1, 3)])}), "1 pairs"),
        ("datasets", verification({"images": [Path("a"), Path("b"), Path("c"), Path("a")]}), "file stands in images"),
        ("datasets", verification({"groups": None}), "identity of each"),
        ("datasets", verification({"groups": list("aabbbb")}), "6 groups; they are one an image"),
        ("datasets", verification({"labels": [0, 1, 0, 0, 0, 1]}), "labels of 2 pairs"),
    ],
    "folds_apart": [
        ("datasets", toy_dataset(lambda _: some_dataset({"folds": [0, 1] * 3})), "only split"),
        ("datasets", folded([0, 1]), "6 images, but folds of the shape (2,)"),
        ("datasets", folded_pairs(folds=[0] * 4 + [1] * 4), "12 pairs, but folds of the shape (8,)"),
        ("datasets", folded([0, 2] * 3), "from 0 on"),
        ("datasets", folded([0] * 6), "at least 2"),
        ("datasets", folded([0, 1] * 3, groups=list("aabbcc")), "group 'a' is in the folds 0 and 1"),
        ("datasets", folded_pairs(folds=[0, 1] * 6), "group 'train bob' is in the folds 1 and 0"),
    ],
    "boxes_inside": [
        ("datasets", toy_dataset(lambda _: some_dataset({"boxes": np.array([(0, 0, 2, 2)] * 6)})), "the array itself"),
        ("datasets", boxed([(0, 0, 2, 2)] * 2), "3 images, but boxes are int64 (2, 4)"),
        ("datasets", boxed([(0.0, 0.0, 2.0, 2.0)] * 3), "float64"),
        ("datasets", boxed([(0, 0, 2, 2), (2, 0, 2, 2), (-1, 0, 2, 2)]), "2 boxes are empty"),
        ("datasets", boxed([(0, 0, 4, 4), (0, 0, 4, 4), (0, 0, 5, 4)]), "cannot be cut"),
    ],
}
PLANTED = [
    pytest.param(name, kind, target, reason, id=f"{name}-{kind}-{number}")
    for name, faults in FAULTS.items()
    for number, (kind, target, reason) in enumerate(faults)
]


@click.command()
def toy_command() -> None:
    """A command."""


SOUND = [
    ("models", toy_model(ToyNet)),
    ("models", toy_model(ToyPair)),
    ("augmentations", toy_augmentation(darker)),
    ("augmentations", toy_always(darker)),
    ("augmentations", toy_augmentation(lambda images, targets, _: (1 - images, targets))),
    ("augmentations", toy_always(lambda images, targets, _: (1 - images, targets))),
    ("datasets", toy_dataset(lambda _: some_dataset())),
    ("datasets", verification()),
    ("datasets", verification({"ids": None})),
    ("datasets", folded([0, 0, 1, 1, 2, 2], groups=list("aabbcc"))),
    ("datasets", folded_pairs(folds=[0] * 6 + [1] * 6)),
    ("datasets", boxed([(0, 0, 4, 4), (1, 2, 3, 4), (0, 0, 1, 1)])),
    ("exporters", undocumented),
    ("commands", toy_command),
]


@pytest.mark.parametrize(("name", "kind", "target", "reason"), PLANTED)
def test_a_planted_fault_is_caught(name: str, kind: str, target: Any, reason: str, plugin_of: Any) -> None:
    found = {result.check: result for result in run_checks(plugin_of(kind, target))}
    assert found[name].status == "failed"
    assert reason in found[name].detail


@pytest.mark.parametrize("kind", GROUPS)
def test_every_check_has_a_planted_fault(kind: str, plugin_of: Any) -> None:
    caught = {name for name, faults in FAULTS.items() for fault in faults if fault[0] == kind}
    shared = {"imports", "has_docstring", "signature_is_schema", "defaults_are_valid", "options_are_toml"}
    names = [check.name for check in checks(plugin_of(kind, None))]
    assert set(names) - shared == caught - shared
    assert shared <= set(FAULTS)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", GROUPS)
def test_every_check_says_what_is_promised(kind: str, plugin_of: Any) -> None:
    for check in checks(plugin_of(kind, None)):
        assert check.promise.endswith(".")
        assert len(check.promise) < 120


@pytest.mark.parametrize(("kind", "target"), SOUND)
def test_a_sound_plugin_passes(kind: str, target: Any, plugin_of: Any) -> None:
    plugin = plugin_of(kind, target)
    failed = [result for result in run_checks(plugin) if result.status == "failed"]
    assert [result.check for result in failed] == (["has_docstring"] if target is undocumented else [])


# What the generator does


def raising(error: Exception) -> Callable[..., nn.Module]:
    def model(_: DataSpec) -> nn.Module:
        """A model that cannot be built."""
        raise error

    return model


def test_what_a_plugin_declines_is_skipped_with_the_reason(plugin_of: Any) -> None:
    results = run_checks(plugin_of("models", raising(Unsupported("only on Sundays"))))
    assert {result.status for result in results[5:]} == {"skipped"}
    assert {result.detail for result in results[5:]} == {"only on Sundays"}


def test_an_exception_names_promise_type_hint_and_place(plugin_of: Any) -> None:
    results = run_checks(plugin_of("models", raising(DataError("no weights", hint="fetch them"))))
    detail = next(result.detail for result in results if result.check == "single_image_in_eval")
    assert detail.startswith(
        "promised: In evaluation it takes a single image or pair. It raised DataError: no weights; fetch them"
    )
    assert f"({__file__}:" in detail


def test_a_model_that_declines_classification_is_checked_on_pairs(plugin_of: Any) -> None:
    specs = []

    def model(spec: DataSpec) -> nn.Module:
        """A model of pairs."""
        specs.append(spec)
        if min(spec.image_size) < 64:
            raise Unsupported("only from 64 pixels on")
        return ToyPair(spec)

    results = run_checks(plugin_of("models", model))
    assert {result.status for result in results} == {"passed"}
    built = {(spec.classes, spec.channels, spec.image_size) for spec in specs if spec.task == "verification"}
    assert {(PAIR_CLASSES, 3, (64, 64)), (PAIR_CLASSES, 1, (64, 64)), (PAIR_CLASSES, 3, (64, 128))} <= built


def test_larger_images_are_tried_where_small_ones_are_declined(plugin_of: Any) -> None:
    sizes = []

    def model(spec: DataSpec) -> nn.Module:
        """A model for large square images."""
        sizes.append(spec.image_size)
        if spec.image_size != (224, 224):
            raise Unsupported("only 224 x 224")
        return ToyNet(spec)

    results = run_checks(plugin_of("models", model))
    assert {result.status for result in results} == {"passed"}
    assert (224, 448) in sizes


def test_what_cannot_be_imported_fails_once(plugin_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = plugin_of("models", undocumented)
    monkeypatch.delitem(sys.modules, MODULE)
    results = run_checks(plugin)
    assert results[0] == Result("models/toy", "imports", "failed", results[0].detail)
    assert "toy-distribution 1.0 cannot be imported" in results[0].detail
    assert {(result.status, result.detail) for result in results[1:]} == {
        ("skipped", "not run, because imports failed")
    }


def test_listing_the_checks_imports_no_plugin(plugin_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = plugin_of("models", undocumented)
    monkeypatch.delitem(sys.modules, MODULE)
    assert next(checks(plugin)).name == "imports"


def with_required(spec: DataSpec, *, size: int) -> nn.Module:
    """A model with an option that has no default."""
    assert size == 3
    return ToyNet(spec)


def test_a_required_option_comes_from_the_caller_or_the_example(
    plugin_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = plugin_of("models", with_required)
    without = run_checks(plugin)
    assert [result.status for result in without[:5]] == ["passed"] * 5
    assert all("size" in result.detail and "example" in result.detail for result in without[5:])
    assert {result.status for result in run_checks(plugin, options={"size": 3})} == {"passed"}
    monkeypatch.setattr(with_required, "example", lambda _: {"size": 3}, raising=False)
    assert {result.status for result in run_checks(plugin)} == {"passed"}


def test_options_that_do_not_fit_are_a_failure(plugin_of: Any) -> None:
    results = run_checks(plugin_of("models", with_required), options={"size": "large"})
    assert "toy.size: input should be a valid integer" in results[-1].detail


def from_files(root: Path, *, suffix: str = ".jpg") -> Dataset:
    """Images in one folder."""
    files = sorted(root.glob(f"*{suffix}"))
    if not files:
        raise DataError(f"{root} holds no {suffix}", hint="set the root")
    splits = {"train": Split(files[:6], [0, 1, 2] * 2), "test": Split(files[6:], [0, 1, 2])}
    return Dataset(("a", "b", "c"), splits)


def write_images(folder: Path) -> dict[str, Any]:
    for number in range(9):
        Image.new("RGB", (4, 4)).save(folder / f"{number}.png")
    return {"suffix": ".png"}


def test_a_dataset_brings_an_example_or_is_given_a_root(
    plugin_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plugin = plugin_of("datasets", from_files)
    statuses = {result.check: result.status for result in run_checks(plugin)}
    assert statuses["missing_root_is_explained"] == "passed"
    assert statuses["ids_unique"] == "skipped"
    options = write_images(tmp_path)
    assert {result.status for result in run_checks(plugin, options=options, root=tmp_path)} == {"passed"}
    monkeypatch.setattr(from_files, "example", write_images, raising=False)
    assert {result.status for result in run_checks(plugin)} == {"passed"}


def test_nothing_is_left_changed_behind_a_check(plugin_of: Any) -> None:
    before = socket.create_connection, socket.getaddrinfo, "connect" in vars(socket.socket), torch.get_rng_state()
    state = random.getstate(), repr(np.random.get_state())  # noqa: NPY002 - the global generator is meant
    run_checks(plugin_of("models", toy_model(AsksTheNetwork)))
    run_checks(plugin_of("models", toy_model(ToyNet)))
    assert (socket.create_connection, socket.getaddrinfo, "connect" in vars(socket.socket)) == before[:3]
    assert before[3].equal(torch.get_rng_state())
    assert state == (random.getstate(), repr(np.random.get_state()))  # noqa: NPY002 - the same


# The face for pytest


@pytest.fixture
def toy_distribution(plugin_of: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    plugin_of("models", with_required)
    origin: Any = SimpleNamespace(name="Toy_Distribution", version="1.0")
    unowned: Any = EntryPoint("toy", f"{MODULE}:toy", "bench.models")
    point = unowned._for(origin)
    monkeypatch.setattr(registry, "entry_points", lambda *, group: [point] if group == "bench.models" else [])
    registry.installed.cache_clear()
    yield
    registry.installed.cache_clear()


def cases_of(test: Any) -> dict[str, Check]:
    [mark] = test.pytestmark
    return {case.id: case.values[0] for case in mark.args[1]}


@pytest.mark.usefixtures("toy_distribution")
def test_an_author_gets_a_case_for_each_check() -> None:
    test: Any = conformance_test("toy-distribution")
    cases = cases_of(test)
    assert "models/toy-output_shape" in cases
    test(cases["models/toy-imports"])
    with pytest.raises(pytest.skip.Exception, match="size"):
        test(cases["models/toy-output_shape"])
    wrong: Any = conformance_test("toy.distribution", options={"models/toy": {"size": 4}})
    with pytest.raises(AssertionError):
        wrong(cases_of(wrong)["models/toy-output_shape"])
    unfit: Any = conformance_test("toy-distribution", options={"models/toy": {"size": "4"}})
    with pytest.raises(CheckFailed, match="valid integer"):
        unfit(cases_of(unfit)["models/toy-output_shape"])


@pytest.mark.usefixtures("toy_distribution")
def test_an_author_is_told_of_a_wrong_name() -> None:
    with pytest.raises(PluginError, match="'other'; there are plugins of: Toy_Distribution"):
        conformance_test("other")
    with pytest.raises(PluginError, match="no plugin 'models/top'") as error:
        conformance_test("toy-distribution", options={"models/top": {}})
    assert error.value.hint == "it has models/toy"
