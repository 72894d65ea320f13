"""Logistic regression on pixels: the floor that any network has to beat."""

import math

from torch import nn

from bench.kinds import DataSpec

__all__ = ["linear"]


def linear(spec: DataSpec) -> nn.Module:
    """Logistic regression on the pixels.

    Images N,C,H,W -> logits N,num_classes. 64 x 64 x 3 and 10 classes: 122,890 parameters.
    """
    num_pixels = spec.channels * math.prod(spec.image_size)
    return nn.Sequential(nn.Flatten(), nn.Linear(num_pixels, spec.num_classes))
