"""bench verify: prove an exported file again."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["verify"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="ROOT",
    help="The dataset's folder: ask the recorded samples again.",
)
@click.option("--against", metavar="RUN", help="The whole gate again, with the run's trained model (needs torch).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(model: Path, data: Path | None, against: str | None, *, as_json: bool) -> None:
    """Prove an exported file again: its graph, its metadata and its answers.

    \b
    bench verify model.onnx
    bench verify model.onnx --data gtsrb
    bench verify model.onnx --against 20261126-011456-90bc-s0
    """
    from bench.console import TerminalProgress, print_json, print_table
    from bench.errors import GateError
    from bench_export.gate.verify import verify as check_file

    result = check_file(model, data=data, against=against, progress=TerminalProgress())
    if as_json:
        print_json(result.as_json())
    else:
        words = {True: "holds", False: "FAILS", None: "open"}
        print_table(("check", "", "found"), [(check.name, words[check.holds], check.found) for check in result.checks])
    failed = [check for check in result.checks if check.holds is False]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise GateError(
            f"{model}: {failed[0].name}: {failed[0].found}{more}", hint="do not deploy this file; export the run again"
        )
