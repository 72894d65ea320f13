"""Values of a graph against those that are right: which node is the first to depart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench_export.gate.tensors import Graph, Node

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NOISE", "Departure", "beyond_rounding", "departure", "off", "unmatched"]

#: Share of a tensor's largest value by which two exact computations may differ.
NOISE = 5e-4


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


def departure(node: Node, what: str) -> Departure:
    """What is wrong at a node."""
    return Departure(node.name, node.op, node.module, what)


def beyond_rounding(
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
                return departure(node, f"off by {error:.0%} of the spread of its exact values")
    return None if furthest is None else departure(furthest, f"the furthest: off by {worst:.1%} of the exact spread")


def unmatched(
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
        return departure(node, "the right values in another order: the classes or channels are exchanged")
    return departure(node, "its values are none that the trained model computes")


def _close(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    scale = float(np.abs(expected).max(initial=0.0))
    return bool(off(found[:64], expected[:64]) <= NOISE * scale and off(found, expected) <= NOISE * scale)


def off(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference of two arrays."""
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0.0))
