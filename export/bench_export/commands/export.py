"""bench export: a run becomes files that are proven to give its answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bench.completion import RUN
from bench.errors import GateError

if TYPE_CHECKING:
    from bench_export.export_run import Exported

__all__ = ["export"]


@click.command()
@click.argument("run", required=False, shell_complete=RUN.shell_complete)
@click.option("--onnx", is_flag=True, help="The format; there is no other yet.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8", "all"]),
    default="fp32",
    show_default=True,
    help="int8 is made for CPUs, fp16 for GPUs.",
)
@click.option(
    "--from-front",
    type=click.Choice(["best", "knee", "fastest"]),
    help="Instead of RUN: this one of the latest search's front.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Default: export/ in the run's folder.")
@click.option("--raw", is_flag=True, help="Leave resizing, normalisation and probabilities out of the graph.")
@click.option("--register/--no-register", default=True, help="Register accepted files in MLflow.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def export(
    run: str | None,
    *,
    onnx: bool,
    precision: str,
    from_front: Literal["best", "knee", "fastest"] | None,
    out: Path | None,
    raw: bool,
    register: bool,
    as_json: bool,
) -> None:
    """Export a run as ONNX and prove that the file gives the same answers.

    Without RUN it is the best finished run of the latest experiment. Exit code 4 where a file misses the gate: it is
    then kept as *.rejected.onnx and not registered.

    \b
    bench export --onnx
    bench export 20261126-0114 --onnx --precision all
    bench export --onnx --from-front knee
    """
    from bench.console import TerminalProgress, print_json
    from bench.run_names import find
    from bench_export.choice import best_run, winning_run
    from bench_export.export_run import PRECISIONS, export_run
    from bench_export.export_table import as_values, print_exports

    if not onnx:
        raise click.UsageError("Say which format: --onnx.")
    progress = TerminalProgress()
    if run is not None and from_front:
        raise click.UsageError("Give RUN or --from-front, not both.")
    if run is None:
        choice = winning_run(from_front) if from_front else best_run()
        chosen = choice.run
        progress.note(f"run {chosen.name}: {choice.reason}")
    else:
        chosen = find(run)
    precisions = PRECISIONS if precision == "all" else [one for one in PRECISIONS if one == precision]
    done = export_run(chosen, precisions=precisions, out=out, raw=raw, register=register, progress=progress)
    if as_json:
        print_json({"run": chosen.name, "exports": [as_values(one) for one in done]})
    else:
        print_exports(done)
    _refuse_rejected(done)


def _refuse_rejected(done: list[Exported]) -> None:
    rejected = [one for one in done if not one.accepted]
    if not rejected:
        return
    lines: list[Any] = []
    for one in rejected:
        lines += [f"{one.precision}: {reason}" for reason in one.report["reasons"]]
        lines += [f"{one.precision}: {one.departure}"] if one.departure else []
    kept = ", ".join(str(one.path) for one in rejected if one.path.is_file())
    limits = "the limits stand in the recipe's [export.gate]"
    raise GateError(
        "the gate was missed\n  " + "\n  ".join(lines), hint=f"kept to look at: {kept}; {limits}" if kept else limits
    )
