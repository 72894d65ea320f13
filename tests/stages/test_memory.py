"""Out of memory: recognised, and answered with a batch size that fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.stages.batches import Batches, Preprocessing
from bench.stages.image_set import ImageSet
from bench.stages.memory import explain, fitting_batch_size, is_out_of_memory
from bench.stages.optim import make_loss
from bench.tables import Train

_LOSS = make_loss(Train(), (50, 50), torch.device("cpu"))


class Hungry(nn.Module):
    """Fits up to a number of images."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 2)
        self.norm = nn.BatchNorm1d(2)
        self.most, self.error = most, error

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.most:
            raise self.error
        return self.norm(self.linear(images.flatten(1)))  # type: ignore[no-any-return]


def batches() -> Batches:
    rows = np.arange(100)
    images = ImageSet(np.zeros((100, 4, 4, 1), np.uint8), rows, rows % 2, tuple(map(str, rows)))
    return Batches(images, Preprocessing((0.0,), (1.0,), torch.contiguous_format), 2, 64, torch.device("cpu"))


def huge_tensor() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def huge_array() -> None:
    np.zeros(2**60, dtype=np.uint8)


@pytest.mark.parametrize("allocate", [huge_tensor, huge_array])
def test_real_failures_are_recognised(allocate: Any) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as error:
        allocate()
    assert is_out_of_memory(error.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("not enough memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_other_errors_are_not(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(("most", "fits"), [(63, 32), (32, 32), (31, 16), (3, 2), (1, 1), (0, None)])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no"), MemoryError()])
def test_the_largest_halving_that_fits(most: int, fits: int | None, error: Exception) -> None:
    model, given = Hungry(most, error), batches()
    assert fitting_batch_size(model, given, _LOSS, given.batch_size) == fits
    assert given.batch_size == 64
    assert all(parameter.grad is None for parameter in model.parameters())


def test_another_error_is_raised() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        fitting_batch_size(Hungry(3, RuntimeError("shapes")), batches(), _LOSS, 10)


class HungryTwin(Hungry):
    """Fits up to a number of pairs."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        assert first.shape == second.shape
        return super().forward(first)[:, :1] - super().forward(second)[:, :1]


def pairs() -> Batches:
    given = batches()
    rows = np.stack([np.arange(100), np.arange(100)[::-1]], 1)
    return replace(given, images=replace(given.images, rows=rows))


@pytest.mark.parametrize(("most", "fits"), [(32, 32), (31, 16), (1, 1), (0, None)])
def test_pairs_are_halved_as_pairs(most: int, fits: int | None) -> None:
    loss = make_loss(Train(loss="bce"), (50, 50), torch.device("cpu"))
    model = HungryTwin(most, MemoryError())
    assert fitting_batch_size(model, pairs(), loss, 64, task="verification") == fits


def test_the_error_names_the_batch_size_of_pairs() -> None:
    loss = make_loss(Train(loss="bce"), (50, 50), torch.device("cpu"))
    told = explain(MemoryError(), HungryTwin(20, MemoryError()), pairs(), loss, task="verification")
    assert str(told) == "out of memory with batches of 64; 16 fits"
    nothing = explain(MemoryError(), HungryTwin(0, MemoryError()), pairs(), loss, task="verification")
    assert str(nothing) == "out of memory, even with batches of 1"
    other = ValueError("no")
    assert explain(other, HungryTwin(0, MemoryError()), pairs(), loss) is other


def test_a_model_without_gradients_is_tried_too() -> None:
    model = Hungry(16, MemoryError()).requires_grad_(requires_grad=False)
    assert fitting_batch_size(model, batches(), _LOSS, 64) == 16
