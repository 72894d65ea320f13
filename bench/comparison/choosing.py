"""Which runs are compared: names of runs, groups and experiments, the latest experiment where none is given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import record
from bench.comparison.model import LeftOut
from bench.errors import BenchError, RecipeError
from bench.record import Run
from bench.registry import near_miss

__all__ = ["Chosen", "Recorded", "choose"]

#: What stands behind a group in the names of its runs: trial, fold, seed.
_BEHIND = re.compile(r"(-t\d+)?(-f\d+)?-s\d+$")


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


@dataclass(frozen=True, slots=True)
class _Named:
    """What one name stands for. `alone`: a run that somebody wants as it is; `trials`: those of a search are meant."""

    runs: tuple[Run, ...]
    alone: bool = False
    trials: bool = False


def choose(names: Sequence[str], *, split_prefix: str) -> Chosen:
    """The runs that the names stand for, each once. Raises RecipeError for a name of nothing, or of several things."""
    known = list(record.list_runs())
    named = [_find(name, known) for name in names] if names else [_latest(known)]
    chosen = Chosen()
    seen: set[Path] = set()
    for one in named:
        groups: dict[Any, list[Recorded]] = {}
        for run in one.runs:
            if run.folder not in seen:
                seen.add(run.folder)
                _place(run, one, groups, chosen.left_out, split_prefix)
        chosen.groups += groups.values()
    return chosen


def _place(
    run: Run, named: _Named, groups: dict[Any, list[Recorded]], left_out: list[LeftOut], split_prefix: str
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
    key = run.folder if named.alone else (run.folder.parent, info["group"], info.get("trial"))
    groups.setdefault(key, []).append(Recorded(run, info))


def _read(run: Run) -> Mapping[str, Any]:
    """run.json, as far as it is what it must be. Raises BenchError where it is not."""
    info: Any = run.info()
    kinds = {"status": str, "experiment": str, "group": str, "seed": int}
    wrong = [key for key, kind in kinds.items() if not isinstance(info, dict) or not isinstance(info.get(key), kind)]
    if not wrong and info["status"] == "finished":
        wrong += [key for key in ("metrics", "dataset") if not isinstance(info.get(key), dict)]
    if wrong:
        raise BenchError(f"damaged run.json: no {', '.join(wrong)}")
    found: Mapping[str, Any] = info
    return found


def _why_not(info: Mapping[str, Any], named: _Named, prefix: str) -> str:
    """Why a run is no part of the comparison; '' where it is."""
    if "trial" in info and not (named.alone or named.trials):
        return f"a trial of the search {info.get('study', '')!r}; name it to compare it".replace(" ''", "")
    if "reproduces" in info and not named.alone:
        return f"a reproduction of {info['reproduces']}; name it to compare it"
    status = info["status"]
    if status == "running":
        status = "still running" if record.is_alive(info.get("process") or {}) else "interrupted"
    if status != "finished":
        error = str(info.get("error") or "")
        return status if not error or status == "interrupted" else f"{status}: {error.splitlines()[0]}"
    accuracy = info["metrics"].get(f"{prefix}_accuracy")
    if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
        other = "; --split validation compares it" if prefix == "test" and "val_accuracy" in info["metrics"] else ""
        return f"has no accuracy of its {'test' if prefix == 'test' else 'validation'} split{other}"
    return ""


def _latest(known: Sequence[Run]) -> _Named:
    if not known:
        raise RecipeError(
            f"no runs in {record.runs_folder()}",
            hint="start with bench run recipes/quickstart.toml, or set BENCH_RUNS to where they are",
        )
    folder = known[-1].folder.parent
    return _Named(tuple(run for run in known if run.folder.parent == folder))


def _find(name: str, known: Sequence[Run]) -> _Named:
    """What a name stands for: a run's folder, an experiment, a run, a group, a folder of runs, the start of a name."""
    path = Path(name)
    if (path / "run.json").is_file():
        return _Named((Run(path.resolve()),), alone=True)
    experiment = record.folder_of(name, "").resolve() if name else None
    exact = tuple(run for run in known if name in {run.name, f"{run.folder.parent.name}/{run.name}"})
    begun = tuple(run for run in known if name and run.name.startswith(name))
    one_group = len(begun) > 1 and len({(run.folder.parent, _group_of(run)) for run in begun}) == 1
    ways = (
        _Named(tuple(run for run in known if run.folder.parent == experiment)),
        _one(name, exact) if exact else None,
        _Named(tuple(run for run in known if name and _group_of(run) == name), trials=True),
        _Named(_inside(path) if name and path.is_dir() else ()),
        _Named(begun, trials=True) if one_group else None,
    )
    return next((found for found in ways if found and found.runs), None) or _one(name, begun)


def _one(name: str, runs: Sequence[Run]) -> _Named:
    if len(runs) == 1:
        return _Named((runs[0],), alone=True)
    if not runs:
        places = sorted(path.name for path in record.runs_folder().glob("*") if path.is_dir())
        raise RecipeError(
            f"no run, group or experiment {name!r} in {record.runs_folder()}{near_miss(name, places)}",
            hint="bench runs lists them",
        )
    names = ", ".join(f"{run.folder.parent.name}/{run.name}" for run in runs[:5])
    raise RecipeError(f"{name!r} fits {len(runs)} runs: {names}", hint="give more of the name, or its experiment")


def _group_of(run: Run) -> str:
    return _BEHIND.sub("", run.name)


def _inside(folder: Path) -> tuple[Run, ...]:
    return tuple(Run(path.parent.resolve()) for path in sorted(folder.glob("*/run.json")))
