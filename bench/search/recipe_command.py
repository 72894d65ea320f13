"""`bench recipe`: a trial's recipe as TOML, ready to be run by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

__all__ = ["recipe"]

_NAMED = ("best", "knee", "fastest")


@click.command()
@click.option(
    "--from-trial",
    "which",
    required=True,
    metavar="N|best|knee|fastest",
    help="The trial's number, or which one of the front.",
)
@click.option("--study", "name", metavar="NAME", help="The study; default: the one that was begun last.")
@click.option("--storage", "url", metavar="URL", help="Where studies are kept; default: search.db beside the runs.")
@click.option("--output", type=click.Path(path_type=Path), help="Write to this file instead of the terminal.")
def recipe(which: str, name: str | None, url: str | None, output: Path | None) -> None:
    """Write the recipe of a search's trial as TOML.

    \b
    bench recipe --from-trial best --output winner.toml
    bench recipe --from-trial 17 --study gtsrb_search
    """
    from bench.search.known import find_study
    from bench.search.winner import winning_recipe

    study = find_study(name, storage_url=url)
    trial = _trial(study, which)
    text = _heading(study, trial) + winning_recipe(study, trial).text.lstrip("\n")
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text)
        click.echo(f"{output}: the recipe of trial {trial.number} of {study.study_name}", err=True)


def _trial(study: Study, which: str) -> FrozenTrial:
    from bench.errors import RecipeError
    from bench.search.known import find_trial
    from bench.search.winner import Which, choose

    if which.isdecimal():
        return find_trial(study, int(which))
    for name in get_args(Which):
        if which == name:
            return choose(study, name)
    raise RecipeError(f"--from-trial {which}: not a number, {', '.join(_NAMED[:-1])} or {_NAMED[-1]}")


def _heading(study: Study, trial: FrozenTrial) -> str:
    """Where the recipe comes from, as a comment."""
    from bench.search.front import metric_names
    from bench.search.wording import name_of, value_text

    values = zip(metric_names(study), trial.values or (), strict=False)
    shown = ", ".join(f"{name_of(metric)} {value_text(metric, value)}" for metric, value in values)
    return f"# Trial {trial.number} of the study {study.study_name}" + (f": {shown}\n\n" if shown else "\n\n")


def _write(path: Path, text: str) -> None:
    from bench.errors import BenchError
    from bench.files import write_text

    try:
        write_text(path, text)
    except OSError as cause:
        raise BenchError(f"{path}: cannot be written: {cause.strerror}", hint="--output PATH names another") from cause
