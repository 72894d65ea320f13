"""Textured images, recipes for them, and sets with planted faults."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from bench.recipe import Recipe, parse

Texture = Callable[[int], Image.Image]


@dataclass
class Planted:
    """Faults in a set, by file name: pairs are (original, copy)."""

    unreadable: set[str] = field(default_factory=set)
    exact: set[frozenset[str]] = field(default_factory=set)
    near: set[frozenset[str]] = field(default_factory=set)
    exact_leaks: set[frozenset[str]] = field(default_factory=set)
    near_leaks: set[frozenset[str]] = field(default_factory=set)


@pytest.fixture
def texture() -> Texture:
    """Random pictures of patches, edges and grain, 96 x 80 pixels, one a seed."""

    def draw(seed: int) -> Image.Image:
        random = np.random.default_rng(seed)
        layers = np.zeros((80, 96, 3))
        for cells, weight in ((3, 90), (7, 60), (16, 40), (40, 12)):
            small = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            filter_ = Image.Resampling.BICUBIC if cells > 3 else Image.Resampling.NEAREST
            layers += np.asarray(small.resize((96, 80), filter_)) / 255.0 * weight
        return Image.fromarray((layers * 0.9 + 10).astype(np.uint8))

    return draw


@pytest.fixture
def folder_recipe() -> Callable[..., Recipe]:
    """A recipe for a folder of images; further lines go into its [dataset] table."""

    def make(root: Path, *lines: str, size: int = 32, rest: str = "") -> Recipe:
        table = "\n".join(lines)
        text = f'experiment = "toy"\n[dataset]\nname = "image_folder"\nroot = "{root.as_posix()}"\n{table}\n'
        text += f'[data]\nsize = {size}\nvalidation = 0.0\ntest = 0.0\n[model]\nname = "linear"\n{rest}'
        return parse(text, path=Path("toy.toml"))

    return make


@pytest.fixture
def plant() -> Callable[[Path, str, str], Planted]:
    """Plant 3 unreadable files, 5 exact and 5 near duplicates, 2 exact and 2 near leaks into a folder of images."""

    def into(root: Path, train: str, test: str) -> Planted:
        classes = sorted(path.name for path in (root / train).iterdir())
        files = {name: sorted((root / train / name).iterdir()) for name in classes}
        planted = Planted()
        last = root / train / classes[-1]
        broken = files[classes[0]][0].read_bytes()
        contents = {"empty.jpg": b"", "cut.jpg": broken[: len(broken) // 2], "page.jpg": b"<html>not found</html>"}
        for name, content in contents.items():
            (last / name).write_bytes(content)
            planted.unreadable.add(f"{train}/{classes[-1]}/{name}")
        of_class = files[classes[-1]]
        for number, source in enumerate(of_class[5:10]):
            shutil.copy(source, last / f"exact_{number}.jpg")
            planted.exact.add(_names(root, source, last / f"exact_{number}.jpg"))
        for number, (source, change) in enumerate(zip(of_class[10:15], CHANGES, strict=True)):
            change(source, last / f"near_{number}.jpg")
            planted.near.add(_names(root, source, last / f"near_{number}.jpg"))
        into_test = root / test / classes[0]
        for number, source in enumerate(files[classes[0]][15:17]):
            shutil.copy(source, into_test / f"leak_{number}.jpg")
            planted.exact_leaks.add(_names(root, source, into_test / f"leak_{number}.jpg"))
        for number, (source, change) in enumerate(zip(files[classes[0]][17:19], CHANGES, strict=False)):
            change(source, into_test / f"near_leak_{number}.jpg")
            planted.near_leaks.add(_names(root, source, into_test / f"near_leak_{number}.jpg"))
        return planted

    return into


def _names(root: Path, *paths: Path) -> frozenset[str]:
    return frozenset(path.relative_to(root).as_posix() for path in paths)


def _reencode(source: Path, target: Path) -> None:
    Image.open(source).convert("RGB").save(target, quality=60)


def _shrink(source: Path, target: Path) -> None:
    image = Image.open(source).convert("RGB")
    image.resize((round(image.width * 0.8), round(image.height * 0.8))).save(target, quality=90)


def _brighten(source: Path, target: Path) -> None:
    ImageEnhance.Brightness(Image.open(source).convert("RGB")).enhance(1.1).save(target, quality=90)


def _crop(source: Path, target: Path) -> None:
    image = Image.open(source).convert("RGB")
    across, down = round(image.width * 0.03), round(image.height * 0.03)
    image.crop((across, down, image.width - across, image.height - down)).save(target, quality=90)


def _mirror(source: Path, target: Path) -> None:
    Image.open(source).convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target, quality=90)


CHANGES = (_reencode, _shrink, _brighten, _crop, _mirror)
