"""Where a rejected file goes wrong: the first node whose output departs from what the trained model computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench_export.gate.answers import BATCH_SIZES, Asked, Reference
from bench_export.gate.matching import NOISE, Departure, beyond_rounding, departure, off, unmatched
from bench_export.gate.tensors import Graph, open_graph, torch_values
from bench_export.prediction.numpy_steps import normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto
    from torch.nn import Module

    from bench_export.card import Preprocessing
    from bench_export.gate.report import GateReport

__all__ = ["Trained", "first_departure"]

#: Share of a tensor's spread beyond which a rounded one departs.
_ROUNDED = {"fp16": 0.02, "int8": 0.3}
#: Grey values that may be off by one where Pillow rounds otherwise.
_ROUNDED_PIXELS = 0.05
_LOOKED_AT = 2


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
    if _is_too_large(path):
        return None
    graph = open_graph(path)
    positions = [entry["position"] for entry in report.worst][:_LOOKED_AT] or list(range(min(_LOOKED_AT, len(samples))))
    fitted = samples.batch(positions)
    given = _as_taken(graph, fitted, preprocessing)
    if (frozen := _frozen(graph, given)) is not None:
        return frozen
    values = graph.run(*given)
    return (
        _not_finite(graph, values)
        or next(filter(None, (_resized(graph, samples, position) for position in positions)), None)
        or _prepared(graph, values, fitted, preprocessing)
        or (_mixed(graph, values, given) if _depends_on_batch(report) else None)
        or _in_the_model(graph, values, fitted, report.precision, preprocessing, trained)
    )


def _is_too_large(path: Path) -> bool:
    """Whether the weights are in another file, for want of room: then so many outputs have none either."""
    import onnx

    proto = onnx.load(str(path), load_external_data=False)
    return any(entry.data_location == onnx.TensorProto.EXTERNAL for entry in proto.graph.initializer)


def _as_taken(graph: Graph, images: tuple[NDArray[np.uint8], ...], how: Preprocessing) -> tuple[NDArray[Any], ...]:
    """Fitted images as the file takes them: normalised where it is a raw one."""
    is_raw = graph.inputs[0].startswith("normalised")
    return tuple(normalise(side, how) for side in images) if is_raw else images


def _frozen(graph: Graph, given: tuple[NDArray[Any], ...]) -> Departure | None:
    """A batch of some size cannot be run, or comes out as another number of images."""
    for size in (1, *BATCH_SIZES):
        arrays = (np.resize(array, (size, *array.shape[1:])) for array in given)
        try:
            graph.run(*arrays)
        except Exception as cause:  # noqa: BLE001  # onnxruntime's own classes share no base but Exception
            node = graph.failing(cause)
            text = f"a batch of {size} cannot be run: {' '.join(str(cause).split())[:200]}"
            return Departure(graph.inputs[0], "input", "", text) if node is None else departure(node, text)
    return None


def _not_finite(graph: Graph, values: dict[str, NDArray[Any]]) -> Departure | None:
    for node in graph.nodes:
        for name in node.outputs:
            value = values.get(name)
            if value is not None and value.dtype.kind == "f" and not np.isfinite(value).all():
                count = int((~np.isfinite(value)).sum())
                return departure(node, f"{count:,} of {value.size:,} values are not finite")
    return None


def _depends_on_batch(report: GateReport) -> bool:
    return any(batch["max_difference"] > report.limits["batch_difference"] for batch in report.batches)


def _mixed(graph: Graph, values: dict[str, NDArray[Any]], given: tuple[NDArray[Any], ...]) -> Departure | None:
    """A value of the first image that depends on the images beside it, in the trained model perhaps as well."""
    alone = graph.run(*(array[:1] for array in given))
    for node in graph.nodes:
        for name in node.outputs:
            value, own = values.get(name), alone.get(name)
            if value is None or own is None or value.dtype.kind != "f" or own.shape != (1, *value.shape[1:]):
                continue
            if off(value[:1], own) > NOISE * float(np.abs(own).max(initial=0.0)):
                return departure(node, "its value for an image depends on the others of the batch")
    return None


def _resized(graph: Graph, samples: Asked, position: int) -> Departure | None:
    """`pixels` of an image at its own size against Pillow's; a raw file has none."""
    if not graph.producer("pixels") and not graph.producer("pixels_first"):
        return None
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
            if expected.shape[-1] > 1 and off(found[..., ::-1], expected) <= 1:
                return _about(graph, name, "the channels stand in the other order")
            node = next((node for node in graph.ancestors(name) if node.op == "Resize"), graph.producer(name))
            text = f"{share:.0%} of the resized values differ from Pillow's, by up to {difference.max()} of 255"
            return None if node is None else departure(node, text)
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
        if off(found, wanted) > NOISE * float(np.abs(wanted).max()):
            return _about(graph, name, _how_normalised(found, wanted, images))
    return None


def _how_normalised(found: NDArray[Any], expected: NDArray[np.float32], images: NDArray[np.uint8]) -> str:
    plain = images.transpose(0, 3, 1, 2).astype(np.float32)
    if off(found, plain) < 1 or off(found, plain / 255) < NOISE:
        return "the normalisation is left out"
    if off(found[:, ::-1], expected) <= NOISE * float(np.abs(expected).max()):
        return "the channels stand in the other order"
    return f"the input is off by up to {off(found, expected):.3g}: another mean or deviation, or channels exchanged"


def _in_the_model(
    graph: Graph,
    values: dict[str, NDArray[Any]],
    fitted: tuple[NDArray[np.uint8], ...],
    precision: str,
    how: Preprocessing,
    trained: Trained,
) -> Departure | None:
    """Behind the normalised images: against every value of the torch model, or the exact file's for a rounded one."""
    if precision != "fp32":
        if trained.exact is None:
            return None
        exact = open_graph(trained.exact).run(*_as_taken(graph, fitted, how))
        return beyond_rounding(graph, values, exact, _ROUNDED[precision])
    if trained.model is None:
        return None
    inputs = [normalise(images, how) for images in fitted]
    answers = trained.reference(*fitted)
    expected = [*inputs, *torch_values(trained.model, inputs), answers, np.ascontiguousarray(answers[:, 1])]
    return unmatched(graph, values, expected, start=_suffixed("normalised", fitted))


def _suffixed(name: str, images: Sequence[Any]) -> list[str]:
    return [name] if len(images) == 1 else [f"{name}_first", f"{name}_second"]


def _about(graph: Graph, tensor: str, what: str) -> Departure | None:
    node = graph.producer(tensor)
    return Departure(tensor, "input", "", what) if node is None else departure(node, what)
