"""The command line: parse, call one library function, print, translate errors. Imports nothing heavy."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from bench import __version__
from bench.commands import Commands
from bench.completion import PLUGIN, RECIPE, RUN
from bench.errors import BenchError, RecipeError

if TYPE_CHECKING:
    from bench.record import Run

__all__ = ["cli", "main"]

_changes = click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe: --set train.epochs=20."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, package_name="visionbench", prog_name="bench")
def cli() -> None:
    """Compare image models fairly and ship the winner.

    \b
    bench run recipes/quickstart.toml     train, evaluate and record
    bench compare                         which run is better, and is it really
    bench export --onnx                   ship the winner
    """


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False, shell_complete=RECIPE.shell_complete)
@_changes
@click.option(
    "--resume",
    is_flag=False,
    flag_value="latest",
    metavar="[RUN]",
    help="Go on with a run that was stopped: the latest of this recipe, or RUN.",
)
@_json
def run(recipe: Path | None, changes: tuple[str, ...], resume: str | None, *, as_json: bool) -> None:
    """Train, evaluate and record a recipe.

    \b
    bench run recipes/quickstart.toml
    bench run recipes/quickstart.toml --set train.epochs=5 --set seeds=[0,1,2]
    bench run recipes/quickstart.toml --resume
    """
    from bench import run as stages
    from bench.console import TerminalProgress, print_json
    from bench.group import summarise
    from bench.recipe import load
    from bench.result_tables import as_values, print_result
    from bench.resuming import to_resume
    from bench.tracking import tracking_uri

    stages.follow()  # the end for all of torchrun's processes but the first
    if resume is not None and resume.endswith(".toml") and recipe is None:
        recipe, resume = Path(resume), "latest"
    progress = TerminalProgress()
    progress.note("loading PyTorch and the recipe's plugins")
    if resume is not None:
        checked, begun = to_resume(recipe, changes, resume, progress=progress)
        if begun:
            runs = stages.resume(checked, begun, progress=progress)
        else:
            progress.note("no run of this recipe has been started yet; starting one")
            runs = stages.run(checked, progress=progress)
    elif recipe is None:
        raise click.UsageError("Missing argument 'RECIPE'.")
    else:
        runs = stages.run(load(recipe, changes), progress=progress)
    if as_json:
        values = [as_values(finished, finished.info()) for finished in runs]
        print_json({"runs": values, **({"summary": summarise(values)} if len(values) > 1 else {})})
    else:
        print_result(runs, tracking_uri())


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path), shell_complete=RECIPE.shell_complete)
@_changes
@click.option("--full", is_flag=True, help="Read the data and time a few steps, so that nothing stays open.")
@_json
def plan(recipe: Path, changes: tuple[str, ...], *, full: bool, as_json: bool) -> None:
    """Print what a recipe would do, each value with its reason.

    \b
    bench plan recipes/quickstart.toml --full --set train.epochs=5
    """
    from bench import environment
    from bench.console import TerminalProgress, print_json, print_plan
    from bench.plan import draft
    from bench.recipe import load

    checked = load(recipe, changes)
    planned = draft(checked, environment.detect())
    if full:
        from bench.stages.setup import load_data, settle

        progress = TerminalProgress()
        planned = settle(checked, planned, load_data(checked, planned, progress), progress)
    if as_json:
        print_json({"recipe": str(recipe), "digest": checked.digest, "plan": planned.as_json()})
    else:
        print_plan(planned, "known once the data are read (bench plan --full)")


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path), shell_complete=RECIPE.shell_complete)
@_changes
@click.option("--classes", type=click.IntRange(min=2), help="Number of classes, where the data are not here.")
@click.option("--pairs", is_flag=True, help="A model of pairs, where the data are not here.")
@_json
def describe(recipe: Path, changes: tuple[str, ...], classes: int | None, *, pairs: bool, as_json: bool) -> None:
    """Print a model's layers: output shapes, parameters, MACs, sizes.

    \b
    bench describe recipes/quickstart.toml
    bench describe recipes/gtsrb_lenet1.toml --classes 43
    """
    from bench.describe import describe as print_layers
    from bench.recipe import load

    print_layers(load(recipe, changes), as_json=as_json, num_classes=classes, pairs=pairs)


@cli.command()
@click.argument("plugin", required=False, metavar="[KIND/NAME]", shell_complete=PLUGIN.shell_complete)
@click.option("--check", is_flag=True, help="Run the conformance checks; exit 3 where one fails.")
@click.option("--root", type=click.Path(path_type=Path), help="A folder to check a dataset plugin on.")
@_json
def plugins(plugin: str | None, *, check: bool, root: Path | None, as_json: bool) -> None:
    """List plugins, show the options of one, or check them.

    \b
    bench plugins
    bench plugins models/cnn
    bench plugins models/cnn --check
    """
    from bench import plugin_listing

    if check:
        plugin_listing.check(plugin, root=root, as_json=as_json)
    elif plugin is None:
        plugin_listing.list_all(as_json=as_json)
    else:
        plugin_listing.show(plugin, as_json=as_json)


@cli.command()
@click.argument("experiment", required=False)
@_json
def runs(experiment: str | None, *, as_json: bool) -> None:
    """List recorded runs, oldest first.

    \b
    bench runs quickstart --json
    """
    from bench.result_tables import show_runs

    show_runs(experiment, as_json=as_json)


@cli.command()
@click.argument("names", nargs=-1, metavar="[RUN]...", shell_complete=RUN.shell_complete)
def sync(names: tuple[str, ...]) -> None:
    """Bring MLflow up to date with the runs (all, or those named).

    \b
    MLFLOW_TRACKING_URI=https://mlflow.example.org bench sync RUN
    """
    from bench import record, run_info, run_names, tracking

    damaged: list[Run] = []
    known = run_info.readable(record.list_runs(), damaged, needed=("id", "created"))
    for one in [run_names.find(name) for name in names] if names else [recorded for recorded, _ in known]:
        tracking.sync(one)
        click.echo(f"{one.name} is in {tracking.tracking_uri()}")
    if damaged:
        from bench.console import TerminalProgress

        TerminalProgress().warn(run_info.left_out(damaged))


@cli.command()
@click.option("--port", type=int, help="Port on 127.0.0.1; default: a free one.")
@click.option("--browser/--no-browser", default=True, help="Open the browser.")
def ui(port: int | None, *, browser: bool) -> None:
    """Open the MLflow UI on the recorded runs; Ctrl-C ends it.

    \b
    bench ui --no-browser --port 5000
    """
    from bench.ui import serve_ui

    sys.exit(serve_ui(port=port, open_browser=browser, report=click.echo))


def main() -> NoReturn:
    """Run the command line; every expected error becomes one red line, a hint and its exit code."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # Threads that wait for each other give up the core soon instead of spinning on it: as fast on idle cores, and
        # several times faster where a neighbour wants them. OpenMP reads this once, when torch is imported.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        cli(standalone_mode=False, color=_color())
    except BenchError as error:
        _fail(str(error), error.hint, error.exit_code)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(RecipeError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", None, 130)
    except BrokenPipeError:  # the reader of a pipe has gone, as with head
        sys.stderr.close()
        sys.exit(0)
    sys.exit(0)


def _fail(message: str, hint: str | None, exit_code: int) -> NoReturn:
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True, color=_color())
    if hint:
        click.echo(click.style("hint: ", bold=True) + hint, err=True, color=_color())
    sys.exit(exit_code)


def _color() -> bool | None:
    """No colours where NO_COLOR says so; click does not look at it."""
    return False if os.environ.get("NO_COLOR") else None
