"""Training images for the report: samples with their classes, and what the augmentations make of some."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.reporting.pictures import Picture, make_picture

if TYPE_CHECKING:
    from bench.recipe import Recipe
    from bench.reporting.opening import Opened
    from bench.reporting.reading import Recorded

__all__ = ["augmented", "drawn", "samples"]

_SAMPLES = {False: 24, True: 12}  # of pairs fewer, as each is two images
_ROWS, _DRAWS = 4, 6
_SEED = 0

#: The run's own pictures, where its images are not here.
_FIGURES = {"samples.png": "training samples", "augmentations.png": "augmented draws"}
_LARGEST_FIGURE = 1_000_000  # bytes


def samples(opened: Opened) -> list[tuple[str, tuple[Picture, ...]]]:
    """Some training samples: the class, and one picture or, of pairs, two."""
    train = opened.data.splits["train"]
    pairs = train.rows.ndim > 1
    chosen = np.random.default_rng(_SEED).permutation(len(train))[: _SAMPLES[pairs]]
    return [
        (
            opened.data.spec.classes[int(train.labels[position])],
            tuple(make_picture(train.images[row]) for row in np.atleast_1d(train.rows[position]).tolist()),
        )
        for position in chosen.tolist()
    ]


def augmented(recipe: Recipe, opened: Opened) -> list[tuple[Picture, ...]]:
    """Training images as the model gets them, each with draws of the recipe's augmentations; [] where it has none."""
    if not recipe.augment:
        return []
    import torch

    from bench.stages.setup import augmentations

    train, num_classes = opened.data.splits["train"], opened.data.spec.num_classes
    rows = np.random.default_rng(_SEED).permutation(train.distinct_rows())[:_ROWS]
    pixels = np.asarray(train.images[rows])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
    draws = [pixels]
    for seed in range(_DRAWS):
        generator = torch.Generator().manual_seed(seed)
        batch, targets = images, torch.full((len(images), num_classes), 1 / num_classes)
        for augmentation in augmentations(recipe):
            batch, targets = augmentation(batch, targets, generator)
        draws.append(batch.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy())
    return [tuple(make_picture(draw[row]) for draw in draws) for row in range(len(rows))]


def drawn(recorded: Recorded) -> list[dict[str, Any]]:
    """The pictures that the run itself has drawn of its samples, as data URIs."""
    found = []
    for name, title in _FIGURES.items():
        path: Path = recorded.run.folder / "figures" / name
        try:
            content = path.read_bytes()
        except OSError:
            continue
        if content.startswith(b"\x89PNG") and len(content) <= _LARGEST_FIGURE:
            found.append({"title": title, "uri": f"data:image/png;base64,{base64.b64encode(content).decode()}"})
    return found
