"""A frozen backbone's features: equal to computing them anew, found again, and never taken for others."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.errors import BenchError, RecipeError
from bench.stages import features as stage
from bench.stages.batches import Batches, Preprocessing, hold, num_steps
from bench.stages.cache import cache_folder
from bench.stages.data import Data
from bench.stages.features import FeatureBatches, cache_features
from bench.stages.image_set import ImageSet
from bench.stages.model import freeze
from bench.stages.seeding import Generators

_CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
        self.head = nn.Linear(64, 2)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.features(images)  # type: ignore[no-any-return]

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features)  # type: ignore[no-any-return]


def noise(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return images + torch.rand(len(images), 1, 1, 1, generator=generator), targets * 0.5 + 0.25


def make(count: int = 11, *, name: str = "train", batch_size: int = 4, held: bool = True, augment: Any = ()) -> Batches:
    images = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    rows = np.arange(count)
    given = ImageSet(images, rows, rows % 2, tuple(f"{name}/{row}" for row in rows))
    tensor = torch.from_numpy(images) if held else None
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, torch.channels_last)
    return Batches(given, preprocessing, 2, batch_size, _CPU, held=tensor, augment=augment)


def model() -> Net:
    torch.manual_seed(0)
    net = Net()
    freeze(net, ["features"])
    return net


def cached(batches: Batches, net: Net | None = None, *, views: int = 1, seed: int = 0, **key: Any) -> FeatureBatches:
    return cache_features(net or model(), batches, views=views, seed=seed, key=key, precision="fp32")


def num_files() -> int:
    return len(list((cache_folder() / "features").iterdir()))


@pytest.mark.parametrize("held", [True, False])
def test_cached_features_are_the_recomputed_ones(held: bool) -> None:
    net, batches = model(), make(held=held)
    found = list(cached(batches, net).ordered())
    net.eval()
    for (features, chances), (images, targets) in zip(found, batches.ordered(), strict=True):
        assert torch.allclose(features, net.forward_features(images), atol=1e-6)
        assert torch.equal(chances, targets)


@pytest.mark.parametrize("views", [1, 3])
def test_views_are_augmented_and_drawn_at_random(views: int) -> None:
    batches = make(augment=(noise,))
    given = cached(batches, views=views)
    assert (given.features.shape, given.targets.shape) == ((views, 11, 64), (views, 11, 2))
    assert len({tuple(view[0].tolist()) for view in given.features}) == views
    assert torch.all((given.targets == 0.25) | (given.targets == 0.75))
    generators = Generators.start(0, _CPU)
    taken = set()
    for _ in range(12):
        for features, _targets in given.shuffled(generators):
            for feature in features:
                places = (given.features == feature).all(2).nonzero().tolist()
                assert len(places) == 1
                taken.add(tuple(places[0]))
    assert len(taken) == views * 11
    generator = torch.Generator().manual_seed(0)
    expected = torch.cat([model().eval().forward_features(images) for images, _ in batches.ordered(generator)])
    assert torch.allclose(given.features[0], expected, atol=1e-6)


@pytest.mark.parametrize(("count", "batch_size"), [(11, 4), (12, 4), (13, 4), (3, 8)])
def test_an_epoch_has_every_image_once(count: int, batch_size: int) -> None:
    given = cached(make(count, batch_size=batch_size))
    epoch = list(given.shuffled(Generators.start(0, _CPU)))
    assert len(epoch) == len(given) == num_steps(count, batch_size)
    seen = torch.cat([features for features, _ in epoch])
    assert len(seen.unique(dim=0)) == len(seen) == count - (count == 13)
    again = torch.cat([features for features, _ in given.shuffled(Generators.start(0, _CPU))])
    assert torch.equal(seen, again)


def test_the_second_time_the_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached(make())
    reports: list[tuple[int, int]] = []
    monkeypatch.setattr(stage, "_compute", lambda *_, **__: pytest.fail("computed again"))
    again = cache_features(
        model(), make(), views=1, seed=0, key={}, precision="fp32", report=lambda *done: reports.append(done)
    )
    assert torch.equal(again.features, first.features)
    assert (num_files(), reports) == (1, [])


def test_the_head_does_not_matter() -> None:
    net = model()
    cached(make(), net)
    with torch.no_grad():
        net.head.weight.zero_()
    cached(make(), net)
    assert num_files() == 1


@pytest.mark.parametrize("change", ["weights", "statistics", "seed", "views", "key", "rows", "labels", "split"])
def test_whatever_matters_makes_another_file(change: str) -> None:
    net, batches = model(), make(augment=(noise,))
    cached(batches, net, augment=["noise"])
    options: dict[str, Any] = {"views": 2 if change == "views" else 1, "seed": int(change == "seed")}
    if change == "weights":
        net.features[0].bias.data += 1e-6  # type: ignore[operator,union-attr]
    if change == "statistics":
        net.features[1].running_mean += 1  # type: ignore[operator,union-attr]
    images = batches.images
    if change == "rows":
        batches.images = replace(images, rows=images.rows[::-1].copy())
    if change == "labels":
        batches.images = replace(images, labels=1 - images.labels)
    if change == "split":  # as many images, in the same classes, of another split
        batches = make(name="validation", augment=(noise,))
    cached(batches, net, augment=["blur" if change == "key" else "noise"], **options)
    assert num_files() == 2


def test_validation_does_not_get_the_training_features() -> None:
    train, validation = make(), make(name="validation")
    other = 255 - validation.images.images
    validation.images, validation.held = replace(validation.images, images=other), torch.from_numpy(other)
    first, second = cached(train), cached(validation)
    assert not torch.equal(first.features, second.features)


def test_progress_counts_views() -> None:
    reports: list[tuple[int, int]] = []
    batches = make(augment=(noise,))
    cache_features(model(), batches, views=2, seed=0, key={}, precision="fp32", report=lambda *d: reports.append(d))
    assert reports == [(done, 22) for done in (4, 8, 11, 15, 19, 22)]


def test_a_full_disk_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(BenchError, match="could not be written: No space left on device") as error:
        cached(make())
    assert "BENCH_CACHE" in (error.value.hint or "")
    assert num_files() == 0


def test_hold_keeps_one_tensor_an_array() -> None:
    images = make().images
    spec: Any = None
    data = Data(spec, {"train": images, "test": images.take(np.arange(3))}, "", (), resident=True)
    held = hold(data, _CPU)
    assert list(held) == [id(images.images)]
    assert np.shares_memory(held[id(images.images)].numpy(), images.images)
    assert hold(replace(data, resident=False), _CPU) == {}


# pairs


def make_pairs(
    *, held: bool = True, augment: Any = (), rows: Any = ((3, 8), (8, 5), (4, 3), (10, 7), (5, 9))
) -> Batches:
    batches = make(held=held, augment=augment)
    images = replace(
        batches.images, rows=np.array(rows), labels=np.arange(len(rows)) % 2, ids=tuple("abcdefg"[: len(rows)])
    )
    return replace(batches, images=images)


def plain_noise(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Any:
    return images + torch.rand(len(images), 1, 1, 1, generator=generator), targets


@pytest.mark.parametrize("held", [True, False])
def test_features_of_pairs_are_those_of_their_images(held: bool) -> None:
    net, batches = model(), make_pairs(held=held)
    given = cached(batches, net)
    assert given.features.shape == (1, 7, 64)  # seven distinct images in five pairs
    net.eval()
    for (features, chances), (images, targets) in zip(given.ordered(), batches.ordered(), strict=True):
        assert torch.allclose(features, net.forward_features(images), atol=1e-6)
        assert torch.equal(chances, targets)


def test_each_side_of_a_pair_has_a_view_of_its_own() -> None:
    given = cached(make_pairs(augment=(plain_noise,)), views=3)
    assert given.features.shape == (3, 7, 64)
    assert given.pairs is not None
    rows = np.unique(make_pairs().images.rows)
    seen, generators = set(), Generators.start(0, _CPU)
    for _ in range(150):
        for features, targets in given.shuffled(generators):
            places = [(given.features == feature).all(2).nonzero().tolist()[0] for feature in features]
            for (view, first), (other, second), target in zip(
                places[: len(targets)], places[len(targets) :], targets.argmax(1).tolist(), strict=True
            ):
                position = make_pairs().images.rows.tolist().index([rows[first], rows[second]])
                assert make_pairs().images.labels[position] == target
                seen.add((position, view, other))
    assert len(seen) == 5 * 3 * 3


def test_an_epoch_has_every_pair_once() -> None:
    given = cached(make_pairs())
    epoch = list(given.shuffled(Generators.start(0, _CPU)))
    assert len(epoch) == len(given) == num_steps(5, 4)
    assert [len(features) for features, _ in epoch] == [2 * len(targets) for _, targets in epoch]


def test_other_pairs_or_labels_of_the_same_images_make_another_file() -> None:
    net = model()
    cached(make_pairs(), net)
    cached(make_pairs(rows=((8, 3), (8, 5), (4, 3), (10, 7), (5, 9))), net)
    assert num_files() == 2
    cached(make_pairs(), net)
    assert num_files() == 2


def test_features_of_mixed_faces_are_refused() -> None:
    def mix(images: torch.Tensor, targets: torch.Tensor, _: torch.Generator) -> Any:
        return images.lerp(images.flip(0), 0.5), targets.lerp(targets.flip(0), 0.5)

    with pytest.raises(RecipeError, match="mixes images and their targets"):
        cached(make_pairs(augment=(mix,)), views=2)
    assert not (cache_folder() / "features").exists()
