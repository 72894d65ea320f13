"""`bench reproduce`: parse, rerun, print; exit code 4 where a run was not reproduced."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from bench.completion import RUN
from bench.errors import BenchError, GateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.reproduction.verdict import Reproduction

__all__ = ["reproduce"]


def _device(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        raise click.BadParameter(f"{value!r}: known are cpu, cuda and cuda:N")
    return value


@click.command()
@click.argument("run", shell_complete=RUN.shell_complete)
@click.option("--device", callback=_device, help="Another device than the recorded one: cpu, cuda or cuda:N.")
@click.option("--any-data", is_flag=True, help="Rerun although the dataset has changed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def reproduce(run: str, *, device: str | None, any_data: bool, as_json: bool) -> None:
    """Rerun a recorded run from its folder, compare, and say what has changed since.

    RUN may be a group or an experiment: all of its finished runs. The recorded plan holds, also in what was chosen by a
    calibration. On the CPU, and with the same versions, the result has to be the same bit for bit; otherwise a paired
    test decides. Exit code 4 where it was not reproduced.

    \b
    bench reproduce 20261126-041859-b4de-s0
    bench reproduce quickstart --json
    """
    from bench import environment
    from bench import run as stages
    from bench.console import TerminalProgress, print_json
    from bench.reproduction.choice import choose

    stages.follow()  # the end for all of torchrun's processes but the first
    choice = choose(run)
    progress = TerminalProgress()
    progress.note("loading PyTorch and the recipe's plugins")
    from bench.reproduction.rerun import prepare, rerun_all
    from bench.reproduction.terminal import note_changes, print_reproductions
    from bench.reproduction.verdict import judge

    for name, reason in choice.left_out:
        progress.note(f"left out: {name}, {reason}")
    machine = environment.detect()
    prepared = [prepare(one, device=device, machine=machine, progress=progress) for one in choice.runs]
    note_changes(prepared, progress)
    found = judge(rerun_all(prepared, any_data=any_data, progress=progress))
    if as_json:
        print_json({"reproductions": [one.as_json() for one in found]})
    else:
        print_reproductions(found)
    _require(found)


def _require(found: Sequence[Reproduction]) -> None:
    """Raise GateError where a run was not reproduced, BenchError where that cannot be said."""
    different = [one for one in found if one.outcome == "different"]
    if different:
        names = ", ".join(one.rerun.prepared.run.name for one in different)
        raise GateError(f"NOT reproduced: {names}", hint=_hint(different[0]))
    undecided = [one.rerun.prepared.run.name for one in found if one.outcome == "undecided"]
    if undecided:
        raise BenchError(
            f"nothing can be said of {', '.join(undecided)}",
            hint=f"bench run --resume {undecided[0]} finishes its record",
        )


def _hint(different: Reproduction) -> str:
    changes = different.rerun.prepared.changes
    if changed := [change.name for change in changes if change.matters]:
        return f"changed since the record: {', '.join(changed)}"
    if edited := [change.name for change in changes if change.now.startswith("edited")]:
        return f"{', '.join(edited)} is not as the run left it"
    return "look at what is not recorded: uncommitted changes, plugins that draw random numbers of their own"
