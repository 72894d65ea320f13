"""`bench search`: parse, call one library function, print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bench.console import TerminalProgress
    from bench.recipe import Recipe
    from bench.search.ray_cluster import Cluster
    from bench.search.run_search import Setting

__all__ = ["latest_recipe", "search"]

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = r"(\d+(?:\.\d+)?)([smhd]?)"
_SHARE, _PART = click.FloatRange(min=0, min_open=True), click.FloatRange(min=0)
_SAMPLERS = ("tpe", "gp", "random", "grid", "qmc", "cmaes", "nsga2", "nsga3", "brute_force")


def _seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """90, 90s, 30m, 1.5h or 1h30m, in seconds."""
    if value is None:
        return None
    text = value.strip().lower()
    parts = re.findall(_TIME, text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not seconds or re.sub(_TIME, "", text):
        raise click.BadParameter(f"{value!r} is no time; write 90, 30m or 1h30m")
    return seconds


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe.")
@click.option("--trials", type=click.IntRange(min=1), help="Finished trials, pruned and failed ones included.")
@click.option("--workers", type=click.IntRange(min=1), help="Local processes (1), or most trials at once on Ray (all).")
@click.option(
    "--engine", type=click.Choice(("local", "ray")), default="local", show_default=True, help="Where it runs."
)
@click.option("--address", metavar="ADDRESS", help="Of the Ray cluster, HOST:PORT or auto; none: Ray on this machine.")
@click.option("--cpus-per-trial", type=_SHARE, metavar="N", help="Of a Ray node: 1, also the threads of a trial.")
@click.option(
    "--gpus-per-trial", type=_PART, metavar="N", help="Of a Ray node: 1 where there are GPUs; 0.5 puts two on one."
)
@click.option("--timeout", "timeout_s", callback=_seconds, metavar="TIME", help="Start no trial after 90, 30m, 1h30m.")
@click.option("--storage", "storage_url", metavar="URL", help="sqlite:///FILE, postgresql://... or mysql://...")
@click.option("--sampler", type=click.Choice(_SAMPLERS), help="Who chooses the values.")
@click.option(
    "--resume/--new", "resume", default=True, help="Go on with the study of this name (default), or begin another."
)
@click.option("--yes", is_flag=True, help="Search a grid however many combinations it has.")
@click.option("--dry-run", is_flag=True, help="Print the space, the combinations and the cost; search nothing.")
@click.option("--show", is_flag=True, help="Print what a search has come to; search nothing.")
@click.option("--html", type=click.Path(path_type=Path), help="Write the study's page to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def search(
    recipe: Path | None,
    changes: tuple[str, ...],
    *,
    trials: int | None,
    workers: int | None,
    timeout_s: float | None,
    storage_url: str | None,
    sampler: str | None,
    resume: bool,
    yes: bool,
    dry_run: bool,
    show: bool,
    html: Path | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Search a recipe's [search.space] for the best model, then train the winner and test it once.

    Stopped or killed, the same command goes on. Without RECIPE it takes that of the latest run.

    \b
    bench search recipes/quickstart_search.toml --trials 50 --workers 2
    bench search recipes/quickstart_search.toml --engine ray --address auto
    bench search recipes/quickstart_search.toml --dry-run
    bench search --show --html search.html
    """
    from bench.console import TerminalProgress
    from bench.recipe import load
    from bench.search.show import show as show_study

    if show:
        from bench.search.known import find_study

        experiment = load(recipe, changes).experiment if recipe else None
        return show_study(find_study(experiment=experiment, storage_url=storage_url), html=html, as_json=as_json)
    cluster = _cluster(**where)
    progress = TerminalProgress()
    checked = load(recipe, changes) if recipe else latest_recipe(changes)
    progress.note("loading PyTorch and Optuna")
    from bench.search import run_search

    if dry_run:
        prepared = run_search.prepare(checked, trials=trials, sampler=sampler, large=yes)
        return _estimate(prepared, workers=workers or 1, progress=progress, as_json=as_json)
    study = run_search.search(
        checked,
        trials=trials,
        workers=workers,
        timeout_s=timeout_s,
        storage_url=storage_url,
        cluster=cluster,
        sampler=sampler,
        new=not resume,
        large=yes,
        progress=progress,
    )
    return show_study(study, html=html, as_json=as_json)


def _estimate(setting: Setting, *, workers: int, progress: TerminalProgress, as_json: bool) -> None:
    from bench.search.estimate import estimate, print_estimate

    found = estimate(setting, workers=workers, progress=progress)
    print_estimate(setting, found, workers=workers, as_json=as_json)


def _cluster(
    engine: str, address: str | None, cpus_per_trial: float | None, gpus_per_trial: float | None
) -> Cluster | None:
    """Where Ray runs, None for local processes. Raises click's UsageError for what goes with Ray alone."""
    given = {"--address": address, "--cpus-per-trial": cpus_per_trial, "--gpus-per-trial": gpus_per_trial}
    if engine == "local":
        for name, value in given.items():
            if value is not None:
                raise click.UsageError(f"{name} goes with --engine ray")
        return None
    from bench.search.ray_cluster import Cluster

    return Cluster(address, cpus_per_trial or 1.0, gpus_per_trial)


def latest_recipe(changes: tuple[str, ...]) -> Recipe:
    """The recipe of the latest run; of a trial, or of a winner, the recipe of its search.

    Raises RecipeError where there is no run, or the recipe's file is gone.
    """
    from bench.errors import RecipeError
    from bench.recipe import load, parse
    from bench.record import list_runs
    from bench.run_info import readable

    run, info = next(readable(reversed(list(list_runs())), needed=["recipe"]), (None, None))
    if run is None or info is None:
        raise RecipeError("there is no run whose recipe could be searched", hint="bench search RECIPE")
    path = Path(info["recipe"])
    if "study" not in info:
        return parse((run.folder / "recipe.toml").read_text(encoding="utf-8"), path=path, changes=changes)
    if not path.is_file():
        raise RecipeError(
            f"{path.resolve()}: the recipe of the search {info['study']!r} is not there", hint="bench search RECIPE"
        )
    return load(path, changes)
