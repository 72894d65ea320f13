"""From uint8 images of any size to what a model takes, as an ONNX graph: the same values as the Python pipeline's.

Source: `bench.images.fit` and `bench.stages.batches.Preprocessing`, which it equals bit for bit with every policy and
filter, on any H and W.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench_export.conversion.graph import DOUBLE, FLOAT, Nodes
from bench_export.conversion.resampling import Axis, nearest, resample

if TYPE_CHECKING:
    from bench_export.card import Preprocessing

__all__ = ["preprocess"]


def preprocess(images: str, preprocessing: Preprocessing, *, pixels: str, normalised: str) -> Nodes:
    """Nodes from `images`, uint8 N,H,W,C, to `pixels`, uint8 N,h,w,C, and on to `normalised`, float32 N,C,h,w.

    Images that have the model's size already are passed on as they are.
    """
    nodes = Nodes(images)
    height, width = (_side(nodes, images, number) for number in (1, 2))
    same = nodes.add("And", *(_equals(nodes, *pair) for pair in zip((height, width), preprocessing.size, strict=True)))
    as_it_is, resized = Nodes(f"{images}/as_it_is"), Nodes(f"{images}/resized")
    fitted = nodes.add(
        "If",
        same,
        then_branch=as_it_is.branch(as_it_is.add("Identity", images)),
        else_branch=resized.branch(_fit(resized, images, (height, width), preprocessing)),
    )
    shape = nodes.integers(0, *preprocessing.size, preprocessing.channels)  # known from here on
    _normalise(nodes, nodes.add("Reshape", fitted, shape, output=pixels), preprocessing, normalised)
    return nodes


def _side(nodes: Nodes, images: str, number: int) -> str:
    """One side of the images, int64."""
    return nodes.add("Squeeze", nodes.add("Shape", images, start=number, end=number + 1))


def _equals(nodes: Nodes, side: str, pixels: int) -> str:
    return nodes.add("Equal", side, nodes.constant(pixels, np.int64))


def _fit(nodes: Nodes, images: str, sides: tuple[str, str], preprocessing: Preprocessing) -> str:
    """Resize by the policy: uint8 N,h,w,C."""
    rows, columns = _axes(nodes, sides, preprocessing)
    if preprocessing.filter == "nearest":
        return nearest(nodes, images, rows=rows, columns=columns)
    return resample(nodes, images, preprocessing.filter, rows=rows, columns=columns, channels=preprocessing.channels)


def _axes(nodes: Nodes, sides: tuple[str, str], preprocessing: Preprocessing) -> tuple[Axis, Axis]:
    """Where the policy takes both sides, in float64 and rounded to even as Python does."""
    lengths = [nodes.add("Cast", side, to=DOUBLE) for side in sides]
    targets = [nodes.constant(float(size)) for size in preprocessing.size]
    axes = list(zip(lengths, targets, preprocessing.size, strict=True))
    if preprocessing.resize == "squash":
        rows, columns = (Axis(length, target, size) for length, target, size in axes)
        return rows, columns
    covering = "Max" if preprocessing.resize == "crop" else "Min"
    scale = nodes.add(covering, *(nodes.add("Div", target, length) for length, target, _ in axes))
    rows, columns = (_scaled(nodes, length, target, size, scale) for length, target, size in axes)
    return rows, columns


def _scaled(nodes: Nodes, length: str, target: str, size: int, scale: str) -> Axis:
    """A side that is scaled and then cut or padded in the middle."""
    scaled = nodes.add("Max", nodes.add("Round", nodes.add("Mul", length, scale)), nodes.constant(1.0))
    offset = nodes.add("Floor", nodes.add("Mul", nodes.add("Sub", scaled, target), nodes.constant(0.5)))
    return Axis(length, scaled, size, offset)


def _normalise(nodes: Nodes, pixels: str, preprocessing: Preprocessing, output: str) -> None:
    """Over 255, minus mean, over std, in this order: a product of constants would round differently."""
    mean, std = (
        nodes.constant(np.reshape(values, (1, -1, 1, 1)), np.float32)
        for values in (preprocessing.mean, preprocessing.std)
    )
    planes = nodes.add("Cast", nodes.add("Transpose", pixels, perm=[0, 3, 1, 2]), to=FLOAT)
    scaled = nodes.add("Div", planes, nodes.constant(255.0, np.float32))
    nodes.add("Div", nodes.add("Sub", scaled, mean), std, output=output)
