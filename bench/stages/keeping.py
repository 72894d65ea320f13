"""Which epochs of a training lie on the disk: all of them, or as many as keep the loss of a kill small."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch

from bench.stages import checkpoint

__all__ = ["Keeper"]

Tensors: TypeAlias = dict[str, torch.Tensor]


@dataclass(slots=True)
class Keeper:
    """Keeps the last and the best epoch, in `last.safetensors` and `best.safetensors`.

    With `every_s` above 0 it writes at most once in so many seconds: what takes less to train is cheaper to repeat than
    to save. The best weights wait in memory until then.
    """

    folder: Path
    every_s: float = 0.0
    _waiting: tuple[int, Tensors] | None = field(init=False, default=None)
    _saved_at: float = field(init=False, default_factory=time.monotonic)

    def save(
        self, epoch: int, *, best: Mapping[str, torch.Tensor] | None, last: Callable[[], tuple[Tensors, Any]]
    ) -> None:
        """Keep an epoch: `last` gives its whole state, `best` its weights where they are the best so far.

        Best first: a kill between the two repeats the epoch and writes the same best again.
        """
        if best is not None:
            self._waiting = epoch, dict(best)
        if time.monotonic() - self._saved_at < self.every_s:
            if best is not None:
                self._waiting = epoch, {name: tensor.detach().clone() for name, tensor in best.items()}
            return
        if self._waiting is not None:
            number, weights = self._waiting
            checkpoint.save(self.folder / "best.safetensors", weights, {"epoch": number})
            self._waiting = None
        tensors, state = last()
        checkpoint.save(self.folder / "last.safetensors", tensors, state)
        self._saved_at = time.monotonic()

    def last(self) -> tuple[Tensors, dict[str, Any]] | None:
        """The last epoch that was written; None where there is none yet."""
        path = self.folder / "last.safetensors"
        return checkpoint.load(path) if path.is_file() else None

    def best(self) -> Tensors:
        """The weights of the best epoch."""
        return self._waiting[1] if self._waiting else checkpoint.load(self.folder / "best.safetensors")[0]
