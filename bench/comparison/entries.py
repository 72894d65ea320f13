"""Runs become entries: their figures with intervals, and names that tell them apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PureWindowsPath
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.comparison.costs import costs
from bench.comparison.model import Entry, Kind
from bench.group import summarise
from bench.statistics import wilson_interval

if TYPE_CHECKING:
    from bench.comparison.choosing import Recorded

__all__ = ["entry_of", "kind_of", "labelled"]

#: What the names of runs and groups begin with: when they were started.
_STARTED = re.compile(r"^\d{8}-\d{6}-")


def kind_of(group: Sequence[Recorded]) -> Kind:
    """What the runs of an entry differ in."""
    if len(group) == 1:
        return "run"
    return "folds" if len({one.info.get("fold") for one in group}) > 1 else "seeds"


def entry_of(group: Sequence[Recorded], *, prefix: str) -> Entry:
    """An entry with all that run.json and the exports say; its number, test set and letters are still open."""
    info = group[0].info
    kind = kind_of(group)
    accuracy, interval = _accuracy(group, kind, prefix)
    recipe = PureWindowsPath(str(info.get("recipe") or "")).stem
    name = group[0].run.name
    if kind != "run":
        name = str(info["group"]) + (f"-t{info['trial']:04}" if "trial" in info else "")
    return Entry(
        number=0,
        label=recipe or name,
        name=name,
        kind=kind,
        experiment=info["experiment"],
        recipe=recipe,
        dataset=str(info["dataset"].get("name") or "unknown"),
        runs=tuple(one.run for one in group),
        accuracy=accuracy,
        interval=interval,
        metrics=_metrics(group, prefix),
        costs=costs(group),
    )


def labelled(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with labels that differ: the recipe's name, where that is not enough the end of the run's name, or all
    of it.
    """
    for tail in (_tail, lambda entry: entry.name, lambda entry: f"{entry.runs[0].folder.parent.name}/{entry.name}"):
        count = Counter(entry.label for entry in entries)
        entries = [
            replace(entry, label=f"{entry.recipe} {tail(entry)}".strip()) if count[entry.label] > 1 else entry
            for entry in entries
        ]
    return list(entries)


def _tail(entry: Entry) -> str:
    return _STARTED.sub("", entry.name)


def _accuracy(group: Sequence[Recorded], kind: Kind, prefix: str) -> tuple[float, tuple[float, float]]:
    key = f"{prefix}_accuracy"
    if kind == "run":
        metrics = group[0].info["metrics"]
        accuracy = float(metrics[key])
        ends = [metrics.get(f"{key}_{end}") for end in ("low", "high")]
        if all(isinstance(end, int | float) for end in ends):
            return accuracy, (float(ends[0]), float(ends[1]))
        counts = (group[0].info["dataset"].get("counts") or {}).get("test" if prefix == "test" else "validation") or {}
        total = sum(counts.values())
        return accuracy, wilson_interval(round(accuracy * total), total)
    parts = [
        {"metrics": {key: one.info["metrics"][key]}, **({"fold": one.info["fold"]} if kind == "folds" else {})}
        for one in group
    ]
    found = summarise(parts)[prefix]
    if kind == "folds":
        return found["mean"], (found["mean"] - found["standard_error"], found["mean"] + found["standard_error"])
    return found["mean"], (found["low"], found["high"])


def _metrics(group: Sequence[Recorded], prefix: str) -> Mapping[str, float]:
    """The means of the metrics that all runs have, without the prefix of their split and without intervals' ends."""
    tables: list[Mapping[str, Any]] = [one.info["metrics"] for one in group]
    own = [name for name in tables[0] if name.startswith(f"{prefix}_") and not name.endswith(("_low", "_high"))]
    names = [name for name in own if _is_number(tables[0][name])]
    shared = [name for name in names if all(_is_number(table.get(name)) for table in tables)]
    return {name.removeprefix(f"{prefix}_"): fmean(table[name] for table in tables) for name in shared}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
