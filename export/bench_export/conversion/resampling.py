"""Pillow's resampling as an ONNX graph, to the same bytes: uint8 N,H,W,C of any size -> uint8 N,h,w,C.

Source: Pillow, src/libImaging/Resample.c (filters, weights, rounding) and Geometry.c (nearest). Weights are computed in
float64 from H and W and rounded to 22 bits, and values are rounded to 8 bits after each of both passes, in the order that
the installed Pillow takes.

A pass is a float32 matrix product, which is exact: each weight is a multiple of 2^-15 plus a remainder, so that no sum of
either parts, times 8 bits, needs more than the 24 bits of a float32. That holds for filters of up to 1028 pixels, with
Lanczos an image of 170 times the model's size, and on CUDA with the provider's option use_tf32=0.

The operator Resize is no way to the same bytes: its positions are float32, so that it differs by up to two grey levels (in
0.05 % of the values of a reduced photograph, in 5 % of one enlarged from 250 to 300 pixels), and it has neither box nor
Lanczos.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from bench_export.conversion.graph import DOUBLE, FLOAT, INT64, UINT8, Nodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SUPPORT", "Axis", "chooses_order", "nearest", "resample"]

#: Half the width of each filter, in pixels of the smaller image.
SUPPORT = {"box": 0.5, "bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}

_SIGNED = {"bicubic", "lanczos"}  #: filters with negative weights, which may leave 0..255
_UNIT = 2.0**-22  #: of Pillow's weights
_COARSE = 2.0**-15  #: the larger part of a weight is a multiple of it
_BLOCK = 8  #: outputs that share a window of inputs: enough for a matrix product, few enough to waste little
_CUBIC = -0.5


@dataclass(frozen=True, slots=True)
class Axis:
    """One side of an image: `length` pixels become `scaled`, of which `size` are kept from `offset` on.

    length, scaled and offset name float64 scalars in the graph; an offset of None is 0. What is kept beyond the edges is
    black.
    """

    length: str
    scaled: str
    size: int
    offset: str | None = None


def resample(nodes: Nodes, images: str, filter_: str, *, rows: Axis, columns: Axis, channels: int) -> str:
    """Nodes that resize `images`, uint8 N,H,W,C, with one of the filters of `SUPPORT`; the result is uint8 N,h,w,C."""

    def across(nodes: Nodes, images: str) -> str:
        # What a pass resamples stands first and the rest last: it copies and multiplies long rows.
        standing = nodes.add("Transpose", images, perm=[0, 2, 3, 1])
        narrow = _pass(nodes, standing, filter_, columns, nodes.integers(0, columns.size, channels, -1))  # N,w,C,H
        return nodes.add("Transpose", narrow, perm=[0, 3, 1, 2])

    def down(nodes: Nodes, images: str) -> str:
        return _pass(nodes, images, filter_, rows, nodes.integers(0, rows.size, -1, channels))

    if not chooses_order():
        return down(nodes, across(nodes, images))
    across_first, down_first = Nodes(f"{nodes.scope}/across_first"), Nodes(f"{nodes.scope}/down_first")
    return nodes.add(
        "If",
        _down_first(nodes, rows, columns),
        then_branch=down_first.branch(across(down_first, down(down_first, images))),
        else_branch=across_first.branch(down(across_first, across(across_first, images))),
    )


@cache
def chooses_order() -> bool:
    """Whether the installed Pillow resizes down first where that shrinks the image more. Version 13 does, 12 never did."""
    from PIL import Image

    rows = np.arange(200)
    image = Image.fromarray(((np.stack([rows, rows + 1, rows + 4], axis=1) * 73) % 256).astype(np.uint8))
    both, bicubic = image.resize((64, 64), Image.Resampling.BICUBIC), Image.Resampling.BICUBIC
    return both.tobytes() == image.resize((3, 64), bicubic).resize((64, 64), bicubic).tobytes()


def _down_first(nodes: Nodes, rows: Axis, columns: Axis) -> str:
    """Pillow 13's rule, found by trying: down first where that saves more than twice the pixels that across does."""
    saved_down, saved_across = (nodes.add("Sub", axis.length, axis.scaled) for axis in (rows, columns))
    twice = nodes.add("Max", nodes.add("Add", saved_across, saved_across), nodes.constant(0.0))
    return nodes.add("Greater", saved_down, twice)


def nearest(nodes: Nodes, images: str, *, rows: Axis, columns: Axis) -> str:
    """Nodes that take the nearest pixels of `images`, uint8 N,H,W,C; the result is uint8 N,h,w,C."""
    for number, axis in enumerate((rows, columns), start=1):
        images = nodes.add("Gather", images, _sampled(nodes, axis), axis=number)
        if axis.offset is not None:
            inside = _kept(
                nodes, axis, np.arange(axis.size).reshape([-1 if side == number else 1 for side in range(4)])
            )
            images = nodes.add("Where", inside, images, nodes.constant(0, np.uint8))
    return images


def _sampled(nodes: Nodes, axis: Axis) -> str:
    """The position of each pixel that is kept, int64. Pillow adds the scale up, and so do we: its rounding shows."""
    one_value = nodes.integers(1)
    scale = nodes.add("Reshape", nodes.add("Div", axis.length, axis.scaled), one_value)
    count = nodes.add("Reshape", nodes.add("Cast", axis.scaled, to=INT64), one_value)
    steps = nodes.add("Concat", nodes.add("Mul", scale, nodes.constant(0.5)), nodes.add("Expand", scale, count), axis=0)
    places = nodes.constant(np.arange(axis.size))
    if axis.offset is not None:
        places = nodes.add(
            "Min", nodes.add("Add", places, axis.offset), nodes.add("Sub", axis.scaled, nodes.constant(1.0))
        )
        places = nodes.add("Max", places, nodes.constant(0.0))
    sums = nodes.add("CumSum", steps, nodes.constant(0, np.int64))
    positions = nodes.add("Gather", sums, nodes.add("Cast", places, to=INT64))
    positions = nodes.add("Min", positions, nodes.add("Sub", axis.length, nodes.constant(1.0)))
    return nodes.add("Cast", positions, to=INT64)


def _kept(nodes: Nodes, axis: Axis, outputs: NDArray[np.integer]) -> str:
    """Which outputs are in the scaled image."""
    assert axis.offset is not None  # noqa: S101  # without one all of them are
    places = nodes.add("Add", nodes.constant(outputs), axis.offset)
    not_before = nodes.add("GreaterOrEqual", places, nodes.constant(0.0))
    return nodes.add("And", not_before, nodes.add("Less", places, axis.scaled))


def _pass(nodes: Nodes, images: str, filter_: str, axis: Axis, shape: str) -> str:
    """Resample uint8 N,L,A,B along its second side, one product for each block of outputs; `shape` is N,size,A,B."""
    positions, weights = _windows(nodes, filter_, axis)
    windows = nodes.add("Gather", images, positions, axis=1)  # N,blocks,window,A,B
    windows = nodes.add("Reshape", windows, nodes.integers(0, 0, 0, -1))
    products = nodes.add("MatMul", weights, nodes.add("Cast", windows, to=FLOAT))  # N,blocks,2 outputs,AB
    values = nodes.add("Cast", _whole(nodes, products, signed=filter_ in _SIGNED), to=UINT8)
    if axis.size % _BLOCK:
        values = nodes.add("Reshape", values, nodes.integers(0, _num_blocks(axis) * _BLOCK, -1))
        values = nodes.add("Slice", values, nodes.integers(0), nodes.integers(axis.size), nodes.integers(1))
    return nodes.add("Reshape", values, shape)


def _whole(nodes: Nodes, products: str, *, signed: bool) -> str:
    """Coarse and fine products, one behind the other -> their sums rounded to whole grey levels, halves up."""
    count = nodes.integers(_BLOCK, _BLOCK)
    coarse, fine = nodes.several("Split", 2, products, count, axis=2)
    coarse = nodes.add("Add", coarse, nodes.constant(0.5, np.float32))
    whole = nodes.add("Floor", coarse)
    rest = nodes.add("Add", nodes.add("Sub", coarse, whole), fine)
    whole = nodes.add("Add", whole, nodes.add("Floor", rest))
    if not signed:  # positive weights leave nothing outside of 0..255
        return whole
    return nodes.add("Clip", whole, nodes.constant(0.0, np.float32), nodes.constant(255.0, np.float32))


def _num_blocks(axis: Axis) -> int:
    return math.ceil(axis.size / _BLOCK)


def _windows(nodes: Nodes, filter_: str, axis: Axis) -> tuple[str, str]:
    """The positions that each block of outputs needs, int64 blocks,window, and their weights, blocks,outputs,window."""
    half, outputs = nodes.constant(0.5), np.arange(_num_blocks(axis) * _BLOCK).reshape(-1, _BLOCK, 1)
    scale = nodes.add("Div", axis.length, axis.scaled)
    reduction = nodes.add("Max", scale, nodes.constant(1.0))
    support = nodes.add("Mul", reduction, nodes.constant(SUPPORT[filter_]))
    middles = nodes.constant(outputs + 0.5)
    if axis.offset is not None:
        middles = nodes.add("Add", middles, axis.offset)
    centres = nodes.add("Mul", middles, scale)
    starts = nodes.add("Floor", nodes.add("Add", nodes.add("Sub", centres, support), half))
    starts = nodes.add("Max", starts, nodes.constant(0.0))
    first = nodes.add("Gather", starts, nodes.integers(0), axis=1)  # blocks,1,1
    width = nodes.add("Add", nodes.add("Mul", scale, nodes.constant(_BLOCK - 1)), nodes.add("Add", support, support))
    window = nodes.add("Range", nodes.constant(0.0), width, nodes.constant(1.0))
    positions = nodes.add("Add", first, window)  # blocks,1,window
    last = nodes.add("Sub", axis.length, nodes.constant(1.0))
    inside = nodes.add("LessOrEqual", positions, last)
    if filter_ == "box":  # the other filters are 0 from there on
        ends = nodes.add("Floor", nodes.add("Add", nodes.add("Add", centres, support), half))
        inside = nodes.add("And", inside, nodes.add("Less", positions, ends))
        inside = nodes.add("And", inside, nodes.add("GreaterOrEqual", positions, starts))
    distances = nodes.add("Add", nodes.add("Sub", positions, centres), half)
    distances = nodes.add("Mul", distances, nodes.add("Reciprocal", reduction))
    raw = nodes.add("Where", inside, _FILTERS[filter_](nodes, distances), nodes.constant(0.0))
    weights = nodes.add("Div", raw, nodes.add("ReduceSum", raw, nodes.integers(2)))
    if axis.offset is not None:
        weights = nodes.add("Where", _kept(nodes, axis, outputs), weights, nodes.constant(0.0))
    places = nodes.add("Squeeze", nodes.add("Min", positions, last), nodes.integers(1))
    return nodes.add("Cast", places, to=INT64), _in_parts(nodes, weights, signed=filter_ in _SIGNED)


def _in_parts(nodes: Nodes, weights: str, *, signed: bool) -> str:
    """Weights, rounded to Pillow's unit with halves away from 0, as float32 blocks,2 outputs,window: coarse, then fine."""
    units = nodes.add("Mul", weights, nodes.constant(1 / _UNIT))
    if signed:
        whole = nodes.add("Floor", nodes.add("Add", nodes.add("Abs", units), nodes.constant(0.5)))
        whole = nodes.add("Mul", whole, nodes.add("Sign", units))
    else:
        whole = nodes.add("Floor", nodes.add("Add", units, nodes.constant(0.5)))
    exact = nodes.add("Mul", whole, nodes.constant(_UNIT))
    steps = nodes.add("Round", nodes.add("Mul", exact, nodes.constant(1 / _COARSE)))
    coarse = nodes.add("Mul", steps, nodes.constant(_COARSE))
    return nodes.add("Cast", nodes.add("Concat", coarse, nodes.add("Sub", exact, coarse), axis=1), to=FLOAT)


def _box(nodes: Nodes, x: str) -> str:
    above = nodes.add("Greater", x, nodes.constant(-0.5))
    return nodes.add("Cast", nodes.add("And", above, nodes.add("LessOrEqual", x, nodes.constant(0.5))), to=DOUBLE)


def _bilinear(nodes: Nodes, x: str) -> str:
    return nodes.add("Max", nodes.add("Sub", nodes.constant(1.0), nodes.add("Abs", x)), nodes.constant(0.0))


def _bicubic(nodes: Nodes, x: str) -> str:
    """Keys's cubic convolution with a = -0.5."""
    x = nodes.add("Abs", x)
    near = nodes.add("Sub", nodes.add("Mul", nodes.constant(_CUBIC + 2), x), nodes.constant(_CUBIC + 3))
    near = nodes.add("Add", nodes.add("Mul", nodes.add("Mul", near, x), x), nodes.constant(1.0))
    far = nodes.add("Add", nodes.add("Mul", nodes.add("Sub", x, nodes.constant(5.0)), x), nodes.constant(8.0))
    far = nodes.add("Mul", nodes.add("Sub", nodes.add("Mul", far, x), nodes.constant(4.0)), nodes.constant(_CUBIC))
    far = nodes.add("Where", nodes.add("Less", x, nodes.constant(2.0)), far, nodes.constant(0.0))
    return nodes.add("Where", nodes.add("Less", x, nodes.constant(1.0)), near, far)


def _lanczos(nodes: Nodes, x: str) -> str:
    """A sinc under a sinc three times as wide."""
    product = nodes.add("Mul", _sinc(nodes, x), _sinc(nodes, nodes.add("Div", x, nodes.constant(3.0))))
    below = nodes.add("Less", x, nodes.constant(3.0))
    inside = nodes.add("And", nodes.add("LessOrEqual", nodes.constant(-3.0), x), below)
    return nodes.add("Where", inside, product, nodes.constant(0.0))


def _sinc(nodes: Nodes, x: str) -> str:
    angle = nodes.add("Mul", x, nodes.constant(math.pi))
    at_zero = nodes.add("Equal", angle, nodes.constant(0.0))
    safe = nodes.add("Where", at_zero, nodes.constant(1.0), angle)
    return nodes.add("Where", at_zero, nodes.constant(1.0), nodes.add("Div", nodes.add("Sin", safe), safe))


_FILTERS = {"box": _box, "bilinear": _bilinear, "bicubic": _bicubic, "lanczos": _lanczos}
