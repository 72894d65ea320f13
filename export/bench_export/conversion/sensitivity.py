"""Which layers suffer from eight bits: each one quantised alone, and what that does to the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench_export.conversion.calibration import portions
from bench_export.conversion.qdq import quantised
from bench_export.conversion.sessions import quiet_session

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

__all__ = ["fewest", "noise", "outputs_of", "ranked"]

#: Images on which outputs are compared: enough to rank layers, few enough to do it for each of a hundred.
_IMAGES = 32


def outputs_of(
    proto: ModelProto, batches: Sequence[Mapping[str, NDArray[np.float32]]], *, num_images: int = _IMAGES
) -> NDArray[np.float32]:
    """The model's outputs N,K on the first images."""
    session = quiet_session(proto)
    rows: list[NDArray[np.float32]] = []
    for portion in portions(batches, num_images=8):
        rows.extend(session.run(None, portion)[0])
        if len(rows) >= num_images:
            break
    return np.stack(rows[:num_images])


def noise(exact: NDArray[np.float32], approximate: NDArray[np.float32]) -> float:
    """The error's energy as a part of the outputs' own (1 / signal-to-quantisation-noise); infinite where not finite."""
    error = float(np.square(exact - approximate, dtype=np.float64).sum())
    energy = float(np.square(exact, dtype=np.float64).sum())
    return error / max(energy, np.finfo(np.float64).tiny) if math.isfinite(error) else math.inf


def ranked(
    model: ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    batches: Sequence[Mapping[str, NDArray[np.float32]]],
    *,
    names: Sequence[str],
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[tuple[str, float]]:
    """(layer, noise that it alone causes), the worst first."""
    exact = outputs_of(model, batches)
    alone: list[tuple[str, float]] = []
    for name in names:
        alone.append((name, noise(exact, outputs_of(quantised(model, ranges, [name]), batches))))
        report(len(alone), len(names))
    return sorted(alone, key=lambda entry: -entry[1])


def fewest(holds: Callable[[int], bool], most: int) -> int | None:
    """The smallest count in 1..most that holds, found by doubling and then halving; None where not even `most` does.

    Takes at most 2 log2(most) trials. The count that is returned has itself been tried.
    """
    failed, count = 0, 1
    while not holds(count):
        if count == most:
            return None
        failed, count = count, min(2 * count, most)
    while count - failed > 1:
        middle = (failed + count) // 2
        if holds(middle):
            count = middle
        else:
            failed = middle
    return count
