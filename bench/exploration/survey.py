"""One look at every image of a dataset: size, format, hashes, brightness, and a small grey copy. Needs no torch."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bench.images import BadImage, Decoding, decode, no_size_warnings
from bench.kinds import SPLITS, Dataset
from bench.parallel import Report, in_parallel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["THUMB", "Look", "Survey", "pixels_of", "survey"]

#: Side of the small grey copies, in pixels.
THUMB = 32

_MAX_MEGAPIXELS = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one image is; `reason` says why it could not be read (the rest is then empty).

    `width` and `height` are the file's, upright; `cut` (width, height) what the box leaves of them; `mean` and `square` are the channels' means of values and of squared
    values in 0..1, over the box where there is one; `spread` is the standard deviation of the grey values.
    """

    reason: str = ""
    width: int = 0
    height: int = 0
    cut: tuple[int, int] = (0, 0)
    format: str = ""
    mode: str = ""
    file_hash: str = ""
    pixel_hash: str = ""
    mean: tuple[float, ...] = ()
    square: tuple[float, ...] = ()
    spread: float = 0.0
    thumb: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """Every image of a dataset, the splits one after another.

    For N images: `splits` and `positions` say where each stands in `dataset.splits`; `parts` is what it is used for:
    the split, with its fold where there is one; `labels` is -1 where a label belongs to a pair; `groups` numbers the
    groups of all splits (-1: none). `names` are ids, or paths below the root.
    """

    dataset: Dataset
    root: Path
    looks: tuple[Look, ...]
    names: tuple[str, ...]
    splits: tuple[str, ...]
    parts: tuple[str, ...]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.looks)

    @property
    def readable(self) -> NDArray[np.int64]:
        """The images that could be decoded."""
        return np.array([index for index, look in enumerate(self.looks) if not look.reason], dtype=np.int64)

    def label(self, index: int) -> str:
        """The class of an image; for verification its group, "" where there is none."""
        if self.labels[index] >= 0:
            return self.dataset.classes[int(self.labels[index])]
        groups = self.dataset.splits[self.splits[index]].groups
        return "" if groups is None else str(groups[int(self.positions[index])])


def survey(
    dataset: Dataset, root: Path, *, max_megapixels: float = _MAX_MEGAPIXELS, report: Report | None = None
) -> Survey:
    """Decode every image once, in its own size. Nothing is raised for an image that cannot be read: it is noted."""
    from bench.stages.image_set import image_ids

    splits: list[str] = []
    positions: list[int] = []
    labels: list[int] = []
    groups: list[str] = []
    names: list[str] = []
    parts: list[str] = []
    for name in (known for known in SPLITS if known in dataset.splits):
        split = dataset.splits[name]
        count = len(split.images)
        splits += [name] * count
        positions += list(range(count))
        pairs = split.pairs is not None
        labels += [-1] * count if pairs else np.asarray(split.labels).tolist()
        groups += [""] * count if split.groups is None else [f"{name}/{group}" for group in split.groups]
        names += image_ids(name, split, root)
        parts += _parts(dataset, name)
    numbers = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    numbers[np.array(groups, dtype=object) == ""] = -1

    def one(index: int) -> Look:
        return look(*_source(dataset, splits[index], positions[index]), max_megapixels=max_megapixels)

    with no_size_warnings():
        looks = tuple(in_parallel(one, len(splits), report))
    return Survey(
        dataset=dataset,
        root=root,
        looks=looks,
        names=tuple(names),
        splits=tuple(splits),
        parts=tuple(parts),
        positions=np.array(positions, dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
        groups=numbers,
    )


def look(
    source: Path | NDArray[np.uint8], box: Sequence[int] | None, *, max_megapixels: float = _MAX_MEGAPIXELS
) -> Look:
    """Look at one image: a file, or uint8 H,W or H,W,C."""
    try:
        file_hash, size, format_, mode, pixels = _read(source, box, max_megapixels)
    except BadImage as reason:
        return Look(reason=str(reason))
    grey = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("L")
    counts = [np.bincount(pixels[..., channel].ravel(), minlength=256) for channel in range(pixels.shape[2])]
    values, total = np.arange(256) / 255, pixels.shape[0] * pixels.shape[1]
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return Look(
        width=size[0],
        height=size[1],
        cut=(pixels.shape[1], pixels.shape[0]),
        format=format_,
        mode=mode,
        file_hash=file_hash,
        pixel_hash=digest.hexdigest(),
        mean=tuple(float(count @ values / total) for count in counts),
        square=tuple(float(count @ values**2 / total) for count in counts),
        spread=float(np.asarray(grey).std()),
        thumb=np.asarray(grey.resize((THUMB, THUMB), Image.Resampling.BILINEAR)),
    )


def pixels_of(survey: Survey, index: int) -> NDArray[np.uint8]:
    """An image in its own size, cut to its box: uint8 H,W,C. Raises BadImage."""
    source, box = _source(survey.dataset, survey.splits[index], int(survey.positions[index]))
    with no_size_warnings():
        return _read(source, box, _MAX_MEGAPIXELS)[4]


def _read(
    source: Path | NDArray[np.uint8], box: Sequence[int] | None, max_megapixels: float
) -> tuple[str, tuple[int, int], str, str, NDArray[np.uint8]]:
    """File hash, (width, height), format, mode and pixels."""
    if isinstance(source, np.ndarray):
        pixels = source[..., None] if source.ndim == 2 else source  # noqa: PLR2004  # H,W
        return "", (pixels.shape[1], pixels.shape[0]), "array", "L" if pixels.shape[2] == 1 else "RGB", pixels
    try:
        data = source.read_bytes()
    except OSError as cause:
        raise BadImage(f"cannot be read: {cause.strerror}") from cause
    try:
        with Image.open(io.BytesIO(data)) as image:
            format_, mode, stored = image.format or "", image.mode, image.size
            turned = image.getexif().get(0x0112, 1) in {5, 6, 7, 8}  # EXIF orientations that swap the sides
    except Exception:  # noqa: BLE001  # decode finds the reason
        decode(data, Decoding((THUMB, THUMB), max_megapixels=max_megapixels))
        raise BadImage("damaged: its header cannot be read") from None
    width, height = stored[::-1] if turned else stored
    left, top, right, bottom = (0, 0, width, height) if box is None else map(int, box)
    how = Decoding((bottom - top, right - left), 3, max_megapixels=max_megapixels)  # its own size: nothing is resized
    pixels = decode(data, how, box=None if box is None else (left, top, right, bottom))
    return hashlib.sha256(data).hexdigest(), (width, height), format_, mode, pixels


def _source(dataset: Dataset, name: str, position: int) -> tuple[Any, Sequence[int] | None]:
    split = dataset.splits[name]
    return split.images[position], None if split.boxes is None else split.boxes[position]


def _parts(dataset: Dataset, name: str) -> list[str]:
    """The split of each image, with its fold; an image of pairs has the fold of the last pair that shows it."""
    split = dataset.splits[name]
    if split.folds is None:
        return [name] * len(split.images)
    folds = np.asarray(split.folds)
    if split.pairs is not None:
        of_pair, folds = folds, np.full(len(split.images), -1)
        folds[np.asarray(split.pairs)] = of_pair[:, None]
    return [f"{name} fold {fold}" if fold >= 0 else name for fold in folds.tolist()]
