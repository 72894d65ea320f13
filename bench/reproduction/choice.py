"""Which of the runs that a name stands for are rerun."""

from __future__ import annotations

from dataclasses import dataclass

from bench.errors import BenchError, RecipeError
from bench.record import Run
from bench.run_names import resolve

__all__ = ["Choice", "choose"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Runs to rerun, and those of the same name that are left out: (run, reason)."""

    runs: tuple[Run, ...]
    left_out: tuple[tuple[str, str], ...] = ()


def choose(name: str) -> Choice:
    """The runs that `bench reproduce NAME` reruns: a single one whatever its state, of several those that finished.

    Of an experiment, reproductions and a search's trials are left out. Raises RecipeError where none is left.
    """
    named = resolve(name)
    runs = named.runs
    if len(runs) == 1:
        return Choice(runs)
    reasons = [(run, _why_not(run, is_group=named.kind == "group")) for run in runs]
    chosen = tuple(run for run, reason in reasons if not reason)
    if not chosen:
        raise RecipeError(
            f"none of the {len(runs)} runs of {name!r} can be rerun together: {reasons[0][1]}",
            hint="name a single one: bench runs lists them",
        )
    return Choice(chosen, tuple((run.name, reason) for run, reason in reasons if reason))


def _why_not(run: Run, *, is_group: bool) -> str:
    try:
        info, status = run.info(), run.status()
    except (BenchError, KeyError, TypeError, AttributeError):
        return "damaged run.json"
    if status != "finished":
        return status
    if "reproduces" in info:
        return f"reproduces {info['reproduces']}"
    if "trial" in info and not is_group:
        return "a trial of a search"
    return ""
