"""A toy model."""

from torch import nn

from bench.kinds import DataSpec


def toy(spec: DataSpec, *, width: int = 16) -> nn.Module:
    """One convolution, averaged over the image."""
    convolution = nn.Conv2d(spec.channels, width, 3, padding=1)
    head = nn.Linear(width, spec.num_classes)
    return nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
