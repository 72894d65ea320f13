"""Every generator is seeded for its purpose, and can be saved and restored."""

from __future__ import annotations

import random

import numpy as np
import torch

from bench.stages.seeding import Generators, derive

_CPU = torch.device("cpu")


def draw(generators: Generators) -> list[float]:
    return [
        torch.rand(1, generator=generators.shuffle).item(),
        torch.rand(1, generator=generators.augment).item(),
        torch.rand(1).item(),
        torch.nn.functional.dropout(torch.ones(64)).sum().item(),
    ]


def test_each_purpose_and_seed_has_its_own_stream() -> None:
    purposes = ("shuffle", "augment", "torch", "numpy", "python", "views")
    seeds = {derive(seed, purpose) for seed in range(100) for purpose in purposes}
    assert len(seeds) == 600
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(0, "shuffle") == derive(0, "shuffle")
    assert len(set(draw(Generators.start(0, _CPU)))) == 4


def test_a_seed_decides_everything() -> None:
    drawn = []
    for seed in (3, 3, 4):
        generators = Generators.start(seed, _CPU)
        drawn.append([*draw(generators), random.random(), np.random.random()])  # noqa: NPY002  # what plugins may use
    assert drawn[0] == drawn[1]
    assert not set(drawn[0][:3]) & set(drawn[2][:3])


def test_a_state_goes_on_where_it_was_taken() -> None:
    generators = Generators.start(0, _CPU)
    draw(generators)
    state = generators.state()
    expected = [draw(generators), draw(generators)]
    assert set(state) == {"shuffle", "augment", "torch"}
    assert all(tensor.dtype is torch.uint8 for tensor in state.values())
    fresh = Generators.start(99, _CPU)
    fresh.restore(state)
    assert [draw(fresh), draw(fresh)] == expected
