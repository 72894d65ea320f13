"""A run's learning curves as they were recorded, whatever state the run is in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.record import status_of
from bench.run_info import readable

if TYPE_CHECKING:
    from bench.record import Run

__all__ = ["History", "read_histories", "read_history"]


@dataclass(frozen=True, slots=True)
class History:
    """A run's values by name, one for each of `epochs`; NaN where an epoch has none. `best_epoch` is 0 for none."""

    name: str
    experiment: str
    status: str
    epochs: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]
    best_epoch: int
    planned: int

    def points(self, metric: str) -> list[tuple[float, float]]:
        """(epoch, value) of a metric; [] where the run does not have it."""
        return [(float(x), y) for x, y in zip(self.epochs, self.values.get(metric, ()), strict=False)]

    def best(self, metric: str) -> float:
        """The metric in the best epoch; NaN where there is none."""
        return dict(self.points(metric)).get(float(self.best_epoch), math.nan)


def read_history(run: Run) -> History:
    """A run's learning curves, from metrics.jsonl. Where it has not ended, its best epoch is found as in training."""
    return _history(run, run.info())


def read_histories(runs: Iterable[Run]) -> tuple[list[History], list[Run]]:
    """(the learning curves of several runs, those whose run.json is damaged). Raises BenchError where all of them are."""
    damaged: list[Run] = []
    found = [_history(run, info) for run, info in readable(runs, damaged)]
    if damaged and not found:
        damaged[0].info()  # raises what is wrong with it
    return found, damaged


def _history(run: Run, info: Mapping[str, Any]) -> History:
    lines = run.epochs()
    names = {name: None for line in lines for name in line["values"] if "/" not in name}
    values = {name: tuple(float(line["values"].get(name, math.nan)) for line in lines) for name in names}
    numbers = tuple(int(line["epoch"]) for line in lines)
    best = int((info.get("metrics") or {}).get("best_epoch", 0)) if info["status"] == "finished" else 0
    return History(
        name=run.name,
        experiment=info["experiment"],
        status=status_of(info),
        epochs=numbers,
        values=values,
        best_epoch=best or _best_epoch(numbers, values, str(info.get("objective") or "val_accuracy")),
        planned=_planned(run),
    )


def _best_epoch(numbers: Sequence[int], values: Mapping[str, Sequence[float]], monitor: str) -> int:
    """The first best epoch by the monitor, then by the lower validation loss; 0 where there is no epoch."""
    from bench.tables import larger_is_better

    known = monitor if monitor in values else "train_loss"
    if known not in values:
        return 0
    sign = 1 if larger_is_better(known) else -1
    losses = values.get("val_loss", (0.0,) * len(numbers))
    ranks = [
        (sign * value if math.isfinite(value) else -math.inf, -loss)
        for value, loss in zip(values[known], losses, strict=True)
    ]
    return numbers[ranks.index(max(ranks))]


def _planned(run: Run) -> int:
    """How many epochs the run was to have; 0 where its plan cannot be read."""
    try:
        return int(json.loads((run.folder / "plan.json").read_text(encoding="utf-8"))["epochs"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
