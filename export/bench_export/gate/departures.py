"""Where a rejected file goes wrong: the first node whose output departs from what the trained model computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench_export.gate.answers import BATCH_SIZES, Asked, Reference
from bench_export.gate.tensors import Graph, Node, open_graph, torch_values
from bench_export.prediction.numpy_steps import normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto
    from torch.nn import Module

    from bench_export.card import Preprocessing
    from bench_export.gate.report import GateReport

__all__ = ["Departure", "Trained", "first_departure"]

#: Share of a tensor's largest value by which two exact computations may differ.
_NOISE = 5e-4
#: Share of a tensor's spread beyond which a rounded one departs.
_ROUNDED = {"fp16": 0.02, "int8": 0.3}
#: Grey values that may be off by one where Pillow rounds otherwise.
_ROUNDED_PIXELS = 0.05
_LOOKED_AT = 2


@dataclass(frozen=True, slots=True)
class Departure:
    """The node, its operator, the torch module that it stems from ("" where the file does not say), and what is wrong."""

    node: str
    op: str
    module: str
    what: str

    def __str__(self) -> str:
        module = f" of {self.module}" if self.module else ""
        return f"{self.op} {self.node!r}{module}: {self.what}"

    def as_json(self) -> dict[str, str]:
        """Plain values."""
        return asdict(self)


class Trained(NamedTuple):
    """What a file is compared with: the torch model and its answers; for a rounded file the exact one of fp32."""

    reference: Reference
    model: Module | None = None
    exact: Path | ModelProto | None = None


def first_departure(
    path: Path, samples: Asked, report: GateReport, *, preprocessing: Preprocessing, trained: Trained
) -> Departure | None:
    """The first node whose output departs; None where each inner value is right.

    `preprocessing` is the run's. A file of fp32 is compared with every value that the torch model computes, one of fp16
    or int8 with the tensors of the same names in `trained.exact`.
    """
    graph = open_graph(path)
    positions = [entry["position"] for entry in report.worst][:_LOOKED_AT] or list(range(min(_LOOKED_AT, len(samples))))
    fitted = samples.batch(positions)
    if (frozen := _frozen(graph, samples)) is not None:
        return frozen
    values = graph.run(*fitted)
    found = (
        _not_finite(graph, values)
        or next(filter(None, (_resized(graph, samples, position) for position in positions)), None)
        or _prepared(graph, values, fitted, preprocessing)
    )
    if found is not None:
        return found
    if report.precision != "fp32":
        if trained.exact is None:
            return None
        return _beyond_rounding(graph, values, open_graph(trained.exact).run(*fitted), _ROUNDED[report.precision])
    if trained.model is None:
        return None
    inputs = [normalise(images, preprocessing) for images in fitted]
    answers = trained.reference(*fitted)
    expected = [*torch_values(trained.model, inputs), answers, np.ascontiguousarray(answers[:, 1])]
    return _unmatched(graph, values, expected, start=_suffixed("normalised", fitted))


def _frozen(graph: Graph, samples: Asked) -> Departure | None:
    """A batch of some size cannot be run, or comes out as another number of images."""
    for size in (1, *BATCH_SIZES):
        arrays = samples.batch([position % len(samples) for position in range(size)])
        try:
            graph.run(*arrays)
        except Exception as cause:  # noqa: BLE001  # onnxruntime's own classes share no base but Exception
            node = graph.failing(cause)
            text = f"a batch of {size} cannot be run: {' '.join(str(cause).split())[:200]}"
            return Departure(graph.inputs[0], "input", "", text) if node is None else _departure(node, text)
    return None


def _not_finite(graph: Graph, values: dict[str, NDArray[Any]]) -> Departure | None:
    for node in graph.nodes:
        for name in node.outputs:
            value = values.get(name)
            if value is not None and value.dtype.kind == "f" and not np.isfinite(value).all():
                count = int((~np.isfinite(value)).sum())
                return _departure(node, f"{count:,} of {value.size:,} values are not finite")
    return None


def _resized(graph: Graph, samples: Asked, position: int) -> Departure | None:
    """`pixels` of an image at its own size against Pillow's."""
    fitted = samples.batch([position])
    values = graph.run(*(image[None] for image in samples.originals(position)))
    for name, expected in zip(_suffixed("pixels", fitted), fitted, strict=True):
        found = values.get(name)
        if found is None:
            continue
        if found.shape != expected.shape:
            return _about(graph, name, f"{found.shape} instead of {expected.shape}")
        difference = np.abs(found.astype(np.int64) - expected)
        share = float((difference > 0).mean())
        if difference.max() > 1 or share > _ROUNDED_PIXELS:
            if expected.shape[-1] > 1 and _off(found[..., ::-1], expected) <= 1:
                return _about(graph, name, "the channels stand in the other order")
            node = next((node for node in graph.ancestors(name) if node.op == "Resize"), graph.producer(name))
            text = f"{share:.0%} of the resized values differ from Pillow's, by up to {difference.max()} of 255"
            return None if node is None else _departure(node, text)
    return None


def _prepared(
    graph: Graph, values: dict[str, NDArray[Any]], fitted: tuple[NDArray[np.uint8], ...], how: Preprocessing
) -> Departure | None:
    """`pixels` and `normalised` of fitted images, which need no resizing."""
    for name, expected in zip(_suffixed("pixels", fitted), fitted, strict=True):
        if name in values and not np.array_equal(values[name], expected):
            swapped = np.array_equal(values[name][..., ::-1], expected)
            what = "the channels stand in the other order" if swapped else "images that need no resizing are changed"
            return _about(graph, name, what)
    for name, images in zip(_suffixed("normalised", fitted), fitted, strict=True):
        if name not in values:
            continue
        found, wanted = values[name], normalise(images, how)
        if found.shape != wanted.shape:
            return _about(graph, name, f"{found.shape} instead of {wanted.shape}")
        if _off(found, wanted) > _NOISE * float(np.abs(wanted).max()):
            return _about(graph, name, _how_normalised(found, wanted, images))
    return None


def _how_normalised(found: NDArray[Any], expected: NDArray[np.float32], images: NDArray[np.uint8]) -> str:
    plain = images.transpose(0, 3, 1, 2).astype(np.float32)
    if _off(found, plain) < 1 or _off(found, plain / 255) < _NOISE:
        return "the normalisation is left out"
    if _off(found[:, ::-1], expected) <= _NOISE * float(np.abs(expected).max()):
        return "the channels stand in the other order"
    return f"the input is off by up to {_off(found, expected):.3g}: another mean or deviation, or channels exchanged"


def _beyond_rounding(
    graph: Graph, values: dict[str, NDArray[Any]], exact: dict[str, NDArray[Any]], limit: float
) -> Departure | None:
    """The first tensor that is further from its exact namesake than rounding explains, else the furthest one."""
    worst, furthest = 0.0, None
    for node in graph.nodes:
        for name in node.outputs:
            if name not in exact or exact[name].shape != values[name].shape or exact[name].dtype.kind != "f":
                continue
            spread = float(exact[name].std()) or 1.0
            error = float(np.sqrt(np.mean((values[name].astype(np.float64) - exact[name]) ** 2))) / spread
            if error > worst:
                worst, furthest = error, node
            if error > limit:
                return _departure(node, f"off by {error:.0%} of the spread of its exact values")
    return None if furthest is None else _departure(furthest, f"the furthest: off by {worst:.1%} of the exact spread")


def _unmatched(
    graph: Graph, values: dict[str, NDArray[Any]], expected: Sequence[NDArray[np.float32]], *, start: Sequence[str]
) -> Departure | None:
    """The first node whose value the trained model never computes, nor any value that is made of it.

    Steps of an operator that the exporter took apart have no counterpart, but what they lead to has.
    """
    by_size: dict[int, list[NDArray[np.float32]]] = {}
    for one in expected:
        by_size.setdefault(one.size, []).append(one.reshape(-1))
    after = graph.after(start if any(graph.producer(name) for name in start) else graph.inputs)
    right: set[str] = set()  # tensors that are matched, or that a matched one is made of
    first: tuple[Node, NDArray[Any]] | None = None
    for node in reversed(graph.nodes):
        for name in node.outputs:
            value = values.get(name)
            if value is None or name not in after or value.dtype.kind != "f" or value.min() == value.max():
                continue
            if name in right or any(_close(value.reshape(-1), other) for other in by_size.get(value.size, ())):
                right.add(name)
            else:
                first = (node, value)
        if right & set(node.outputs):
            right.update(node.inputs)
    if first is None:
        return None
    node, departing = first
    count = len(departing)
    rows = np.sort(departing.reshape(count, -1), axis=1).reshape(-1)
    others = [other.reshape(count, -1) for other in by_size.get(departing.size, ())]
    if any(_close(rows, np.sort(other, axis=1).reshape(-1)) for other in others):
        return _departure(node, "the right values in another order: the classes or channels are exchanged")
    return _departure(node, "its values are none that the trained model computes")


def _close(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    scale = float(np.abs(expected).max(initial=0.0))
    return bool(_off(found[:64], expected[:64]) <= _NOISE * scale and _off(found, expected) <= _NOISE * scale)


def _off(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0.0))


def _suffixed(name: str, images: Sequence[Any]) -> list[str]:
    return [name] if len(images) == 1 else [f"{name}_first", f"{name}_second"]


def _about(graph: Graph, tensor: str, what: str) -> Departure | None:
    node = graph.producer(tensor)
    return Departure(tensor, "input", "", what) if node is None else _departure(node, what)


def _departure(node: Node, what: str) -> Departure:
    return Departure(node.name, node.op, node.module, what)
