"""What a run.json must be, checked here alone: whoever reads those of many runs is told which ones are damaged.

A reader finds every entry below of the type that it has here; whether one is there that not every run has, it asks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.record import Run

__all__ = ["STATUSES", "left_out", "read_info", "readable"]

STATUSES = ("running", "finished", "failed", "interrupted", "pruned")

#: What every run.json has.
_ALWAYS: Mapping[str, type] = {"status": str, "experiment": str, "group": str, "seed": int}

#: What it may have; entries that are not named here are of no other reader's interest, and may be anything.
_SOMETIMES: Mapping[str, type] = {
    **dict.fromkeys(("id", "created", "ended", "recipe", "recipe_digest", "objective", "error"), str),
    **dict.fromkeys(("study", "parent", "reproduces"), str),
    **dict.fromkeys(("fold", "trial", "winner"), int),
    **dict.fromkeys(("process", "dataset", "environment", "git", "metrics", "params", "costs"), dict),
    "plugins": list,
}

#: How many damaged runs are named.
_SHOWN = 3

_HINT = "restore it from a copy (MLflow keeps that of a run that has ended), or remove the run's folder"


def read_info(folder: Path, *needed: str) -> dict[str, Any]:
    """What the run.json of a run's folder says, `needed` entries among it.

    Raises BenchError where it is missing or damaged, or lacks one of them.
    """
    try:
        values: Any = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
        raise BenchError(f"{folder}: no readable run.json: {cause}", hint=_HINT) from cause
    if lacking := _lacking(values, needed):
        raise BenchError(f"{folder}: damaged run.json: no {', '.join(lacking)}", hint=_HINT)
    found: dict[str, Any] = values
    return found


def readable(
    runs: Iterable[Run], damaged: list[Run] | None = None, *, needed: Sequence[str] = ()
) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Each run with what its run.json says; the others are added to `damaged`, and are in nobody's way."""
    for run in runs:
        try:
            info = run.info(*needed)
        except BenchError:
            if damaged is not None:
                damaged.append(run)
        else:
            yield run, info


def left_out(damaged: Sequence[Run]) -> str:
    """A line that names runs whose run.json is damaged; "" where there are none."""
    names = [f"{run.folder.parent.name}/{run.name}" for run in damaged]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"left out, damaged run.json: {', '.join(names[:_SHOWN])}{more}" if names else ""


def _lacking(values: Any, needed: Sequence[str]) -> list[str]:
    """The entries that are missing or of another type."""
    if not isinstance(values, dict):
        return list(_ALWAYS)
    wrong = [key for key, kind in _ALWAYS.items() if not isinstance(values.get(key), kind)]
    wrong += [key for key, kind in _SOMETIMES.items() if key in values and not isinstance(values[key], kind)]
    wrong += [key for key in needed if key not in values]
    if not wrong and values["status"] not in STATUSES:
        wrong.append("known status")
    if not wrong and not all(isinstance(value, int | float) for value in values.get("metrics", {}).values()):
        wrong.append("numbers as metrics")
    return list(dict.fromkeys(wrong))
