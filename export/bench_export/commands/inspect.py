"""bench inspect: what a model's file says of itself."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["inspect"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@click.option("--recipe", is_flag=True, help="Print the text of its recipe, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(model: Path, *, recipe: bool, as_json: bool) -> None:
    """Print a model's card: what it answers, how well, and where it comes from.

    \b
    bench inspect model.onnx
    bench inspect model.onnx --recipe > recipe.toml
    """
    from bench_export.prediction.showing import show, show_recipe

    if recipe:
        show_recipe(model)
    else:
        show(model, as_json=as_json)
