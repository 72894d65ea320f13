"""`bench data`: parse, call one library function, print."""

from __future__ import annotations

from pathlib import Path

import click

from bench.completion import RECIPE

__all__ = ["data"]


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), shell_complete=RECIPE.shell_complete)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe.")
@click.option("--html", type=click.Path(path_type=Path), help="Where the page goes; default: data_EXPERIMENT.html.")
@click.option("--check", is_flag=True, help="Exit 1 where files are unreadable or images leak between splits.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def data(recipe: Path, changes: tuple[str, ...], html: Path | None, *, check: bool, as_json: bool) -> None:
    """Look at a recipe's images: sizes, classes, samples, and what is wrong.

    \b
    bench data recipes/smoking_cnn.toml
    bench data recipes/gtsrb_lenet1.toml --html signs.html --check
    """
    from bench.console import TerminalProgress
    from bench.exploration import command
    from bench.recipe import load

    findings = command.show(load(recipe, changes), html=html, as_json=as_json, progress=TerminalProgress())
    if check:
        command.check(findings)
