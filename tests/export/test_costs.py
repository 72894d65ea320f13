"""The exporter onnx_costs: the size and the speed of models that nobody has trained yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
import torch
from torch import nn

from bench.errors import BenchError
from bench.kinds import PAIR_CLASSES, DataSpec
from bench.registry import find
from bench_export import costs as module
from bench_export.costs import costs

PICTURES = DataSpec("classification", ("a", "b", "c"), 3, (16, 16))
GREY_PAIRS = DataSpec("verification", PAIR_CLASSES, 1, (12, 16))


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that tests something else beside is never steady."""
    monkeypatch.setattr(module, "_ROUNDS", 2)
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.001)


class Twin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 10 * 14, 8))
        self.head = nn.Linear(8, 1)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """N,C,H,W twice -> N,1."""
        return self.head((self.tower(first) - self.tower(second)).abs())  # type: ignore[no-any-return]


class Branching(nn.Module):
    """What it does hangs on the values of the images: no exporter can follow."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """N,C,H,W -> N,3."""
        found = torch.unique(images.flatten(1).sum(1)).tolist()
        return torch.stack([images.flatten(1)[:, :3] * value for value in found]).sum(0)


def network(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(width * 256, 3))


def test_the_exporter_is_found_by_its_entry_point() -> None:
    assert find("exporters", "onnx_costs").load() is costs


def test_size_alone_is_not_timed() -> None:
    model = network()
    found = costs(model, PICTURES, loss="cross_entropy", timed=False)
    assert list(found) == ["size_mb"]
    weights = sum(parameter.numel() for parameter in model.parameters()) * 4 / 1e6
    assert weights < found["size_mb"] < weights + 0.1  # resizing and normalising stand in the file as well


def test_latency_comes_with_its_blocks_and_grows_with_the_work() -> None:
    small = costs(network(4), PICTURES, loss="cross_entropy")
    large = costs(network(128), PICTURES, loss="cross_entropy")
    timing = small["timing"]
    assert 0 < 3 * small["latency_ms"] < large["latency_ms"]
    assert len(timing["blocks_ms"]) == 7
    assert min(timing["blocks_ms"]) <= small["latency_ms"] <= max(timing["blocks_ms"])
    assert timing["queries"] >= 7 * 6
    assert timing["spread"] >= 0
    assert timing["steady"] == (timing["spread"] <= 0.05 and timing["core_share"] >= 0.95)


def test_offline_is_the_time_of_an_image_and_single_that_of_a_query() -> None:
    offline = costs(network(32), PICTURES, loss="cross_entropy", scenario="offline", batch=16)
    single = costs(network(32), PICTURES, loss="cross_entropy", batch=16)
    assert offline["timing"]["images_a_query"] == single["timing"]["images_a_query"] == 16
    assert offline["latency_ms"] == pytest.approx(sorted(offline["timing"]["blocks_ms"])[3] / 16)
    assert single["latency_ms"] == sorted(single["timing"]["blocks_ms"])[3]
    multi = costs(network(4), PICTURES, loss="cross_entropy", scenario="multi")
    assert multi["timing"]["images_a_query"] == 8


def test_int8_is_a_smaller_file() -> None:
    exact = costs(network(64), PICTURES, loss="cross_entropy", timed=False)
    eight_bits = costs(network(64), PICTURES, loss="cross_entropy", precision="int8")
    assert eight_bits["size_mb"] < 0.5 * exact["size_mb"]
    assert eight_bits["latency_ms"] > 0


def test_int8_of_a_model_without_weights_stays_as_it_is() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert costs(model, PICTURES, loss="cross_entropy", precision="int8", timed=False)["size_mb"] > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_models_of_pairs_are_measured(precision: str) -> None:
    found = costs(Twin(), GREY_PAIRS, loss="bce", precision=precision, batch=2)  # type: ignore[arg-type]
    assert found["latency_ms"] > 0
    assert found["size_mb"] > 0


def test_the_model_stays_as_it_is() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    costs(model, PICTURES, loss="cross_entropy", timed=False)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_that_cannot_be_exported_is_an_error_that_says_why() -> None:
    with pytest.raises(BenchError, match="the model Branching cannot be exported to ONNX") as caught:
        costs(Branching(), PICTURES, loss="cross_entropy")
    assert caught.value.hint is not None


def test_the_clock_runs_only_while_nobody_else_measures() -> None:
    held: list[str] = []

    @contextmanager
    def alone() -> Iterator[None]:
        held.append("taken")
        yield
        held.append("given back")

    assert "timing" in costs(network(4), PICTURES, loss="cross_entropy", alone=alone())
    assert held == ["taken", "given back"]
    held.clear()
    costs(network(4), PICTURES, loss="cross_entropy", alone=alone(), timed=False)
    assert held == []


def waiting(milliseconds: Callable[[int], float]) -> Callable[[], None]:
    """A query that computes for so long; it is told which one it is."""
    numbers = count()

    def query() -> None:
        end = time.perf_counter() + milliseconds(next(numbers)) / 1e3
        while time.perf_counter() < end:
            pass

    return query


def test_blocks_that_disagree_are_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROUNDS", 8)
    monkeypatch.setattr(module, "_BLOCK_S", 0.01)
    monkeypatch.setattr(module, "_WARM_S", 0.001)
    busy = waiting(lambda number: 1.0 + number % 60 / 20 if number < 150 else 1.0)
    found = module._steadiest(busy, 50, single_thread=False)
    assert found.rounds > 1
    assert found.median_ms == pytest.approx(1.0, abs=0.3)


def test_a_core_that_is_shared_is_not_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_S", 0.005)
    monkeypatch.setattr(module, "_WARM_S", 0.001)
    found = module._steadiest(lambda: time.sleep(0.001), 50, single_thread=True)  # the core is somebody else's
    assert found.core_share < 0.5
    assert not found.as_json()["steady"]
    assert found.as_json()["rounds"] <= module._ROUNDS


def test_a_high_percentile_gets_as_many_queries_as_it_needs() -> None:
    assert len(module._spend(lambda: None, 0.0, 299)) == 299
    slow = waiting(lambda number: 1.0 if number % 10 else 3.0)
    assert module._block(slow, 0.5, 40)[0] == pytest.approx(1.0, abs=0.4)
    assert module._block(slow, 0.95, 40)[0] >= 3.0
