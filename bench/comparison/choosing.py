"""Which runs are compared: names of runs, groups and experiments, the latest experiment where none is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.comparison.model import LeftOut
from bench.errors import BenchError
from bench.record import Run, status_of
from bench.run_names import Named, latest_experiment, resolve_all

__all__ = ["Chosen", "Recorded", "choose"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run with what its run.json says."""

    run: Run
    info: Mapping[str, Any]


@dataclass(slots=True)
class Chosen:
    """Runs that have come to their end, those of one entry together, and the others, each with its reason."""

    groups: list[list[Recorded]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def choose(names: Sequence[str], *, split_prefix: str) -> Chosen:
    """The runs that the names stand for, each once: with its group, where that is named as well.

    Raises RecipeError for a name of nothing, or of several things.
    """
    named = resolve_all(names) if names else [latest_experiment()]
    chosen = Chosen()
    seen: dict[Path, str] = {}
    for one in sorted(named, key=lambda one: one.is_run):
        groups: dict[Any, list[Recorded]] = {}
        for run in one.runs:
            within = seen.get(run.folder)
            if within is None:
                seen[run.folder] = one.name
                _place(run, one, groups, chosen.left_out, split_prefix)
            elif one.is_run and within != one.name:
                chosen.left_out.append(LeftOut(run.name, run.folder.parent.name, f"is compared as part of {within}"))
        chosen.groups += groups.values()
    return chosen


def _place(
    run: Run, named: Named, groups: dict[Any, list[Recorded]], left_out: list[LeftOut], split_prefix: str
) -> None:
    """Put a run into its group, or among those that are left out."""
    experiment = run.folder.parent.name
    try:
        info = _read(run)
        reason = _why_not(info, named, split_prefix)
    except BenchError as error:
        info, reason = {}, str(error).removeprefix(f"{run.folder}: ")
    if reason:
        left_out.append(LeftOut(run.name, experiment, reason))
        return
    key = run.folder if named.is_run else (run.folder.parent, info["group"], info.get("trial"))
    groups.setdefault(key, []).append(Recorded(run, info))


def _read(run: Run) -> Mapping[str, Any]:
    """run.json; of a finished run with what it was measured on. Raises BenchError where it is damaged."""
    info = run.info()
    return run.info("metrics", "dataset") if info["status"] == "finished" else info


def _why_not(info: Mapping[str, Any], named: Named, prefix: str) -> str:
    """Why a run is no part of the comparison; '' where it is."""
    is_named = named.kind in {"run", "group"}
    if "trial" in info and not is_named:
        return f"a trial of the search {info.get('study', '')!r}; name it to compare it".replace(" ''", "")
    if "reproduces" in info and not is_named:
        return f"a reproduction of {info['reproduces']}; name it to compare it"
    status = "still running" if (state := status_of(info)) == "running" else state
    if status != "finished":
        error = str(info.get("error") or "")
        return status if not error or status == "interrupted" else f"{status}: {error.splitlines()[0]}"
    accuracy = info["metrics"].get(f"{prefix}_accuracy")
    if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
        other = "; --split validation compares it" if prefix == "test" and "val_accuracy" in info["metrics"] else ""
        return f"has no accuracy of its {'test' if prefix == 'test' else 'validation'} split{other}"
    return ""
