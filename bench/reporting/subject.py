"""What a report is about: one run, or the runs of a group or an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError, RecipeError
from bench.record import Run, find, list_runs, runs_folder

__all__ = ["Subject", "find_subject"]


@dataclass(frozen=True, slots=True)
class Subject:
    """`runs` are oldest first; a single run that was asked for by its name is `whole`, shown with everything."""

    name: str
    runs: tuple[Run, ...]
    whole: bool


def find_subject(name: str) -> Subject:
    """A run by folder, name or the start of its name, an experiment by its name, or the runs of one group.

    Raises RecipeError where nothing or too much fits.
    """
    if (Path(name) / "run.json").is_file():
        run = find(name)
        return Subject(run.name, (run,), whole=True)
    known = list(list_runs())
    exact = [run for run in known if name in {run.name, f"{run.folder.parent.name}/{run.name}"}]
    if len(exact) == 1:
        return Subject(exact[0].name, (exact[0],), whole=True)
    of_experiment = tuple(run for run in known if name in {run.folder.parent.name, _experiment(run)})
    if of_experiment:
        return Subject(name, of_experiment, whole=False)
    fits = [run for run in known if name and run.name.startswith(name)]
    if len(fits) == 1:
        return Subject(fits[0].name, (fits[0],), whole=True)
    groups = {_group(run) for run in fits}
    if len(groups) == 1 and None not in groups:
        return Subject(str(groups.pop()), tuple(fits), whole=False)
    if not fits:
        raise RecipeError(
            f"no run or experiment {name!r} in {runs_folder()}", hint="bench runs lists both, a name's start suffices"
        )
    shown = ", ".join(run.name for run in fits[:5])
    raise RecipeError(f"{name!r} fits {len(fits)} runs of {len(groups)} groups: {shown}", hint="give more of the name")


def _experiment(run: Run) -> str | None:
    return _entry(run, "experiment")


def _group(run: Run) -> str | None:
    return _entry(run, "group")


def _entry(run: Run, key: str) -> str | None:
    """An entry of run.json; None where it is damaged."""
    try:
        value = run.info().get(key)
    except (BenchError, AttributeError):
        return None
    return None if value is None else str(value)
