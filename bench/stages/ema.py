"""An exponential moving average of a model's weights."""

from __future__ import annotations

import copy

import torch

__all__ = ["Average"]


class Average:
    """A copy of a model whose floating-point weights and buffers follow it slowly.

    The decay rises from 0.1 to its final value over the first steps, min(decay, (1 + n) / (10 + n)), so that short runs
    are not held back by their initial weights (as in TensorFlow's ExponentialMovingAverage and timm's ModelEmaV3).
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).eval()
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Follow the model by one step."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        slow, fast = self.module.state_dict(), model.state_dict()
        floating = [name for name, tensor in slow.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([slow[n] for n in floating], [fast[n] for n in floating], weight)  # as timm does
        for name in slow.keys() - set(floating):
            slow[name].copy_(fast[name])
