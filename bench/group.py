"""What several runs of one recipe come to: the mean over seeds with its interval, over folds with its standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.statistics import mean_and_standard_error, mean_interval

__all__ = ["summarise"]


def summarise(infos: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Split ("test", "val") -> the mean accuracy of at least two runs, from what their run.json say.

    Over seeds it comes with `low` and `high`, its 95 % interval by Student's t. Over folds it comes with its
    `standard_error`, as LFW's protocol asks; several seeds of one fold are averaged first, as they share their test pairs.
    """
    metrics = [info["metrics"] for info in infos]
    prefixes = [prefix for prefix in ("test", "val") if f"{prefix}_accuracy" in metrics[0]]
    folds = sorted({info["fold"] for info in infos if "fold" in info})
    found: dict[str, dict[str, float]] = {}
    for prefix in prefixes:
        values = [each[f"{prefix}_accuracy"] for each in metrics]
        if len(folds) > 1:
            of_fold = [[v for v, info in zip(values, infos, strict=True) if info["fold"] == fold] for fold in folds]
            mean, error = mean_and_standard_error([sum(part) / len(part) for part in of_fold])
            found[prefix] = {"mean": mean, "standard_error": error, "folds": float(len(folds))}
        else:
            mean, low, high = mean_interval(values)
            found[prefix] = {"mean": mean, "low": max(low, 0.0), "high": min(high, 1.0)}
    return found
