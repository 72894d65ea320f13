"""What an ONNX file says of itself besides our card: format, opsets, who made it, what it takes and answers."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench_export.external_data import external_files, walk

if TYPE_CHECKING:
    from bench_export.session import Session

__all__ = ["FileFacts", "facts_of"]

_IR_VERSION, _PRODUCER, _PRODUCER_VERSION, _OPSET = 1, 2, 3, 8
_DOMAIN, _VERSION = 1, 2
_USUAL_DOMAIN = "ai.onnx"

_TYPES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Facts of a file. `inputs` and `outputs` are (name, type, shape); a name in a shape is a free dimension."""

    size_mb: float
    ir_version: int
    producer: str
    opsets: dict[str, int]
    inputs: list[tuple[str, str, list[int | str | None]]]
    outputs: list[tuple[str, str, list[int | str | None]]]
    weights_beside: list[str]


def facts_of(session: Session) -> FileFacts:
    """Read the top of the file, and ask the session for the rest. Raises BenchError where it is damaged."""
    path = session.path
    beside = list(external_files(path))
    size = path.stat().st_size + sum((path.parent / name).stat().st_size for name in beside)
    texts, numbers, opsets = _top(path)
    return FileFacts(
        size_mb=size / 1e6,
        ir_version=numbers.get(_IR_VERSION, 0),
        producer=" ".join(filter(None, (texts.get(_PRODUCER), texts.get(_PRODUCER_VERSION)))),
        opsets=opsets,
        inputs=[_value(one) for one in session.inference.get_inputs()],
        outputs=[_value(one) for one in session.inference.get_outputs()],
        weights_beside=beside,
    )


def _top(path: Path) -> tuple[dict[int, str], dict[int, int], dict[str, int]]:
    """Texts and numbers of the model by field, and the version of each operator set."""
    texts: dict[int, str] = {}
    numbers: dict[int, int] = {}
    opsets: dict[str, int] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            for number, value in walk(content, 0, len(content)):
                if isinstance(value, int):
                    numbers[number] = value
                elif number in {_PRODUCER, _PRODUCER_VERSION}:
                    texts[number] = content[slice(*value)].decode(errors="replace")
                elif number == _OPSET:
                    entry = dict(walk(content, *value))
                    domain, version = entry.get(_DOMAIN), entry.get(_VERSION, 0)
                    name = content[slice(*domain)].decode(errors="replace") if isinstance(domain, tuple) else ""
                    opsets[name or _USUAL_DOMAIN] = version if isinstance(version, int) else 0
        except (IndexError, ValueError) as cause:
            raise BenchError(f"{path}: truncated, or no ONNX model", hint="copy it again") from cause
    return texts, numbers, opsets


def _value(one: Any) -> tuple[str, str, list[int | str | None]]:
    kind = str(one.type).removeprefix("tensor(").removesuffix(")")
    return one.name, _TYPES.get(kind, kind), list(one.shape)
