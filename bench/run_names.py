"""What a name on the command line stands for: a run, a group of runs, an experiment. Every command asks here.

The first of these that fits counts:

1. the path of a run's folder, one with a run.json
2. an experiment
3. a run's whole name
4. a group: the runs of one `bench run` with several seeds or folds, or the trials of a search
5. the path of a folder of runs
6. the start of runs' names, where only one run has it, or only runs of one group

EXPERIMENT/ before the name of a run or a group, or before its start, looks in that experiment only. A group of one run is
that run. Names are those of folders: no run.json is read, so a damaged one is in nobody's way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from bench.errors import RecipeError
from bench.record import Run, folder_of, runs_folder
from bench.registry import near_miss

__all__ = ["Named", "find", "latest_experiment", "resolve", "resolve_all"]

#: What stands behind a group in the names of its runs: trial, fold, seed.
_BEHIND = re.compile(r"(-t\d+)?(-f\d+)?-s\d+$")

#: How many of those that fit are listed.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Named:
    """What a name stands for; `runs` are oldest first. `name` is a whole one, also where its start was given."""

    name: str
    kind: Literal["run", "group", "experiment", "folder"]
    runs: tuple[Run, ...]

    @property
    def is_run(self) -> bool:
        """Whether one run is meant, as it is and whatever its state."""
        return self.kind == "run"


def resolve(name: str) -> Named:
    """What a name stands for. Raises RecipeError where nothing fits, or several things do."""
    return _resolve(name, _Folders())


def resolve_all(names: Iterable[str]) -> list[Named]:
    """As `resolve`, of several names: the folders are listed once."""
    known = _Folders()
    return [_resolve(name, known) for name in names]


def find(name: str) -> Run:
    """The one run that a name stands for. Raises RecipeError where none or several fit."""
    named = _resolve(name, _Folders(), wanted="run")
    if len(named.runs) > 1:
        shown = _listed([run.name for run in named.runs])
        raise RecipeError(f"{name!r} fits {len(named.runs)} runs: {shown}", hint="name one of them")
    return named.runs[0]


def latest_experiment() -> Named:
    """The experiment of the latest run. Raises RecipeError where there is no run."""
    known = _Folders()
    if not known.all:
        raise RecipeError(
            f"no runs in {runs_folder()}",
            hint="start with bench run recipes/quickstart.toml, or set BENCH_RUNS to where they are",
        )
    latest = known.all[-1].experiment
    return _named(latest, "experiment", _distinct(known.experiments[latest]))


@dataclass(frozen=True, slots=True)
class _Folder:
    """A run's folder and its names; it may be a link to another one."""

    path: Path
    experiment: str
    name: str

    @property
    def group(self) -> str:
        return _BEHIND.sub("", self.name)


class _Folders:
    """The folders of all runs, oldest first; listed once, and only where they are needed."""

    @cached_property
    def all(self) -> tuple[_Folder, ...]:
        paths = (file.parent for file in runs_folder().glob("*/*/run.json"))
        found = (_Folder(path, path.parent.name, path.name) for path in paths)
        return tuple(sorted(found, key=lambda folder: (folder.name, folder.experiment)))

    @cached_property
    def experiments(self) -> dict[str, list[_Folder]]:
        found: dict[str, list[_Folder]] = {}
        for folder in self.all:
            found.setdefault(folder.experiment, []).append(folder)
        return found

    def of_experiment(self, name: str) -> Sequence[_Folder]:
        """Those of an experiment, by its name or by that of its folder, where special characters are replaced."""
        if not name.strip("./ "):
            return ()
        return self.experiments.get(name) or self.experiments.get(folder_of(name, "").name) or ()

    def around(self, name: str) -> tuple[Sequence[_Folder], str]:
        """(where to look, what for)."""
        experiment, slash, rest = name.rpartition("/")
        return (self.of_experiment(experiment) if slash else self.all), rest


def _resolve(name: str, known: _Folders, *, wanted: str = "run, group or experiment") -> Named:
    """What a name stands for; `wanted` is what an error says is missing."""
    short = name.rstrip("/") or name
    if short and (found := _first(short, known)):
        return found
    raise RecipeError(f"no {wanted} {name!r} in {runs_folder()}{_nearest(short, known)}", hint="bench runs lists them")


def _first(name: str, known: _Folders) -> Named | None:
    """The rule at the top of this module."""
    return (
        _by_path(name)
        or _by_experiment(name, known)
        or _by_whole_name(name, known)
        or _by_group(name, known)
        or _by_folder(name)
        or _by_start(name, known)
    )


def _by_path(name: str) -> Named | None:
    try:
        return _run(Path(name)) if (Path(name) / "run.json").is_file() else None
    except OSError:  # too long for a path
        return None


def _by_experiment(name: str, known: _Folders) -> Named | None:
    folders = _distinct(known.of_experiment(name))
    return _named(name, "experiment", folders) if folders else None


def _by_whole_name(name: str, known: _Folders) -> Named | None:
    folders, rest = known.around(name)
    fits = _distinct(folder for folder in folders if folder.name == rest)
    if len(fits) > 1:
        raise _ambiguous(name, fits)
    return _run(fits[0].path) if fits else None


def _by_group(name: str, known: _Folders) -> Named | None:
    folders, rest = known.around(name)
    fits = _distinct(folder for folder in folders if folder.name.startswith(rest) and folder.group == rest)
    return _of_one_group(name, fits, whole=name)


def _by_folder(name: str) -> Named | None:
    try:
        paths = sorted(file.parent for file in Path(name).glob("*/run.json"))
    except OSError:  # too long for a path
        return None
    folders = _distinct(_Folder(path, path.parent.name, path.name) for path in paths)
    whole = name if name.strip("./") else str(Path(name).resolve())
    return _named(whole, "folder", folders) if folders else None


def _by_start(name: str, known: _Folders) -> Named | None:
    folders, rest = known.around(name)
    fits = _distinct(folder for folder in folders if folder.name.startswith(rest))
    group = fits[0].group if fits else ""
    is_whole = len(fits) == len(_distinct(folder for folder in folders if folder.group == group))
    return _of_one_group(name, fits, whole=f"{name.removesuffix(rest)}{group}" if is_whole else name)


def _of_one_group(name: str, fits: Sequence[_Folder], *, whole: str) -> Named | None:
    """The group that has the whole name, or its only run. Raises RecipeError for several groups."""
    if len({(folder.experiment, folder.group) for folder in fits}) > 1:
        raise _ambiguous(name, fits)
    if len(fits) == 1:
        return _run(fits[0].path)
    return _named(whole, "group", fits) if fits else None


def _run(path: Path) -> Named:
    run = Run(path.resolve())
    return Named(run.name, "run", (run,))


def _named(name: str, kind: Literal["group", "experiment", "folder"], folders: Iterable[_Folder]) -> Named:
    return Named(name, kind, tuple(Run(folder.path) for folder in folders))


def _distinct(folders: Iterable[_Folder]) -> list[_Folder]:
    """Each run's folder once, where others are links to it, and by its own path."""
    found: dict[Path, _Folder] = {}
    for folder in folders:
        path = folder.path.resolve()
        found.setdefault(path, _Folder(path, folder.experiment, folder.name))
    return list(found.values())


def _ambiguous(name: str, fits: Sequence[_Folder]) -> RecipeError:
    """The error that lists what fits: groups with their number of runs, and single runs."""
    groups: dict[str, list[_Folder]] = {}
    for folder in fits:
        groups.setdefault(f"{folder.experiment}/{folder.group}", []).append(folder)
    names = [
        f"{group} ({len(folders)} runs)" if len(folders) > 1 else f"{folders[0].experiment}/{folders[0].name}"
        for group, folders in groups.items()
    ]
    is_one = len({folder.experiment for folder in fits}) == 1
    hint = "give more of the name" + ("" if is_one else f", or its experiment: {fits[0].experiment}/{name}")
    return RecipeError(f"{name!r} fits {len(fits)} runs: {_listed(names)}", hint=hint)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _nearest(name: str, known: _Folders) -> str:
    """The name that was meant, perhaps."""
    if "/" in name:
        names = [f"{folder.experiment}/{one}" for folder in known.all for one in (folder.group, folder.name)]
    else:
        names = [*known.experiments, *(one for folder in known.all for one in (folder.group, folder.name))]
    return near_miss(name, dict.fromkeys(names))
