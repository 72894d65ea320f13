"""A frozen backbone's features, computed once and kept on disk, so that only the head is run in each epoch.

Augmentation is kept by caching several augmented views of each image; every epoch takes one of them at random.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from bench.errors import BenchError
from bench.files import atomic
from bench.parallel import Report
from bench.stages.batches import Batches, num_steps, one_hot
from bench.stages.cache import cache_folder
from bench.stages.calibrate import autocast
from bench.stages.shards import in_steps

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.recipe import Recipe
    from bench.stages.data import Data
    from bench.stages.image_set import ImageSet
    from bench.stages.seeding import Generators
    from bench.stages.shards import Shard

__all__ = ["FeatureBatches", "cache_features", "feature_key"]


@dataclass(slots=True)
class FeatureBatches:
    """Batches of cached features: `features` views,N,... and `targets` views,N,num_classes, both in sample order.

    Of pairs, `features` is views,M,... of the M distinct images, and `pairs` N,2 says which two of them make a pair;
    a batch of n pairs has 2n features, the first images' before the second ones'.
    """

    images: ImageSet
    features: torch.Tensor
    targets: torch.Tensor
    batch_size: int
    device: torch.device
    pairs: torch.Tensor | None = None

    def __len__(self) -> int:
        return num_steps(len(self.images), self.batch_size)

    def shuffled(
        self, generators: Generators, *, shard: Shard | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch in a new order; a random view of each image."""
        count = len(self.images)
        order = torch.randperm(count, generator=generators.shuffle)
        shape = (count,) if self.pairs is None else (count, 2)  # each side has a view of its own
        views = torch.randint(len(self.features), shape, generator=generators.shuffle)
        for positions in in_steps(order, self.batch_size, len(self)):
            own = positions if shard is None else positions[shard.rows(len(positions))]
            yield self._take(views[own], own)

    def ordered(self, *, shard: Shard | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The first view of every image, in order."""
        order, size = torch.arange(len(self.images)), self.batch_size
        if shard is not None:
            order, size = order[shard.rows(len(order))], shard.size(size)
        for positions in in_steps(order, size, -(-len(order) // size)):
            chosen = positions if self.pairs is None else self.pairs[positions]
            yield self._take(torch.zeros_like(chosen), positions)

    def _take(self, views: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        place = self.features.device
        if self.pairs is None:
            views, positions = views.to(place), positions.to(place)
            return self.features[views, positions].to(self.device), self.targets[views, positions].to(self.device)
        both = self.pairs[positions].T.reshape(-1).to(place)
        inputs = self.features[views.T.reshape(-1).to(place), both]
        return inputs.to(self.device), self.targets[0, positions.to(place)].to(self.device)


def cache_features(
    model: torch.nn.Module,
    batches: Batches,
    *,
    views: int,
    seed: int,
    key: dict[str, Any],
    precision: str,
    report: Report | None = None,
) -> FeatureBatches:
    """The features of every image of a split, from the cache or computed now.

    `key` holds what the features depend on beside the backbone's weights, the images and the seed of the augmentation:
    preprocessing, augmentation, precision.
    """
    name = _key(model, batches, {**key, "views": views, "seed": seed})
    path = cache_folder() / "features" / f"{name}.npz"
    if not path.is_file():
        arrays = _compute(model, batches.distinct(), views=views, seed=seed, precision=precision, report=report)
        try:
            with atomic(path) as partial, partial.open("wb") as file:
                np.savez(file, **arrays)
        except OSError as cause:
            raise BenchError(
                f"{path.parent}: the features could not be written: {cause.strerror}",
                hint="free some space, name another folder with BENCH_CACHE, or --set train.cache_features=off",
            ) from cause
    with np.load(path) as stored:
        features, targets = torch.from_numpy(stored["features"]), torch.from_numpy(stored["targets"])
    if batches.held is not None:  # the images fit on the device, and features are rarely larger
        features, targets = features.to(batches.device), targets.to(batches.device)
    made = FeatureBatches(batches.images, features, targets, batches.batch_size, batches.device)
    rows = batches.images.rows
    if rows.ndim == 1:
        return made
    made.pairs = torch.from_numpy(np.searchsorted(batches.images.distinct_rows(), rows))
    made.targets = one_hot(torch.from_numpy(batches.images.labels), 2)[None].to(features.device)
    return made


def feature_key(recipe: Recipe, plan: Plan, data: Data) -> dict[str, Any]:
    """What a frozen backbone's features depend on, beside its weights and the seed."""
    names = ("image_size", "device", "precision", "memory_format", "mean", "std", "threads")
    return {
        "data": data.fingerprint,
        "augment": [asdict(chosen) for chosen in recipe.augment],
        "copies": recipe.data.copies,
        "model": asdict(recipe.model),
        "decoding": recipe.data.model_dump(include={"resize", "filter", "channels", "max_megapixels"}),
        **{name: getattr(plan, name) for name in names},
    }


@torch.no_grad()
def _compute(
    model: torch.nn.Module,
    batches: Batches,
    *,
    views: int,
    seed: int,
    precision: str,
    report: Report | None,
) -> dict[str, Any]:
    model.eval().to(memory_format=batches.preprocessing.memory_format)
    backbone = cast("Callable[[torch.Tensor], torch.Tensor]", model.forward_features)
    generator = torch.Generator(batches.device).manual_seed(seed)
    features, targets = [], []
    total = views * len(batches.images)
    for view in range(views):
        done = view * len(batches.images)
        for images, chances in batches.ordered(generator if batches.augment else None):
            with autocast(batches.device, precision):
                features.append(backbone(images).float().cpu())
            targets.append(chances.cpu())
            done += len(images)
            if report is not None:
                report(done, total)
    shape = (views, len(batches.images))
    return {
        name: joined.reshape(*shape, *joined.shape[1:]).numpy()
        for name, joined in (("features", torch.cat(features)), ("targets", torch.cat(targets)))
    }


def _key(model: torch.nn.Module, batches: Batches, key: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode())
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, tensor in sorted(model.state_dict().items()):
        if name not in trained:
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest.update(batches.images.rows.tobytes())
    digest.update(batches.images.labels.tobytes())
    digest.update("\0".join(batches.images.ids).encode())  # two splits may have the same rows and labels
    return digest.hexdigest()[:32]
