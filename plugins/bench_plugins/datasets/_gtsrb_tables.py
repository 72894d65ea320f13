"""The tables of the German traffic sign benchmark: size, region of interest and class of each image."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench_plugins.datasets._problems import Problems

__all__ = ["HEADER", "NUM_CLASSES", "REMEDIES", "Sign", "boxes_of", "compare", "read_signs"]

NUM_CLASSES = 43
HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"

NO_FOLDER = "class folders that are missing or empty"
STRANGE_FOLDER = "folders that are no class, 00000 to 00042"
BAD_NAME = "training images that are not called TRACK_FRAME.ppm"
NO_TABLE = "class folders without the table of their regions of interest"
BAD_LINE = "lines that cannot be read"
TWICE = "images that a table lists twice"
BAD_LABEL = "labels outside 0..42, or other than their folder"
NOT_THERE = "listed images that do not exist"
NOT_LISTED = "images that no table lists"
RESIZED = "images of another size than their table says"
OUTSIDE = "regions of interest that do not lie inside their image"

_COPY = "unpack the official archives once more"
REMEDIES = {
    NO_FOLDER: _COPY,
    STRANGE_FOLDER: "remove the folders that do not belong to it",
    BAD_NAME: "name them as in the official archives: the track says which images show one sign",
    NO_TABLE: "leave out roi = true, or add GT-00000.csv and so on from the official archive to the class folders",
    BAD_LINE: f"{_COPY}; a table starts with the line {HEADER}",
    TWICE: "remove one of the lines",
    BAD_LABEL: "repair the labels",
    NOT_THERE: f"{_COPY}, or remove their lines",
    NOT_LISTED: "add their lines to the table, or remove them",
    RESIZED: "the images were resized, so their regions of interest do not fit any more: leave out roi = true",
    OUTSIDE: "repair the regions of interest, or leave out roi = true",
}


class Sign(NamedTuple):
    """One line of a table; `box` is left, top, right, bottom in pixels, `size` width and height."""

    label: int
    size: tuple[int, int]
    box: tuple[int, int, int, int]
    place: str


def read_signs(file: Path, problems: Problems, *, label: int | None = None) -> dict[str, Sign]:
    """File name -> its line of a table, in the table's order. Faults are noted; `label` is the only one allowed."""
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    if not lines or lines[0].strip() != HEADER:
        problems.add(BAD_LINE, f"{file}, line 1: {lines[0][:80] if lines else ''!r}")
        return {}
    signs: dict[str, Sign] = {}
    for number, line in enumerate(lines[1:], start=2):
        place = f"{file}, line {number}"
        match = re.fullmatch(r"([^;]+)((?:;-?\d+){7})", line.strip(), flags=re.ASCII)
        if match is None:
            if line.strip():
                problems.add(BAD_LINE, f"{place}: {line[:80]!r}")
            continue
        width, height, left, top, right, bottom, class_id = map(int, match[2][1:].split(";"))
        if match[1] in signs:
            problems.add(TWICE, f"{place}: {match[1]} stands in {signs[match[1]].place}, too")
        if not 0 <= class_id < NUM_CLASSES or class_id != (class_id if label is None else label):
            problems.add(BAD_LABEL, f"{place}: {match[1]} has the label {class_id}")
        signs[match[1]] = Sign(class_id, (width, height), (left, top, right, bottom), place)
    return signs


def compare(folder: Path, files: Sequence[str], signs: dict[str, Sign], problems: Problems) -> None:
    """Note the files that a table lists and that are not there, and those that are there and not listed."""
    present = set(files)
    for name, sign in signs.items():
        if name not in present:
            problems.add(NOT_THERE, f"{sign.place}: {folder / name}")
    for name in files:
        if name not in signs:
            problems.add(NOT_LISTED, f"{folder / name}")


def boxes_of(folder: Path, files: Sequence[str], signs: dict[str, Sign], problems: Problems) -> NDArray[np.int64]:
    """The regions of interest of some files, N,4, compared with the sizes of the images. Only headers are read."""
    boxes = np.zeros((len(files), 4), dtype=np.int64)
    for position, name in enumerate(files):
        if name not in signs:  # noted by `compare`
            continue
        sign = signs[name]
        boxes[position] = left, top, right, bottom = sign.box
        size = _size(folder / name) or sign.size
        if size != sign.size:
            told = f"{size[0]} x {size[1]} pixels, and {sign.size[0]} x {sign.size[1]} in {sign.place}"
            problems.add(RESIZED, f"{folder / name}: {told}")
        elif not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
            told = f"{left}, {top} to {right}, {bottom} in {size[0]} x {size[1]} pixels"
            problems.add(OUTSIDE, f"{sign.place}: {told}")
    return boxes


def _size(file: Path) -> tuple[int, int] | None:
    """Width and height; None for a damaged image, which the core reports (or leaves out, where it is told to)."""
    try:
        with Image.open(file) as image:
            return image.size
    except (OSError, ValueError, SyntaxError):
        return None
