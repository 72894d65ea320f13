"""Offline augmentation: the images as they are, and copies of them that each were drawn once."""

from __future__ import annotations

from typing import Any

import numpy as np
import psutil
import pytest
import torch

from bench.errors import RecipeError
from bench.stages.copies import multiply
from bench.stages.image_set import ImageSet
from bench_plugins.augmentations.cutmix import cutmix
from bench_plugins.augmentations.horizontal_flip import horizontal_flip
from bench_plugins.augmentations.mixup import mixup

_SHAPE = (5, 6, 3)


def noise(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return images + torch.randn(images.shape, generator=generator) / 10, targets


def images_of(count: int = 300) -> ImageSet:
    """More than a portion, in an order of their own, out of a larger array."""
    random = np.random.default_rng(0)
    array = random.integers(0, 256, (count + 20, *_SHAPE), dtype=np.uint8)
    rows = random.permutation(count + 20)[:count]
    return ImageSet(array, rows, rows % 3, tuple(map(str, rows)))


def pairs_of() -> ImageSet:
    """Images 3 to 8 of ten, some of them in several pairs."""
    array = np.random.default_rng(0).integers(0, 256, (10, *_SHAPE), dtype=np.uint8)
    rows = np.array([[3, 8], [8, 5], [4, 3], [6, 7]])
    return ImageSet(array, rows, np.array([1, 0, 0, 1]), ("a", "b", "c", "d"))


def multiplied(images: ImageSet, *augment: Any, copies: int = 3, seed: int = 0) -> ImageSet:
    return multiply(images, augment or (noise,), copies, seed=seed)


def test_the_first_part_is_the_original_bit_for_bit_and_copies_differ() -> None:
    given = images_of()
    made = multiplied(given)
    parts = [made.images[made.rows[copy * 300 : (copy + 1) * 300]] for copy in range(3)]
    assert np.array_equal(parts[0], given.images[given.rows])
    original = given.images[given.rows].astype(int)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (parts[first] != parts[second]).any((1, 2, 3)).all()  # every single image
    for copy in (1, 2):
        assert 0 < np.abs(parts[copy] - original).mean() < 40  # of the same image, with noise
    assert np.array_equal(made.labels, np.tile(given.labels, 3))
    assert made.ids[:2] + made.ids[300:302] == (*given.ids[:2], f"{given.ids[0]}#1", f"{given.ids[1]}#1")
    assert len(set(made.ids)) == len(made) == 900


def test_the_original_is_left_alone() -> None:
    given = images_of()
    before = given.images.copy()
    multiplied(given)
    assert np.array_equal(given.images, before)


def test_the_seed_decides_and_the_global_generator_does_not() -> None:
    given = images_of(20)
    torch.manual_seed(1)
    first = multiplied(given, seed=5)
    torch.manual_seed(2)
    assert np.array_equal(first.images, multiplied(given, seed=5).images)
    assert not np.array_equal(first.images, multiplied(given, seed=6).images)


def test_values_are_rounded_and_kept_in_range() -> None:
    def brighter(images: torch.Tensor, targets: torch.Tensor, _: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return images + 0.6 / 255, targets

    def far(images: torch.Tensor, targets: torch.Tensor, _: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return images * 4 - 1.5, targets

    given = images_of(8)
    plain = given.images[given.rows].astype(int)
    made = multiplied(given, brighter, copies=2)
    assert np.array_equal(made.images[8:], np.minimum(plain + 1, 255))
    made = multiplied(given, far, copies=2)
    assert np.abs(made.images[8:] - np.clip(plain * 4.0 - 1.5 * 255, 0, 255)).max() <= 0.51
    assert made.images[8:].min() == 0
    assert made.images[8:].max() == 255


def test_of_pairs_each_image_is_augmented_once_a_copy() -> None:
    given = pairs_of()
    made = multiplied(given)
    assert made.rows.shape == (12, 2)
    assert len(made.images) == 18  # six distinct images, three times
    assert np.array_equal(made.images[made.rows[:4]], given.images[given.rows])
    for copy in range(3):
        rows = made.rows[copy * 4 : copy * 4 + 4]
        assert rows[0, 0] == rows[2, 1]  # image 3 is one image in both of its pairs
        assert rows[0, 1] == rows[1, 0]
        assert set(rows.ravel().tolist()) == set(range(copy * 6, copy * 6 + 6))
    assert np.array_equal(made.labels, np.tile(given.labels, 3))
    assert made.ids == (*"abcd", *(f"{name}#{copy}" for copy in (1, 2) for name in "abcd"))


def test_a_real_augmentation_fits() -> None:
    given = images_of(10)
    made = multiplied(given, horizontal_flip(p=1.0), copies=2)
    assert np.array_equal(made.images[10:], made.images[:10, :, ::-1])


@pytest.mark.parametrize("of", [images_of, pairs_of])
@pytest.mark.parametrize("mixing", [mixup(alpha=1.0), cutmix(p=1.0)])
def test_mixed_images_cannot_be_made_once_and_for_all(of: Any, mixing: Any) -> None:
    with pytest.raises(RecipeError, match=r"data.copies: an augmentation that mixes images and their targets"):
        multiplied(of(), noise, mixing)


def test_copies_need_an_augmentation() -> None:
    with pytest.raises(RecipeError, match=r"data.copies: copies without an \[\[augment\]\]"):
        multiply(images_of(4), (), 2, seed=0)


def test_copies_that_do_not_fit_are_refused_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 3 * 300 * 5 * 6 * 3
    for free, fits in ((2 * needed, True), (2 * needed - 2, False)):
        memory = psutil.virtual_memory()._replace(available=free)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        if fits:
            assert len(multiplied(images_of())) == 900
            continue
        with pytest.raises(
            RecipeError, match=r"data.copies: 3 copies of 300 images need 0.0 GB, more than half"
        ) as error:
            multiplied(images_of())
        assert "data.copies=1" in (error.value.hint or "")
