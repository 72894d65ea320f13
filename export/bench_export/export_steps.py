"""What an export is made of, beside the graph: its card, and the arrays that quantisation measures on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import environment
from bench_export.card import Card, Precision, Preprocessing
from bench_export.choice import Objective
from bench_export.prediction.numpy_steps import normalise, to_probabilities

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from bench.record import Run
    from bench.stages.restore import Restored
    from bench_export.conversion.core import Core
    from bench_export.conversion.quantise import Quantised
    from bench_export.gate.report import GateReport
    from bench_export.gate.samples import Samples
    from bench_export.predictor import Predictor

__all__ = [
    "as_exported",
    "core_inputs",
    "kept",
    "loss_on",
    "make_card",
    "preprocessing_of",
    "quantisation_facts",
]

_BATCH = 32


def preprocessing_of(restored: Restored, *, in_graph: bool = True) -> Preprocessing:
    """How images become the input of a run's model."""
    plan, table = restored.plan, restored.recipe.data
    return Preprocessing(
        size=plan.image_size,
        channels=restored.spec.channels,  # type: ignore[arg-type]  # 1 or 3 by the plan
        resize=table.resize,
        filter=table.filter,
        mean=plan.mean or (),
        std=plan.std or (),
        max_megapixels=table.max_megapixels,
        in_graph=in_graph,
    )


def make_card(
    run: Run,
    restored: Restored,
    core: Core,
    precision: Precision,
    *,
    raw: bool,
    quantisation: Mapping[str, Any] | None,
) -> Card:
    """What the file will say of itself, all but the gate's report."""
    info = run.info()
    data, recorded = info.get("dataset") or {}, info.get("environment") or {}
    return Card(
        task=restored.spec.task,
        classes=restored.spec.classes,
        preprocessing=preprocessing_of(restored, in_graph=not raw),
        precision=precision,
        loss=restored.recipe.train.loss,
        threshold=restored.threshold,
        experiment=info["experiment"],
        run=run.name,
        run_id=info["id"],
        seed=info["seed"],
        objective=info.get("objective") or "",
        recipe=restored.recipe.text,
        recipe_digest=restored.recipe.digest,
        dataset={name: data[name] for name in ("name", "fingerprint", "counts") if name in data},
        metrics=info.get("metrics") or {},
        git=info.get("git") or {},
        plugins=tuple(info.get("plugins") or ()),
        versions={**environment.versions(), **{f"trained with {k}": v for k, v in _trained(recorded).items()}},
        exporter={"name": core.exporter, "opset": core.opset, "fallback_reason": core.fallback_reason},
        quantisation=quantisation,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def core_inputs(restored: Restored, samples: Samples) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Batches of a core's inputs: fitted, normalised samples under the names that the core gives them."""
    how = preprocessing_of(restored)
    names = ("normalised_first", "normalised_second") if samples.takes_pairs else ("normalised",)
    for start in range(0, len(samples), _BATCH):
        arrays = samples.batch(range(start, min(start + _BATCH, len(samples))))
        yield {name: normalise(array, how) for name, array in zip(names, arrays, strict=True)}


def loss_on(restored: Restored, samples: Samples) -> Callable[[onnx.ModelProto], float]:
    """A function that says how many points of accuracy a core loses on these samples against the trained model."""
    loss, threshold = restored.recipe.train.loss, restored.threshold

    def right(probabilities: NDArray[np.float32]) -> float:
        if threshold is None:
            found = probabilities.argmax(axis=1)
        else:
            found = (probabilities[:, 1] >= np.float32(threshold)).astype(np.int64)
        return float((found == samples.labels).mean())

    from bench_export.gate.answers import reference_answers

    trained = right(reference_answers(restored.predict, samples))

    def lost(core: onnx.ModelProto) -> float:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(core.SerializeToString(), options, providers=["CPUExecutionProvider"])
        outputs = np.concatenate([session.run(["outputs"], batch)[0] for batch in core_inputs(restored, samples)])
        return 100 * (trained - right(to_probabilities(outputs, loss)))

    return lost


def quantisation_facts(quantised: Quantised, training: Samples, selection: Samples) -> dict[str, Any]:
    """How an int8 model came about, for its card."""
    return {
        "calibration": quantised.calibration,
        "calibration_images": len(training),
        "selected_on": f"{len(selection):,} {selection.name} samples",
        "loss_points": quantised.loss,
        "layers": quantised.num_layers,
        "kept_float": list(quantised.kept_float),
        "remark": quantised.remark,
        "tried": quantised.tried,
    }


def kept(
    report: GateReport,
    candidate: Predictor,
    restored: Restored,
    samples: Samples,
    answers: NDArray[np.float32],
) -> dict[str, Any]:
    """The report, and what `bench verify` needs to prove the file again without the trained model.

    `answers` are the trained model's to the samples.
    """
    from bench_export.gate.answers import CannotRun
    from bench_export.gate.probes import build_probes
    from bench_export.gate.recorded import pack_samples

    how = candidate.card.preprocessing
    try:
        probes = build_probes(restored.predict, how, restored.spec.task, candidate=candidate)
    except CannotRun:  # a rejected file; the report says why
        return report.as_json()
    return {**report.as_json(), "probes": probes, "samples": pack_samples(samples, answers)}


def as_exported(objective: Objective, report: dict[str, Any]) -> Objective:
    """The run's objective as the exported file reaches it: the accuracy less what the gate saw it lose.

    Of any other metric the trained model's value stands, and the note says so where the file is not exact.
    """
    gained = float((report.get("accuracy") or {}).get("difference_points", 0.0)) / 100
    if objective.metric in {"val_accuracy", "test_accuracy"}:
        return replace(objective, value=objective.value + gained)
    if report["precision"] == "fp32":
        return objective
    return replace(objective, note="; ".join(filter(None, [objective.note, "the value is the trained model's"])))


def _trained(recorded: Mapping[str, Any]) -> dict[str, str]:
    """The versions that a run was trained with."""
    return {"python": recorded.get("python", ""), **(recorded.get("versions") or {})}
