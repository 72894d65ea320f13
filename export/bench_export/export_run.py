"""bench export: a run -> ONNX files, each proven against the trained model on real images before it counts.

model.onnx              accepted; fp16 and int8 beside it as model.fp16.onnx and model.int8.onnx
model.rejected.onnx     kept to look at, where the gate was missed
model.gate.json         the gate's report, of either
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.files import write_json
from bench.progress import Progress
from bench_export.card import Precision, read_card
from bench_export.choice import objective_of
from bench_export.export_files import make_room
from bench_export.export_job import Exported, Job
from bench_export.export_steps import as_exported

if TYPE_CHECKING:
    from bench.record import Run

__all__ = ["PRECISIONS", "Exported", "export_run"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def export_run(
    run: Run,
    *,
    precisions: Sequence[Precision] = ("fp32",),
    out: Path | None = None,
    raw: bool = False,
    register: bool = True,
    progress: Progress | None = None,
) -> list[Exported]:
    """Export a finished run into `out` (default: export/ in its folder), one file for each precision.

    `raw` leaves pre- and postprocessing out of the graph. A file that misses the gate is renamed to *.rejected.onnx and
    not registered. Raises BenchError where the run is not finished, where its dataset is not the recorded one, and
    where the model cannot be exported at all.
    """
    from bench.stages.restore import restore
    from bench_export.conversion.core import UnequalGraph, convert_core
    from bench_export.gate.samples import open_material

    progress = progress or Progress()
    if (status := run.status()) != "finished":
        raise BenchError(f"run {run.name} is {status}: it has no finished model", hint="bench run RECIPE --resume")
    folder = out or run.folder / "export"
    make_room(folder)
    restored = restore(run.folder)
    material = open_material(run, restored.recipe, restored.plan, progress)
    progress.note("converting the model to ONNX")
    fault = None
    try:
        core = convert_core(restored.model, restored.spec)
    except UnequalGraph as error:  # the gate looks at it too, and it is kept
        core, fault = error.core, str(error)
    if core.fallback_reason:
        progress.warn(f"the newer exporter failed, the older one was used: {core.fallback_reason}")
    job = Job(run, restored, material, core, raw, folder, progress, fault)
    return [_finish(run, exported, progress, register=register and not raw) for exported in job.export(precisions)]


def _finish(run: Run, exported: Exported, progress: Progress, *, register: bool) -> Exported:
    """Record the outcome beside the file; register it where it was accepted.

    A registry that is down loses nothing: the file is there, and exporting again registers it.
    """
    from bench_export.registry import register as in_mlflow

    name = exported.path.name.replace(".rejected", "").removesuffix(".onnx")
    said = {"file": exported.path.name, "departure": exported.departure, **exported.report}
    write_json(exported.path.with_name(f"{name}.gate.json"), said)
    if not (exported.accepted and register):
        return exported
    objective = as_exported(objective_of(run.info()), exported.report)
    card = read_card(exported.path) or exported.card
    try:
        return replace(exported, registration=in_mlflow(run, exported.path, card, objective))
    except BenchError as error:
        progress.warn(f"{exported.path.name} is not registered ({error}); exporting again does it")
        return exported
