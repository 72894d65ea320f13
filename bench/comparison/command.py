"""`bench compare`: parse, call one library function, print."""

from __future__ import annotations

from pathlib import Path

import click

from bench.completion import RUN

__all__ = ["compare"]


@click.command()
@click.argument("names", nargs=-1, metavar="[RUN|EXPERIMENT]...", shell_complete=RUN.shell_complete)
@click.option(
    "--sort", metavar="COLUMN", help="Order by accuracy (default), f1, p50, size, train ...; -COLUMN reverses."
)
@click.option("--split", type=click.Choice(("test", "validation")), default="test", show_default=True)
@click.option("--html", type=click.Path(path_type=Path), help="Write the comparison's page to this file.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the table as CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every pair.")
def compare(
    names: tuple[str, ...], *, sort: str | None, split: str, html: Path | None, as_csv: bool, as_json: bool
) -> None:
    """Compare runs: figures with intervals, which differences are real, what differs between the recipes.

    Seeds and folds of one run are one entry. Without a name it takes the latest experiment.

    \b
    bench compare gtsrb
    bench compare gtsrb smoking --sort p50
    bench compare 20261126-041928 20261126-042119 --html comparison.html
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    from bench.comparison import compare as compare_runs
    from bench.comparison.columns import column_of, sorted_by

    column = column_of(sort or "accuracy")
    comparison = compare_runs(names, split=split)
    if sort is not None:
        comparison = sorted_by(comparison, column, reverse=sort.startswith("-"))
    if html is not None:
        from bench.comparison.page import write

        write(comparison, html)
    if as_json:
        from bench.console import print_json

        print_json({**comparison.as_json(), **({"page": str(html.resolve())} if html else {})})
    elif as_csv:
        from bench.comparison.table import write_csv

        write_csv(comparison)
    else:
        from bench.comparison.terminal import print_comparison

        print_comparison(comparison, page=html)
