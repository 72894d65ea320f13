"""A study in words and numbers for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.console import duration

__all__ = [
    "counts",
    "is_share",
    "missed_text",
    "name_of",
    "none_text",
    "params_text",
    "pruning",
    "setting",
    "time_spent",
    "value_text",
]

_NAMES = {"latency_ms": "latency, ms", "size_mb": "size, MB", "parameters": "parameters", "macs": "MACs"}
_SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "eer")
_MANY = 10_000


def name_of(metric: str) -> str:
    """An objective for people; parameters keep their recipe keys."""
    if metric.startswith("val_"):
        return "validation " + metric.removeprefix("val_").replace("_", " ")
    return _NAMES.get(metric, metric)


def is_share(metric: str) -> bool:
    """Whether a metric is told in per cent."""
    return metric.removeprefix("val_").removeprefix("test_") in _SHARES


def value_text(metric: str, value: float) -> str:
    """99.31%, 0.412, 1,234,567."""
    if is_share(metric):
        return f"{value:.2%}"
    return f"{value:,.0f}" if abs(value) >= _MANY else f"{value:.4g}"


def setting(value: Any) -> str:
    """A parameter's value: numbers with four digits, words as they are."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def none_text(states: Mapping[str, int]) -> str:
    """Why there is no best trial, from how many were pruned and have failed."""
    ended = [f"{states[name]:,} {name}" for name in ("pruned", "failed") if states[name]]
    return f"no trial has come to its end: {', '.join(ended)}" if ended else "no trial has come to its end yet"


def params_text(params: Mapping[str, Any], width: int | None = None) -> str:
    """lr=0.003, width=32: the last part of each key, the whole one where that is not unique.

    Where they are wider than `width`, as many as fit, and an ellipsis.
    """
    last = [key.rpartition(".")[2] for key in params]
    names = [short if last.count(short) == 1 else key for short, key in zip(last, params, strict=True)]
    parts = [f"{name}={setting(value)}" for name, value in zip(names, params.values(), strict=True)]
    text = ", ".join(parts)
    while width is not None and len(text) > width and parts:
        parts.pop()
        text = ", ".join([*parts, "…"])
    return text


def counts(summary: Mapping[str, Any]) -> str:
    """50 trials: 31 complete, 14 pruned, ..."""
    states = {name: count for name, count in summary["states"].items() if count}
    total = sum(states.values())
    text = ", ".join(f"{count:,} {name}" for name, count in states.items())
    return f"{total:,} trial{'' if total == 1 else 's'}" + (f": {text}" if text else "")


def time_spent(summary: Mapping[str, Any]) -> str:
    """41:20 of trials in 22:03 from the first to the last."""
    return f"{duration(summary['seconds'])} of trials within {duration(summary['wall_seconds'])}"


def pruning(summary: Mapping[str, Any]) -> str:
    """How many epochs were trained, and what pruning saved."""
    epochs = summary["epochs"]
    if not epochs["trained"]:
        return ""
    text = f"{epochs['trained']:,} epochs trained"
    if epochs["pruned_after"]:
        low, middle, high = epochs["pruned_after"]
        after = f"{low}" if low == high else f"{low} to {high} (median {middle})"
        text += f"; pruned after {after} epoch{'' if high == 1 else 's'}"
    if epochs["unpruned"] > epochs["trained"]:
        share = epochs["trained"] / epochs["unpruned"]
        text += f"; that is {share:.0%} of the {epochs['unpruned']:,} without pruning"
    return text


def missed_text(constraints: Mapping[str, float]) -> str:
    """Which constraints a trial misses, from what it was told of each (the excess in the metric's unit)."""
    from bench.search.objectives import parse_constraint

    parts = []
    for name, excess in constraints.items():
        if excess > 0:
            limit = parse_constraint(name)
            value = limit.limit + (excess if limit.sign[0] == "<" else -excess)
            parts.append(f"{name} with {value_text(limit.metric, value)}")
    return " and ".join(parts)


def winner_text(winner: Mapping[str, Any]) -> str:
    """What retraining a trial came to."""
    parts = []
    for prefix, name in (("test", "test"), ("val", "validation")):
        if found := winner["accuracy"].get(prefix):
            ends = (
                f"± {found['standard_error']:.2%} over {found['folds']:.0f} folds"
                if "standard_error" in found
                else f"[{found['low']:.2%}, {found['high']:.2%}]"
            )
            parts.append(f"{name} accuracy {found['mean']:.2%} {ends}")
    runs = len(winner["runs"])
    seeds = f"{runs} runs of group {winner['group']}" if runs > 1 else f"run {winner['runs'][0]}"
    return f"Trial {winner['trial']}: {'; '.join(parts) or 'no accuracy'} ({seeds})."


def reference_text(summary: Mapping[str, Any]) -> str:
    """The hypervolume with its reference point; "" for a single objective."""
    found = summary["hypervolume"]
    if not found:
        return ""
    pairs = zip(summary["objectives"], found["reference"], strict=True)
    corner = ", ".join(f"{name_of(one['metric'])} {value_text(one['metric'], value)}" for one, value in pairs)
    return f"Hypervolume {found['value']:.4g}, up to the worst values seen: {corner}."
