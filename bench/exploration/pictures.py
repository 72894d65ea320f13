"""Small pictures for the page, embedded as data URIs: samples, pairs, findings, and what the augmentations do."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bench.exploration.survey import pixels_of
from bench.images import Decoding, fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.exploration.doctor import Case
    from bench.exploration.survey import Survey
    from bench.recipe import Recipe

__all__ = ["Picture", "Row", "augmented", "of_cases", "pairs", "samples"]

_SIDE = 96  # pixels, the longer side
_QUALITY = 78  # of WebP
_MOST_ROWS = 60  # classes, or identities
_MOST_SAMPLES = 480  # pictures in all rows
_A_ROW = (4, 20)  # pictures, at least and at most
_IDENTITIES = 12
_PAIRS = 8  # of each label
_CASES = 12  # of each finding
_OF_A_CASE = 4
_AUGMENTED = (4, 6)  # images, and draws of each
_SEED = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as a data URI, its size on the page in CSS pixels, and a name."""

    uri: str
    width: int
    height: int
    name: str
    small: bool


@dataclass(frozen=True, slots=True)
class Row:
    """Pictures that belong together."""

    title: str
    pictures: tuple[Picture, ...]


def samples(survey: Survey) -> tuple[Row, ...]:
    """Training images of each class, drawn at random; for verification, of the identities with the most images."""
    chosen = [index for index in survey.readable.tolist() if survey.splits[index] == "train"]
    of_label: dict[str, list[int]] = {}
    for index in chosen:
        of_label.setdefault(survey.label(index), []).append(index)
    if survey.dataset.task == "verification":
        titles = sorted(of_label, key=lambda title: (-len(of_label[title]), title))[:_IDENTITIES]
    else:
        titles = [title for title in survey.dataset.classes if title in of_label][:_MOST_ROWS]
    each = int(np.clip(_MOST_SAMPLES // max(len(titles), 1), *_A_ROW))
    random = np.random.default_rng(_SEED)
    return tuple(Row(title, _pictures(survey, random.permutation(of_label[title])[:each].tolist())) for title in titles)


def pairs(survey: Survey) -> tuple[Row, ...]:
    """Training pairs of each label, side by side; none where the task is not verification."""
    split = survey.dataset.splits["train"]
    if split.pairs is None:
        return ()
    start = survey.splits.index("train")
    readable = {index - start for index in survey.readable.tolist() if survey.splits[index] == "train"}
    labels, table = np.asarray(split.labels), np.asarray(split.pairs)
    random = np.random.default_rng(_SEED)
    rows = []
    for label, title in enumerate(survey.dataset.classes):
        usable = [pair for pair in np.flatnonzero(labels == label).tolist() if set(table[pair].tolist()) <= readable]
        chosen = random.permutation(usable)[:_PAIRS].astype(int).tolist()
        rows += [Row(title, _pictures(survey, (table[pair] + start).tolist())) for pair in chosen]
    return tuple(rows)


def of_cases(survey: Survey, cases: Sequence[Case]) -> tuple[Row, ...]:
    """The first cases of a finding that can be shown."""
    good = set(survey.readable.tolist())
    shown = [case for case in cases if case.images and set(case.images) <= good][:_CASES]
    return tuple(Row(case.detail, _pictures(survey, case.images[:_OF_A_CASE])) for case in shown)


def augmented(recipe: Recipe, survey: Survey) -> tuple[Row, ...]:
    """Training images as the recipe resizes them, each with draws of its augmentations; () where it has none."""
    if not recipe.augment:
        return ()
    import torch

    from bench.stages.setup import augmentations

    chosen = _spread_over_classes(survey, _AUGMENTED[0])
    if not chosen:
        return ()
    how = _decoding(recipe, survey)
    pixels = np.stack([fit(_image(pixels_of(survey, index), how.channels), how) for index in chosen])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
    num_classes = len(survey.dataset.classes)
    draws = []
    for seed in range(_AUGMENTED[1]):
        generator = torch.Generator().manual_seed(seed)
        batch, targets = images, torch.full((len(images), num_classes), 1 / num_classes)
        for augmentation in augmentations(recipe):
            batch, targets = augmentation(batch, targets, generator)
        draws.append(batch.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy())
    return tuple(
        Row(survey.names[index], tuple(_picture(array, "") for array in (pixels[row], *(draw[row] for draw in draws))))
        for row, index in enumerate(chosen)
    )


def _spread_over_classes(survey: Survey, count: int) -> list[int]:
    """Training images of as many labels as there are, drawn at random."""
    random = np.random.default_rng(_SEED)
    chosen = [index for index in random.permutation(survey.readable).tolist() if survey.splits[index] == "train"]
    seen: dict[str, int] = {}
    for index in chosen:
        seen.setdefault(survey.label(index), index)
    different = list(seen.values())
    return [*different, *(index for index in chosen if index not in set(different))][:count]


def _decoding(recipe: Recipe, survey: Survey) -> Decoding:
    channels: Any = survey.dataset.channels if recipe.data.channels == "auto" else recipe.data.channels
    return Decoding(recipe.data.image_size, channels, recipe.data.resize, recipe.data.filter)


def _pictures(survey: Survey, indices: Iterable[int]) -> tuple[Picture, ...]:
    return tuple(_picture(pixels_of(survey, index), survey.names[index]) for index in indices)


def _picture(pixels: NDArray[np.uint8], name: str) -> Picture:
    """A thumbnail; smaller images keep their pixels and are enlarged by the browser."""
    image = _image(pixels, pixels.shape[2])
    longest = max(image.size)
    scale = _SIDE / longest
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if scale < 1:
        image = image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.convert("RGB").save(stream, format="WEBP", quality=_QUALITY, method=4)
    uri = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return Picture(uri, *size, name, longest <= _SIDE // 2)


def _image(pixels: NDArray[np.uint8], channels: int) -> Image.Image:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return image.convert("L" if channels == 1 else "RGB")
