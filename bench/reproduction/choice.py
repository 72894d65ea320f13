"""The runs that a name on the command line stands for: one run, the runs of a group, or those of an experiment."""

from __future__ import annotations

from dataclasses import dataclass

from bench.errors import RecipeError
from bench.record import Run, find, list_runs

__all__ = ["Choice", "choose", "named_runs"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Runs to rerun, and those of the same name that are left out: (run, reason)."""

    runs: tuple[Run, ...]
    left_out: tuple[tuple[str, str], ...] = ()


def named_runs(name: str) -> tuple[Run, ...]:
    """The runs of a folder, an experiment or a group of that name, else the run of that name or start of a name.

    Raises RecipeError where none or several fit.
    """
    known = [(run, run.info()) for run in list_runs()]
    for key in ("experiment", "group"):
        if several := tuple(run for run, info in known if info[key] == name):
            return several
    return (find(name),)


def choose(name: str) -> Choice:
    """The runs that `bench reproduce NAME` reruns: a single one whatever its state, of several those that finished.

    Of an experiment, reproductions and a search's trials are left out. Raises RecipeError where none is left.
    """
    runs = named_runs(name)
    if len(runs) == 1:
        return Choice(runs)
    is_group = {run.info()["group"] for run in runs} == {name}
    reasons = [(run, _why_not(run, is_group=is_group)) for run in runs]
    chosen = tuple(run for run, reason in reasons if not reason)
    if not chosen:
        raise RecipeError(
            f"none of the {len(runs)} runs of {name!r} can be rerun together: {reasons[0][1]}",
            hint="name a single one: bench runs lists them",
        )
    return Choice(chosen, tuple((run.name, reason) for run, reason in reasons if reason))


def _why_not(run: Run, *, is_group: bool) -> str:
    info, status = run.info(), run.status()
    if status != "finished":
        return status
    if "reproduces" in info:
        return f"reproduces {info['reproduces']}"
    if "trial" in info and not is_group:
        return "a trial of a search"
    return ""
