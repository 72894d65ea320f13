"""`bench report`: parse, call one library function, print."""

from __future__ import annotations

from pathlib import Path

import click

from bench.completion import RUN

__all__ = ["report"]


@click.command()
@click.argument("name", metavar="RUN|EXPERIMENT", shell_complete=RUN.shell_complete)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Default: report_NAME.html here.")
@click.option("--split", type=click.Choice(["test", "validation"]), help="Whose predictions; default: test if saved.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def report(name: str, *, output: Path | None, split: str | None, as_json: bool) -> None:
    """Write a report of a run, a group or an experiment as one HTML file.

    The file holds everything: curves, confusion matrix with its images, mistakes, calibration, slices, latencies. It
    needs no network and no other file. That of an experiment leads with the comparison of its runs.

    \b
    bench report 20261126-042119
    bench report quickstart --output quickstart.html
    bench report 20261126-042119 --split validation
    """
    from bench.console import TerminalProgress, print_json
    from bench.reporting.report import write_report

    written = write_report(name, output=output, split=split, progress=TerminalProgress())
    if as_json:
        print_json(written.as_json())
    else:
        click.echo(f"{written.path} ({written.path.stat().st_size / 1e6:.1f} MB)")
