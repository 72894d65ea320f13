"""What a file without pre- and postprocessing leaves to its caller, in numpy: as the graph of a full file does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench_export.card import Preprocessing

__all__ = ["normalise", "softmax", "to_probabilities"]


def normalise(batch: NDArray[np.uint8], how: Preprocessing, *, scale: float = 255.0) -> NDArray[np.float32]:
    """uint8 N,h,w,C -> float32 N,C,h,w: over `scale`, minus mean, over std."""
    pixels = batch.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(scale)
    shape = (1, -1, 1, 1)
    mean, std = (np.array(values, dtype=np.float32).reshape(shape) for values in (how.mean, how.std))
    return np.ascontiguousarray((pixels - mean) / std)


def to_probabilities(outputs: NDArray[Any], loss: str) -> NDArray[np.float32]:
    """A model's outputs N,K -> the probabilities that go with its loss; of one output those of both classes.

    The same as bench.stages.optim.probabilities.
    """
    values = np.asarray(outputs, dtype=np.float32)
    if loss == "contrastive":
        same = np.exp(-values)
        return np.concatenate([1 - same, same], axis=1)
    if loss == "bce":
        chances = 1 / (1 + np.exp(-np.clip(values, -80, 80)))
        if chances.shape[1] == 1:
            return np.concatenate([1 - chances, chances], axis=1)
        return np.asarray(chances / chances.sum(axis=1, keepdims=True).clip(1e-12))
    return softmax(values)


def softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of logits -> rows of probabilities."""
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
