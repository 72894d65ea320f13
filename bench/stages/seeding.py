"""Randomness: every generator has a purpose, is seeded from the run's seed, and can be saved and restored."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["Generators", "derive"]


def derive(seed: int, purpose: str) -> int:
    """A seed of its own (63 bits) for each purpose of a run."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(slots=True)
class Generators:
    """The three sources of randomness in a run.

    `shuffle` (CPU) orders the images, `augment` (on the training device) draws augmentations, and torch's global
    generators, seeded here too, serve initialisation and dropout.
    """

    shuffle: torch.Generator
    augment: torch.Generator
    device: torch.device
    seed: int

    @classmethod
    def start(cls, seed: int, device: torch.device) -> Generators:
        """Seed everything for one run; Python's and numpy's generators too, for plugins that use them."""
        random.seed(derive(seed, "python"))
        np.random.seed(derive(seed, "numpy") % 2**32)  # noqa: NPY002  # plugins may use the global one
        torch.manual_seed(derive(seed, "torch"))
        shuffle = torch.Generator().manual_seed(derive(seed, "shuffle"))
        augment = torch.Generator(device).manual_seed(derive(seed, "augment"))
        return cls(shuffle, augment, device, seed)

    def own(self, *, process: int, epoch: int) -> None:
        """Give one of several processes a dropout of its own. Seeded by the epoch, it needs no place in a checkpoint."""
        torch.manual_seed(derive(self.seed, f"torch, process {process}, epoch {epoch}"))

    def state(self) -> dict[str, torch.Tensor]:
        """Every generator's state as byte tensors."""
        states = {
            "shuffle": self.shuffle.get_state(),
            "augment": self.augment.get_state(),
            "torch": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def restore(self, states: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.shuffle.set_state(states["shuffle"])
        self.augment.set_state(states["augment"])
        torch.set_rng_state(states["torch"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self.device)
