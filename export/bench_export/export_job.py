"""The files of one run: made, judged, and named by the outcome."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench_export.card import Card, Precision, write_card
from bench_export.export_files import file_name, settle, unproven
from bench_export.export_steps import core_inputs, kept, loss_on, make_card, preprocessing_of, quantisation_facts

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from bench.progress import Progress
    from bench.record import Run
    from bench.stages.restore import Restored
    from bench_export.conversion.core import Core
    from bench_export.gate.report import GateReport
    from bench_export.gate.samples import Material, Samples
    from bench_export.predictor import Predictor
    from bench_export.registry import Registration

__all__ = ["Exported", "Job"]

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


@dataclass(slots=True)
class Job:
    """What the files of one run share: the trained model, its images, and its answers to them.

    `fault` is what a comparison on random inputs has found already, None where the graph is equal.
    """

    run: Run
    restored: Restored
    material: Material
    core: Core
    raw: bool
    folder: Path
    progress: Progress
    fault: str | None = None
    _samples: Samples | None = None
    _known: NDArray[np.float32] | None = None

    def export(self, precisions: Sequence[Precision]) -> Iterator[Exported]:
        """One file after the other, judged; one that cannot be made counts as rejected, and the others go on."""
        from bench_export.gate.answers import reference_answers

        self._samples = self.material.gate()
        self._known = reference_answers(self.restored.predict, self._samples, self.progress.advance)
        for precision in precisions:
            rounded = {"fp16": self._fp16, "int8": self._int8}.get(precision)
            if rounded is None:
                yield self._judged(self.core.proto, "fp32")
                continue
            try:
                yield rounded()
            except BenchError as error:
                yield self._not_made(precision, error)

    def _not_made(self, precision: Precision, error: BenchError) -> Exported:
        from bench_export.gate.report import GateReport

        assert self._samples is not None  # noqa: S101  # export() has set it
        samples, limits = self._samples, self.restored.recipe.export.gate.model_dump()
        report = GateReport(precision, samples.name, samples.note, 0, limits, reasons=[f"cannot be made: {error}"])
        card = make_card(self.run, self.restored, self.core, precision, raw=self.raw, quantisation=None)
        return Exported(self.folder / file_name(precision, raw=self.raw), precision, card, report.as_json())

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
            how["raised_by_the_gate"] = least > 0  # and so chosen on its samples too
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
        if self.fault and self.fault not in report.reasons:
            report.reasons.append(self.fault)
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
