"""Bytes and arrays as short text, for a file's metadata: zlib, then base64."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["pack", "pack_array", "unpack", "unpack_array"]

#: No metadata of ours are larger when unpacked; a damaged or hostile file may claim anything.
_LARGEST = 64_000_000


def pack(content: bytes) -> str:
    """Bytes -> text."""
    return base64.b64encode(zlib.compress(content, 9)).decode()


def unpack(text: str) -> bytes:
    """The bytes again. Raises ValueError or zlib.error for what is no such text, or is too large."""
    inflating = zlib.decompressobj()
    content = inflating.decompress(base64.b64decode(text, validate=True), _LARGEST)
    if not inflating.eof:
        raise ValueError("it is cut off or too large")
    return content


def pack_array(array: NDArray[np.float32]) -> str:
    """An array of float32 -> text."""
    return pack(np.ascontiguousarray(array, dtype="<f4").tobytes())


def unpack_array(text: str, columns: int) -> NDArray[np.float32]:
    """The array again, rows of so many columns. Raises ValueError or zlib.error as `unpack`."""
    return np.frombuffer(unpack(text), dtype="<f4").reshape(-1, columns).astype(np.float32)
