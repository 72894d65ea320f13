"""Weights that lie beside an ONNX file: which files it names, and that none of them is outside its folder.

Newer versions of onnxruntime refuse such paths themselves; older ones follow `..` and links wherever they lead. The
protobuf is walked here, as the `onnx` package takes 0.2 s to import and loads everything. Source: onnx.proto3.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from bench.errors import BenchError
from bench_export.metadata import varint

__all__ = ["Field", "check_external_data", "external_files", "walk"]

#: Message -> the fields that may hold a tensor somewhere below, with the message of each.
_BELOW: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 200

#: A field's number, and its number or the (start, end) of its content.
Field: TypeAlias = tuple[int, int | tuple[int, int]]


def check_external_data(path: Path) -> None:
    """Raise BenchError where a file's weights lie outside its folder, links followed, or are not there."""
    homes = {path.parent.resolve(), path.resolve().parent}  # a linked model's weights may be linked the same way
    for name in external_files(path):
        place = path.parent / name
        real = place.resolve()
        if Path(name).is_absolute() or not any(real.is_relative_to(home) for home in homes):
            raise BenchError(
                f"{path}: it would read its weights from {name}, which is outside its folder",
                hint="do not use a model from a source that you do not trust; weights lie beside the model",
            )
        if not real.is_file():
            raise BenchError(
                f"{path}: its weights lie in {name}, which is not there",
                hint=f"copy {name} into {path.parent} too, or export the model again",
            )


def external_files(path: Path) -> tuple[str, ...]:
    """The distinct names of files with weights, as the model gives them. Raises BenchError for a damaged file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"location") < 0:  # nearly every model; found at the speed of memory
            return ()
        try:
            return tuple(dict.fromkeys(_locations(content, "model", 0, len(content), 0)))
        except (IndexError, ValueError) as cause:
            raise BenchError(
                f"{path}: truncated, or no ONNX model", hint="export it again, or copy it again"
            ) from cause


def _locations(content: mmap.mmap, kind: str, start: int, end: int, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("graphs within graphs without end")
    if kind == "tensor":
        yield from _locations_of_tensor(content, start, end)
        return
    below = _BELOW[kind]
    for number, value in walk(content, start, end):
        if number in below and isinstance(value, tuple):
            yield from _locations(content, below[number], *value, depth + 1)


def _locations_of_tensor(content: mmap.mmap, start: int, end: int) -> Iterator[str]:
    fields = list(walk(content, start, end))
    kinds = [value for number, value in fields if number == _DATA_LOCATION and isinstance(value, int)]
    if _EXTERNAL not in {kind & 0xFFFFFFFF for kind in kinds}:  # protobuf drops what is beyond 32 bits
        return
    for number, value in fields:
        if number == _EXTERNAL_DATA and isinstance(value, tuple):
            texts = {key: content[slice(*part)] for key, part in walk(content, *value) if isinstance(part, tuple)}
            if texts.get(_KEY) == b"location":
                yield texts.get(_VALUE, b"").decode()


def walk(content: mmap.mmap, start: int, end: int) -> Iterator[Field]:
    """The fields of one message. Raises IndexError and ValueError where it is damaged."""
    position = start
    while position < end:
        tag, position = varint(content, position)
        wire = tag & 7
        value: int | tuple[int, int]
        if wire == _VARINT:
            value, position = varint(content, position)
        else:
            length, position = varint(content, position) if wire == _BYTES else (_FIXED[wire], position)
            value, position = (position, position + length), position + length
        if position > end:
            raise ValueError("a field ends after its message")
        yield tag >> 3, value


_FIXED = {_FIXED64: 8, _FIXED32: 4, 3: 2**62, 4: 2**62, 6: 2**62, 7: 2**62}  # the last ones do not occur in ONNX
