"""Which epochs lie on the disk."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.stages import checkpoint
from bench.stages.keeping import Keeper


def _weights(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2,), value)}


def _last(epoch: int) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    return _weights(epoch), {"epoch": epoch}


def test_every_epoch_is_written_by_default(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.save(1, best=_weights(1), last=lambda: _last(1))
    keeper.save(2, best=None, last=lambda: _last(2))
    assert checkpoint.load(tmp_path / "last.safetensors")[1] == {"epoch": 2}
    assert checkpoint.load(tmp_path / "best.safetensors")[1] == {"epoch": 1}
    assert keeper.best()["weight"].tolist() == [1, 1]


def test_a_short_training_writes_nothing_and_knows_its_best_epoch(tmp_path: Path) -> None:
    keeper, weights = Keeper(tmp_path, every_s=60), _weights(1)
    keeper.save(1, best=weights, last=lambda: _last(1))
    weights["weight"].add_(5)  # training goes on in place
    keeper.save(2, best=None, last=lambda: _last(2))
    assert list(tmp_path.iterdir()) == []
    assert keeper.best()["weight"].tolist() == [1, 1]
    assert keeper.last() is None


def test_what_waited_is_written_with_the_next_checkpoint(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, every_s=60)
    keeper.save(1, best=_weights(1), last=lambda: _last(1))
    keeper.every_s = 0
    keeper.save(2, best=None, last=lambda: _last(2))
    found = Keeper(tmp_path)
    assert checkpoint.load(tmp_path / "best.safetensors")[1] == {"epoch": 1}
    assert found.best()["weight"].tolist() == [1, 1]
    assert (found.last() or ({}, {}))[1] == {"epoch": 2}
