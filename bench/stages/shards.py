"""Which part of each batch, and of each held-out split, a process takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Shard", "in_steps"]


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `of` consecutive parts whose sizes differ by 1 at most. A pair of images is never divided."""

    index: int
    of: int

    def rows(self, count: int) -> slice:
        """Its part of so many samples; empty where they are fewer than the parts."""
        return slice(self.index * count // self.of, (self.index + 1) * count // self.of)

    def size(self, batch_size: int) -> int:
        """The most samples of a batch that a part may have."""
        return -(-batch_size // self.of)

    def cut(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Its part of a batch's inputs and n targets; of pairs the inputs are 2n, first images before second ones."""
        count = len(targets)
        rows = self.rows(count)
        if len(inputs) == count:
            return inputs[rows], targets[rows]
        return torch.cat([inputs[:count][rows], inputs[count:][rows]]), targets[rows]


def in_steps(order: torch.Tensor, batch_size: int, steps: int) -> list[torch.Tensor]:
    """The positions of each batch, in an order of all."""
    return [order[step * batch_size : (step + 1) * batch_size] for step in range(steps)]
