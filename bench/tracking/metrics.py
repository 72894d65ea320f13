"""A run's metrics as MLflow keeps them: the curves of the epochs, and the final ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from bench.record import Run

__all__ = ["final", "milliseconds", "points"]


def final(run: Run, info: Mapping[str, Any], *, model_id: str | None = None) -> list[Metric]:
    """A final metric that has a curve is its last point; any other is at step 0, which MLflow draws as a bar a run."""
    values, lines = info.get("metrics") or {}, run.epochs()
    # Later than the last epoch, though the end is recorded in whole seconds: the latest value is the one that is shown.
    ended = max(milliseconds(info["ended"]), *(line["time"] + 1 for line in lines[-1:]), 0)
    curves = {name for line in lines for name in line["values"]}
    last = max((line["epoch"] for line in lines), default=0)
    ends = {name: value for name, value in values.items() if name in curves}
    bars = {name: value for name, value in values.items() if name not in curves}
    return points(bars, ended, 0, model_id=model_id) + points(ends, ended, last, model_id=model_id)


def points(values: Mapping[str, Any], time_ms: int, step: int, *, model_id: str | None = None) -> list[Metric]:
    """Accuracy first, as MLflow's plots begin with the first metric. What is no number spoils them, and is left out."""
    from mlflow.entities import Metric

    numbers = {name: value for name, value in values.items() if isinstance(value, int | float) and math.isfinite(value)}
    order = sorted(numbers, key=lambda name: (not name.endswith("_accuracy"), not name.startswith(("test_", "val_"))))
    return [Metric(name, float(numbers[name]), time_ms, step, model_id=model_id) for name in order]


def milliseconds(moment: str) -> int:
    """A recorded moment as Unix milliseconds."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
