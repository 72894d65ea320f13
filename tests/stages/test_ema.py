"""The weights' moving average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.stages.ema import Average


def test_it_follows_by_the_closed_form() -> None:
    model = nn.Linear(3, 2)
    average = Average(model, 0.9)
    expected = model.weight.detach().clone()
    for step in range(1, 120):
        with torch.no_grad():
            model.weight.add_(torch.randn_like(model.weight))
        average.update(model)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
        assert torch.allclose(average.module.weight, expected, atol=1e-5)  # type: ignore[arg-type]
    assert average.steps == 119


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_it_is_a_copy_in_evaluation_mode(decay: float) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout())
    average = Average(model.train(), decay)
    assert not any(module.training for module in average.module.modules())
    before = {name: tensor.clone() for name, tensor in average.module.state_dict().items()}
    model(torch.randn(8, 3))
    with torch.no_grad():
        model[0].weight.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.module.state_dict().items())


def test_statistics_are_averaged_and_counters_copied() -> None:
    model = nn.BatchNorm1d(2)
    average = Average(model, 0.9)
    model.train()(torch.randn(50, 2) + 5)
    average.update(model)
    slow = average.module
    share = 1 - 2 / 11
    assert torch.allclose(slow.running_mean, model.running_mean * share)  # type: ignore[operator,arg-type]
    assert int(slow.num_batches_tracked) == 1  # type: ignore[arg-type]
    assert all(not tensor.grad_fn for tensor in slow.parameters())
