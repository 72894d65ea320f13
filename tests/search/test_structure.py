"""What of a built model decides its speed and size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from bench.search.structure import structure


class Thinning(nn.Module):
    """Keeps a share of its input, as token pruning does: no tensor's shape and no class says so."""

    def __init__(self, keep: Any) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values[:, : int(self.keep * values.shape[1])]


def network(rate: float = 0.1, width: int = 4, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3, stride=stride), nn.Dropout(rate), nn.Flatten())


def test_a_dropout_rate_is_left_out_and_nothing_else() -> None:
    assert structure(network(rate=0.3)) == structure(network()) is not None
    assert structure(network(width=5)) != structure(network())
    assert structure(network(stride=2)) != structure(network())


def test_a_number_that_only_forward_reads_counts() -> None:
    assert structure(Thinning(0.5)) == structure(Thinning(0.5)) is not None
    assert structure(Thinning(0.5)) != structure(Thinning(0.7))


def _closure() -> Callable[[], float]:
    share = 0.5
    return lambda: share


@pytest.mark.parametrize("hidden", [_closure(), object(), {1, 2}])
def test_what_cannot_be_written_down_is_not_guessed(hidden: Any) -> None:
    assert structure(nn.Sequential(Thinning(hidden))) is None
