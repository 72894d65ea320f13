"""Every "auto" is settled, with a reason, and the model is left alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.plan import Plan
from bench.stages import calibrate as stage
from bench.stages.batches import Batches, Preprocessing
from bench.stages.calibrate import autocast, calibrate
from bench.stages.image_set import ImageSet
from bench.stages.optim import make_loss
from bench.tables import Train

_PLAN = Plan(
    experiment="x",
    seeds=(0,),
    dataset_root="",
    weights="",
    image_size=(8, 8),
    device="cpu",
    precision="fp32",
    memory_format="contiguous",
    threads=1,
    epochs=1,
    batch_size=8,
    normalize="none",
)
_LOSS = make_loss(Train(), (4, 4), torch.device("cpu"))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def plan(**values: Any) -> Plan:
    return _PLAN.decided(**{name: (value, "given") for name, value in values.items()})


def batches() -> Batches:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    rows = np.arange(40)
    given = ImageSet(images, rows, rows % 2, tuple(map(str, rows)))
    return Batches(given, Preprocessing((0.5,) * 3, (0.5,) * 3, torch.contiguous_format), 2, 8, torch.device("cpu"))


def model() -> nn.Module:
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.Flatten(), nn.Linear(288, 2))
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
@pytest.mark.parametrize("memory_format", ["auto", "channels_last"])
@pytest.mark.parametrize("threads", [None, 1])
def test_every_auto_is_settled_with_its_reason(precision: str, memory_format: str, threads: int | None) -> None:
    asked = plan(precision=precision, memory_format=memory_format, threads=threads)
    settled = calibrate(asked, model(), batches(), _LOSS)
    assert settled.precision in stage.PRECISIONS
    assert settled.memory_format in stage.MEMORY_FORMATS
    assert settled.threads == torch.get_num_threads()
    for name, open_ in (("precision", "auto"), ("memory_format", "auto"), ("threads", None)):
        if getattr(asked, name) == open_:
            assert settled.reasons[name].startswith("fastest of a few steps")
        else:
            assert (getattr(settled, name), settled.reasons[name]) == (getattr(asked, name), "given")


def test_the_model_is_left_alone() -> None:
    given = model()
    before = copy.deepcopy(given.state_dict())
    calibrate(plan(precision="auto", memory_format="auto", threads=None), given, batches(), _LOSS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.state_dict().items())
    assert not any(module.training for module in given.modules())
    assert all(parameter.grad is None and parameter.is_contiguous() for parameter in given.parameters())


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ((1.0, 1.0, 1.0, 1.0), ("fp32", "contiguous")),
        ((1.0, 0.9, 1.0, 1.0), ("fp32", "channels_last")),
        ((1.0, 0.9, 0.89, 0.88), ("fp32", "channels_last")),  # bf16 is not worth 2 %
        ((1.0, 0.9, 0.8, 0.5), ("bf16", "channels_last")),
        ((1.0, 0.9, 0.5, 0.8), ("bf16", "contiguous")),
    ],
)
def test_the_fastest_wins_and_fp32_a_tie(
    monkeypatch: pytest.MonkeyPatch, times: tuple[float, ...], chosen: tuple[str, str]
) -> None:
    measured = []

    def fake(*arguments: Any) -> float:
        measured.append(arguments[-2:])
        return times[len(measured) - 1]

    monkeypatch.setattr(stage, "_time_steps", fake)
    settled = calibrate(plan(precision="auto", memory_format="auto"), model(), batches(), _LOSS)
    assert (settled.precision, settled.memory_format) == chosen
    pairs = [(p, f) for p in ("fp32", "bf16") for f in ("contiguous", "channels_last")]
    assert measured == pairs
    rates = ", ".join(f"{p} {f} {8 / seconds:.0f}" for (p, f), seconds in zip(pairs, times, strict=True))
    assert settled.reasons["precision"] == f"fastest of a few steps on cpu (img/s: {rates})"


@pytest.mark.parametrize(("seconds", "threads"), [((1.0, 0.97, 0.93), 1), ((1.0, 0.6, 0.58), 2), ((1.0, 0.6, 0.4), 4)])
def test_a_further_core_must_be_worth_it(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, ...], threads: int
) -> None:
    by_threads = dict(zip((1, 2, 4), seconds, strict=True))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(stage, "_time_steps", lambda *_: by_threads[now[-1]])
    now: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", now.append)
    settled = calibrate(plan(threads=None), model(), batches(), _LOSS)
    assert now == [1, 2, 4, threads]
    shown = ", ".join(f"{count}: {value * 1000:.0f} ms" for count, value in by_threads.items())
    assert (settled.threads, settled.reasons["threads"]) == (threads, f"fastest of a few steps ({shown})")


class Twin(nn.Module):
    def __init__(self, *, trained: bool = True) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).requires_grad_(requires_grad=trained)
        self.sizes: list[int] = []

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(first))
        return (self.net(first) - self.net(second)).square().mean(1, keepdim=True)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("loss", ["bce", "contrastive"])
def test_a_model_of_pairs_is_timed_on_pairs(trained: bool, loss: str) -> None:
    given = batches()
    rows = np.arange(40).reshape(20, 2)
    given = replace(given, images=replace(given.images, rows=rows, labels=np.arange(20) % 2, ids=given.images.ids[:20]))
    twin = Twin(trained=trained)
    asked = plan(precision="auto", memory_format="auto", task="verification")
    settled = calibrate(asked, twin, given, make_loss(Train(loss=loss), (10, 10), torch.device("cpu")))
    assert settled.precision in stage.PRECISIONS
    assert settled.reasons["precision"].startswith("fastest of a few steps")
    assert twin.sizes == []  # only copies are timed
    assert all(parameter.grad is None for parameter in twin.parameters())


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_is_the_precision(precision: str, dtype: torch.dtype) -> None:
    with autocast(torch.device("cpu"), precision):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype is dtype
