"""The metadata of an ONNX file, read and replaced without loading the model: the top level of its protobuf is walked.

The `onnx` package would do, but it takes 0.2 s to import and reads the whole file; a predictor needs the metadata before
it opens a session. Source: onnx.proto3 (ModelProto.metadata_props, StringStringEntryProto), the protobuf wire format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from mmap import mmap
from pathlib import Path
from typing import BinaryIO

from bench.errors import BenchError
from bench.files import atomic

__all__ = ["read_properties", "varint", "write_properties"]

_METADATA_PROPS = 14
_PORTION = 2**20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_properties(path: Path) -> dict[str, str]:
    """Key -> value of every entry. Raises BenchError where the file is truncated or no ONNX model."""
    found: dict[str, str] = {}
    with path.open("rb") as file:
        for number, start, end in _fields(file, path):
            if number == _METADATA_PROPS:
                file.seek(start)
                key, value = _entry(file.read(end - start), path)
                found[key] = value
    return found


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Replace all entries; every other byte of the file stays. Written whole or not at all."""
    with path.open("rb") as file, atomic(path) as partial, partial.open("wb") as copy:
        kept_from = 0
        for number, start, end in _fields(file, path):
            if number == _METADATA_PROPS:
                head = start - _header_length(end - start)
                _copy(file, copy, kept_from, head)
                kept_from = end
        _copy(file, copy, kept_from, os.fstat(file.fileno()).st_size)
        for key, value in properties.items():
            entry = b"".join(_field(number, text.encode()) for number, text in ((1, key), (2, value)))
            copy.write(_field(_METADATA_PROPS, entry))


def _fields(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end of its content) of every field at the top."""
    size = os.fstat(file.fileno()).st_size
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(20)
        try:
            tag, after = varint(head, 0)
            number, wire = tag >> 3, tag & 7
            length, content = varint(head, after) if wire in {_VARINT, _BYTES} else (0, after)
        except IndexError:
            raise _damaged(path) from None
        start = position + content
        end = start + {_VARINT: 0, _BYTES: length, _FIXED64: 8, _FIXED32: 4}.get(wire, size)
        if not number or end > size:
            raise _damaged(path)
        yield number, start, end
        position = end


def _entry(content: bytes, path: Path) -> tuple[str, str]:
    """The key and the value of one entry."""
    texts = {1: "", 2: ""}
    position = 0
    try:
        while position < len(content):
            tag, position = varint(content, position)
            length, position = varint(content, position)
            texts[tag >> 3] = content[position : position + length].decode()
            position += length
    except (IndexError, UnicodeDecodeError):
        raise _damaged(path) from None
    return texts[1], texts[2]


def varint(content: bytes | mmap, position: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and the position after it. Raises IndexError where it does not end within 64 bits."""
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  # the last one
            return value, position
        shift += 7
        if shift > 63:  # noqa: PLR2004  # longer than 64 bits
            raise IndexError


def _as_varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:  # noqa: PLR2004
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _field(number: int, content: bytes) -> bytes:
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(content)) + content


def _header_length(length: int) -> int:
    """Bytes of a metadata entry's tag and length, as protobuf writes them."""
    return len(_as_varint(_METADATA_PROPS << 3 | _BYTES)) + len(_as_varint(length))


def _copy(source: BinaryIO, target: BinaryIO, start: int, end: int) -> None:
    source.seek(start)
    remaining = end - start
    while remaining:
        portion = source.read(min(remaining, _PORTION))
        target.write(portion)
        remaining -= len(portion)


def _damaged(path: Path) -> BenchError:
    return BenchError(f"{path}: truncated, or no ONNX model", hint="export it again, or copy it again")
