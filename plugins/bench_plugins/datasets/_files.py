"""What the datasets made of image files share: which files count, fast listing, example images."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from bench.errors import DataError

__all__ = ["EXTENSIONS", "folders_in", "image_files", "write_examples"]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones. Raises DataError where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    except OSError as cause:
        message = f"the dataset folder {folder} cannot be read: {cause.strerror}"
        hint = "set dataset.root to the folder that holds the images: --set dataset.root=DIR"
        raise DataError(message, hint=hint) from cause


def image_files(folder: Path, *, extensions: tuple[str, ...] = EXTENSIONS) -> list[str]:
    """The images in a folder and the folders below it: paths relative to it, with slashes, sorted.

    Hidden files and folders and other kinds of files are passed over.
    """
    return sorted(_walk(os.fspath(folder), "", tuple(extension.lower() for extension in extensions)))


def write_examples(folder: Path, *, count: int, brightness: int, extension: str = ".png") -> list[Path]:
    """Write `count` noisy 16 x 16 images around a brightness into a folder. The same call writes the same images."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(brightness)
    paths = [folder / f"{number:02d}{extension}" for number in range(count)]
    for path in paths:
        noise = generator.integers(-20, 21, size=(16, 16, 3))
        Image.fromarray((brightness + noise).astype(np.uint8)).save(path)
    return paths


def _walk(folder: str, prefix: str, extensions: tuple[str, ...]) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name[0] == ".":
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", extensions)
            elif entry.name.lower().endswith(extensions):
                yield prefix + entry.name
