"""Near duplicates: copies are found, other pictures are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from bench.exploration.duplicates import exact, near
from bench.exploration.survey import Survey, survey
from bench.kinds import Dataset, Split

Texture = Callable[[int], Image.Image]


def looked_at(images: Sequence[Image.Image], groups: Sequence[str] | None = None) -> Survey:
    array = np.stack([np.asarray(image.resize((96, 80))) for image in images])
    split = Split(array, [index % 2 for index in range(len(images))], groups=groups)
    return survey(Dataset(("x", "y"), {"train": split}), Path())


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.85),
    "smaller": lambda image: image.resize((48, 40)),
    "cropped": lambda image: image.crop((3, 2, 93, 78)),
    "cropped at a corner": lambda image: image.crop((3, 3, 96, 80)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored and cropped": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).crop((2, 2, 94, 78)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_a_near_duplicate(texture: Texture, change: str) -> None:
    images = [texture(seed) for seed in range(30)]
    found = near(looked_at([*images, CHANGES[change](images[7])])).pairs
    assert [(pair.first, pair.second, pair.mirrored) for pair in found] == [(7, 30, "mirrored" in change)]
    assert 0.95 <= found[0].score <= 1


def test_different_pictures_are_no_duplicates(texture: Texture) -> None:
    seen = looked_at([texture(seed) for seed in range(200)])
    assert near(seen).pairs == ()
    assert exact(seen) == ()


def test_pictures_that_differ_in_the_symbol_alone_are_no_duplicates(texture: Texture) -> None:
    signs = []
    for seed in (1, 2, 1):
        sign = Image.new("RGB", (96, 80), (250, 250, 250))
        ImageDraw.Draw(sign).ellipse((8, 2, 88, 78), fill=(60, 60, 60))
        symbol = texture(seed).resize((40, 32)).point(lambda value: 20 + value // 2)
        sign.paste(symbol, (28, 24))
        signs.append(sign)
    signs[2] = signs[2].crop((2, 2, 95, 79))
    assert [(pair.first, pair.second) for pair in near(looked_at(signs)).pairs] == [(0, 2)]


def test_another_exposure_is_no_duplicate(texture: Texture) -> None:
    assert near(looked_at([texture(0), ImageEnhance.Brightness(texture(0)).enhance(0.3)])).pairs == ()


def test_similar_images_of_one_group_are_only_counted(texture: Texture) -> None:
    image = texture(0)
    images = [image, CHANGES["brighter"](image), texture(1), CHANGES["cropped"](texture(1))]
    found = near(looked_at(images, groups=["a", "a", "b", "c"]))
    assert found.within_groups == 1
    assert [(pair.first, pair.second) for pair in found.pairs] == [(2, 3)]


def test_images_without_structure_are_not_compared() -> None:
    flat = [Image.new("RGB", (96, 80), (value, value, value)) for value in (10, 120, 121)]
    assert near(looked_at(flat)).pairs == ()


def test_exact_duplicates_stand_for_each_other(texture: Texture) -> None:
    images = [texture(0), texture(0), texture(0), CHANGES["brighter"](texture(0))]
    seen = looked_at(images)
    assert exact(seen) == ((0, 1, 2),)
    assert [(pair.first, pair.second) for pair in near(seen).pairs] == [(0, 3)]


@pytest.mark.parametrize("count", [1, 2])
def test_a_set_of_hardly_any_image_is_searched_too(texture: Texture, count: int) -> None:
    assert near(looked_at([texture(seed) for seed in range(count)])).pairs == ()


def test_images_of_few_pixels_are_not_compared(texture: Texture) -> None:
    images = np.stack([np.asarray(texture(0).resize((15, 15)))] * 2)
    images[1] = images[1] // 8 * 8
    seen = survey(Dataset(("x", "y"), {"train": Split(images, [0, 1])}), Path())
    assert near(seen).compared == 0


def test_a_set_whose_images_are_all_alike_is_called_crowded(texture: Texture) -> None:
    scene = [ImageEnhance.Brightness(texture(0)).enhance(0.9 + number / 500) for number in range(110)]
    assert near(looked_at(scene)).crowded
    assert not near(looked_at([*scene[:20], *(texture(seed) for seed in range(1, 31))])).crowded
