"""bench export: a run -> ONNX files, each proven against the trained model on real images before it counts.

model.onnx              accepted; fp16 and int8 beside it as model.fp16.onnx and model.int8.onnx
model.rejected.onnx     kept to look at, where the gate was missed
model.gate.json         the gate's report, of either
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.files import write_json
from bench.progress import Progress
from bench_export.card import Card, Precision, read_card, write_card
from bench_export.choice import objective_of
from bench_export.export_files import file_name, make_room, settle, unproven
from bench_export.export_steps import (
    as_exported,
    core_inputs,
    kept,
    loss_on,
    make_card,
    preprocessing_of,
    quantisation_facts,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from bench.record import Run
    from bench.stages.restore import Restored
    from bench_export.conversion.core import Core
    from bench_export.gate.report import GateReport
    from bench_export.gate.samples import Material, Samples
    from bench_export.predictor import Predictor
    from bench_export.registry import Registration

__all__ = ["PRECISIONS", "Exported", "export_run"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

#: Images that show where float16 is too narrow; one batch.
_HALF_SAMPLES = 32

#: Images that decide between calibrations.
_SELECTION = 1024


@dataclass(frozen=True, slots=True)
class Exported:
    """One file, the gate's report as plain values, and what became of it.

    `departure` names where a rejected file's answers first depart from the trained model's.
    """

    path: Path
    precision: Precision
    card: Card
    report: dict[str, Any]
    departure: str | None = None
    registration: Registration | None = None

    @property
    def accepted(self) -> bool:
        """Whether the gate holds."""
        return bool(self.report["passed"])


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
    from bench_export.conversion.core import convert_core
    from bench_export.gate.samples import open_material

    progress = progress or Progress()
    if (status := run.status()) != "finished":
        raise BenchError(f"run {run.name} is {status}: it has no finished model", hint="bench run RECIPE --resume")
    folder = out or run.folder / "export"
    make_room(folder)
    restored = restore(run.folder)
    material = open_material(run, restored.recipe, restored.plan, progress)
    progress.note("converting the model to ONNX")
    core = convert_core(restored.model, restored.spec)
    if core.fallback_reason:
        progress.warn(f"the newer exporter failed, the older one was used: {core.fallback_reason}")
    job = _Job(run, restored, material, core, raw, folder, progress)
    return [job.finish(exported, register=register) for exported in job.export(precisions)]


@dataclass(slots=True)
class _Job:
    """What the files of one run share: the trained model, its images, and its answers to them."""

    run: Run
    restored: Restored
    material: Material
    core: Core
    raw: bool
    folder: Path
    progress: Progress
    _samples: Samples | None = None
    _known: NDArray[np.float32] | None = None

    def export(self, precisions: Sequence[Precision]) -> Iterator[Exported]:
        from bench_export.gate.answers import reference_answers

        self._samples = self.material.gate()
        self._known = reference_answers(self.restored.predict, self._samples, self.progress.advance)
        for precision in precisions:
            rounded = {"fp16": self._fp16, "int8": self._int8}.get(precision)
            yield rounded() if rounded else self._judged(self.core.proto, "fp32")

    def _fp16(self) -> Exported:
        from bench_export.conversion.half import to_half

        (batch,) = core_inputs(self.restored, self.material.training(_HALF_SAMPLES))
        return self._judged(to_half(self.core.proto, samples=batch), "fp16")

    def _int8(self) -> Exported:
        """Quantised, with as many layers in float as it takes until the gate holds."""
        from bench_export.conversion.quantise import Quantiser

        table = self.restored.recipe.export
        training = self.material.training(table.calibration_images)
        selection = self.material.selection(_SELECTION)
        quantiser = Quantiser(
            self.core.proto,
            calibration=list(core_inputs(self.restored, training)),
            accuracy_loss=loss_on(self.restored, selection),
            report=lambda done, total: self.progress.advance("choosing what becomes int8", done, total),
        )
        least = 0
        while True:
            quantised = quantiser.within(table.gate.int8_accuracy_loss, least_float=least)
            how = quantisation_facts(quantised, training, selection)
            exported = self._judged(quantised.proto, "int8", quantisation=how)
            lost = -float(exported.report["accuracy"].get("difference_points", 0.0))
            kept = len(quantised.kept_float)
            if exported.accepted or lost <= table.gate.int8_accuracy_loss or kept == quantised.num_layers:
                return exported
            # The gate sees more than the selection did, so that more layers have to stay in float.
            least = max(1, 2 * kept)
            self.progress.note(f"int8 loses {lost:.2f} points on the gate's samples: {least} layers or more stay float")

    def _judged(
        self, proto: onnx.ModelProto, precision: Precision, *, quantisation: dict[str, Any] | None = None
    ) -> Exported:
        """Write the file, ask it, and name it by the outcome."""
        from bench_export.conversion.join import write
        from bench_export.predictor import load

        assert self._samples is not None and self._known is not None  # noqa: S101, PT018  # export() has set them
        card = make_card(self.run, self.restored, self.core, precision, raw=self.raw, quantisation=quantisation)
        with unproven(self.folder, file_name(precision, raw=self.raw)) as path:
            write(self._whole(proto), path, card)
            candidate = load(path, device="cpu", tuning={})
            report = self._report(candidate)
            departure = None if report.passed else self._departure(path, report)
            gate = kept(report, candidate, self.restored, self._samples, self._known)
            write_card(path, replace(card, gate=gate))
            settled = settle(path, accepted=report.passed)
        return Exported(settled, precision, card, report.as_json(), departure)

    def _report(self, candidate: Predictor) -> GateReport:
        """What the gate says of a file."""
        from bench_export.gate.judge import judge
        from bench_export.gate.probes import check_resizing

        assert self._samples is not None  # noqa: S101  # export() has set it
        report = judge(
            self.restored.predict,
            candidate,
            self._samples,
            precision=candidate.card.precision,
            limits=self.restored.recipe.export.gate.model_dump(),
            report=self.progress.advance,
            threshold=self.restored.threshold,
            known=self._known,
        )
        check_resizing(report, candidate, preprocessing_of(self.restored), self.restored.spec.task)
        return report

    def _whole(self, core: onnx.ModelProto) -> onnx.ModelProto:
        """A core with pre- and postprocessing around it, unless it is to stay raw."""
        from bench_export.conversion.join import join

        if self.raw:
            return core
        return join(
            core,
            preprocessing=preprocessing_of(self.restored),
            task=self.restored.spec.task,
            num_classes=self.restored.spec.num_classes,
            loss=self.restored.recipe.train.loss,
            threshold=self.restored.threshold,
        )

    def _departure(self, path: Path, report: GateReport) -> str | None:
        """Where a rejected file's answers first depart from the trained model's."""
        from bench_export.gate.departures import Trained, first_departure
        from bench_export.gate.probes import ProbeSamples

        assert self._samples is not None  # noqa: S101  # export() has set it
        how = preprocessing_of(self.restored)
        trained = Trained(self.restored.predict, self.restored.model, self._whole(self.core.proto))
        found = first_departure(path, self._samples, report, preprocessing=how, trained=trained)
        if found is None and not self.raw:  # real images may all have the model's size: synthetic ones do not
            others = ProbeSamples(how, self.restored.spec.task)
            looked_at = replace(report, worst=[{"position": position} for position in others.larger_and_smaller])
            found = first_departure(path, others, looked_at, preprocessing=how, trained=trained)
        return None if found is None else f"departs first at {found}"

    def finish(self, exported: Exported, *, register: bool) -> Exported:
        """Record the outcome beside the file; register it where it was accepted."""
        name = exported.path.name.replace(".rejected", "").removesuffix(".onnx")
        said = {"file": exported.path.name, "departure": exported.departure, **exported.report}
        write_json(exported.path.with_name(f"{name}.gate.json"), said)
        if not (exported.accepted and register) or self.raw:
            return exported
        from bench_export.registry import register as in_mlflow

        objective = as_exported(objective_of(self.run.info()), exported.report)
        card = read_card(exported.path) or exported.card
        return replace(exported, registration=in_mlflow(self.run, exported.path, card, objective))
