"""A set of images as one uint8 array: decoded once, in parallel, into a memory-mapped file that later runs open at once.

The file is named by the content's sha256 and the decode options. A small index, keyed by the paths, sizes and times of
the files, spares later runs the reading.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from PIL import Image

from bench.errors import BenchError, DataError
from bench.files import atomic, write_json
from bench.images import BadImage, Decoding, decode, fit, no_size_warnings
from bench.parallel import Report, in_parallel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CachedImages", "cache_folder", "load_images"]

#: Raise it when the decoding changes, so that no stale array is used.
_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class CachedImages:
    """Decoded images: `array` is uint8 N,H,W,C, one row for every image given, bad ones black.

    `content` is the sha256 over the images' own bytes, `bad` maps the positions of those that could not be decoded to
    the reason.
    """

    array: NDArray[np.uint8]
    content: str
    bad: dict[int, str]


def cache_folder() -> Path:
    """Where decoded images and features are kept: BENCH_CACHE, or the system's cache folder for visionbench."""
    if os.environ.get("BENCH_CACHE"):
        return Path(os.environ["BENCH_CACHE"])
    import platformdirs

    return Path(platformdirs.user_cache_dir("visionbench"))


def load_images(
    images: NDArray[np.uint8] | Sequence[Path],
    how: Decoding,
    *,
    boxes: NDArray[np.integer] | None = None,
    report: Report | None = None,
) -> CachedImages:
    """Images as one array of the asked size, files cut to their boxes (N,4) before.

    Raises DataError where a file is missing or the disk is full.
    """
    if isinstance(images, np.ndarray):
        return _from_array(images, how, report)
    folder = cache_folder() / "images"
    cuts = None if boxes is None else np.ascontiguousarray(boxes, dtype=np.int64)
    index = folder / f"{_stat_key(images, how, cuts)}.json"
    entry = _read_index(index, folder)
    if entry is None:
        entry = _decode_all(images, how, cuts, folder, report)
        write_json(index, entry)
    bad = {int(position): reason for position, reason in entry["bad"].items()}
    return CachedImages(np.load(folder / entry["file"], mmap_mode="r"), entry["content"], bad)


def _from_array(images: NDArray[np.uint8], how: Decoding, report: Report | None) -> CachedImages:
    """An array that a dataset hands over; resized through the same cache where its size or channels differ."""
    if images.dtype != np.uint8 or images.ndim not in {3, 4} or (images.ndim == 4 and images.shape[3] not in {1, 3}):  # noqa: PLR2004
        raise DataError(
            f"a dataset's images must be uint8 N,H,W or N,H,W,C with 1 or 3 channels, not {images.dtype} {images.shape}"
        )
    array = images[..., None] if images.ndim == 3 else images  # noqa: PLR2004
    content = hashlib.sha256(str(array.shape).encode())
    for start in range(0, len(array), 1024):
        content.update(np.ascontiguousarray(array[start : start + 1024]).data)
    if array.shape[1:] == (*how.size, how.channels):
        return CachedImages(array, content.hexdigest(), {})
    folder = cache_folder() / "images"
    name = _file_name(content.hexdigest(), how)
    if not (folder / name).is_file():
        channels = "L" if how.channels == 1 else "RGB"

        def one(position: int) -> NDArray[np.uint8]:
            pixels = array[position]
            image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
            return fit(image.convert(channels), how)

        with _new_array(folder / name, (len(array), *how.size, how.channels)) as rows:
            for position, pixels in enumerate(in_parallel(one, len(array), report)):
                rows[position] = pixels
    return CachedImages(np.load(folder / name, mmap_mode="r"), content.hexdigest(), {})


def _decode_all(
    paths: Sequence[Path], how: Decoding, boxes: NDArray[np.int64] | None, folder: Path, report: Report | None
) -> dict[str, Any]:
    """Read, hash and decode every file into the array's file; what is bad is listed, not raised."""
    content = hashlib.sha256(b"" if boxes is None else boxes.tobytes())
    bad: dict[str, str] = {}
    cuts: Sequence[Any] = [None] * len(paths) if boxes is None else boxes.tolist()

    def one(position: int) -> tuple[bytes, NDArray[np.uint8] | str]:
        try:
            data = paths[position].read_bytes()
        except OSError as cause:
            raise DataError(f"{paths[position]}: cannot be read: {cause.strerror}") from cause
        try:
            pixels: NDArray[np.uint8] | str = decode(data, how, box=cuts[position])
        except BadImage as reason:
            pixels = str(reason)
        return hashlib.sha256(data).digest(), pixels

    _remove_leftovers(folder)
    unnamed = folder / f"decoding-{os.getpid()}"
    with _new_array(unnamed, (len(paths), *how.size, how.channels)) as rows, no_size_warnings():
        for position, (digest, pixels) in enumerate(in_parallel(one, len(paths), report)):
            content.update(digest)
            if isinstance(pixels, str):
                bad[str(position)] = pixels
            else:
                rows[position] = pixels
    name = _file_name(content.hexdigest(), how)
    unnamed.replace(folder / name)
    return {"file": name, "content": content.hexdigest(), "bad": bad}


def _remove_leftovers(folder: Path) -> None:
    """Delete arrays that a killed process left half done; each file names its process."""
    for partial in folder.glob(".decoding-*.partial"):
        if not psutil.pid_exists(int(partial.name.split("-")[1].split(".")[0])):
            partial.unlink(missing_ok=True)


@contextmanager
def _new_array(path: Path, shape: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
    """The rows of a new uint8 .npy file, memory-mapped for writing; it gets its name only when it is complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise BenchError(
            f"{path.parent}: cannot be made: {cause.strerror}", hint="name another folder with BENCH_CACHE"
        ) from cause
    with atomic(path) as partial:
        try:
            rows = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            # A memory map beyond a full disk ends the process; reserving the space raises an error instead.
            with partial.open("r+b") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
        except OSError as cause:
            raise BenchError(
                f"{path.parent}: no room for {np.prod(shape) / 1e9:.1f} GB of decoded images ({cause.strerror})",
                hint="free some space, or name another folder with BENCH_CACHE",
            ) from cause
        yield rows
        rows.flush()


def _stat_key(paths: Sequence[Path], how: Decoding, boxes: NDArray[np.int64] | None) -> str:
    """A key for what the file system says of these files."""
    key = hashlib.sha256(f"{_VERSION} {asdict(how)}".encode())
    key.update(b"" if boxes is None else boxes.tobytes())
    for path in paths:
        try:
            stat = path.stat()
        except OSError as cause:
            raise DataError(f"{path}: {cause.strerror}", hint="the dataset lists an image that is not there") from cause
        key.update(f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())  # noqa: PTH100  # 20 times faster
    return key.hexdigest()


def _file_name(content: str, how: Decoding) -> str:
    options = hashlib.sha256(f"{_VERSION} {asdict(how)}".encode()).hexdigest()[:16]
    height, width = how.size
    return f"{content[:32]}-{height}x{width}x{how.channels}-{options}.npy"


def _read_index(index: Path, folder: Path) -> dict[str, Any] | None:
    try:
        entry: dict[str, Any] = json.loads(index.read_text())
        return entry if (folder / entry["file"]).is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
