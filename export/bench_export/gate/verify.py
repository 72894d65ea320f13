"""Prove an exported file again: by what it carries, by the recorded samples, or by the trained model itself."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.progress import Progress
from bench_export.gate.answers import BATCH_SIZES, CannotRun, ask, run_batch
from bench_export.gate.judge import compare
from bench_export.gate.probes import A_SIZE, check_resizing, fitted_probes, probe_images, read_probes
from bench_export.gate.recorded import find_samples
from bench_export.gate.report import LIMITS, GateReport
from bench_export.predictor import Predictor, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench_export.card import Card

__all__ = ["Check", "Verified", "verify"]

#: How far the answers to the probes may be from those at the export; a rounded file's depend on the processor too.
_PROBE_LIMITS = {"fp16": 0.02, "int8": 0.1}

_NEEDED = (
    "experiment",
    "run",
    "run_id",
    "recipe",
    "recipe_digest",
    "dataset",
    "versions",
    "exporter",
    "created",
    "gate",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One promise: whether it holds (None: it could not be looked at), and what was found."""

    name: str
    holds: bool | None
    found: str


@dataclass(slots=True)
class Verified:
    """All checks of a file, and the gate's reports by what they compare with."""

    path: Path
    checks: list[Check] = field(default_factory=list)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.holds is not False for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        checks = [{"name": check.name, "holds": check.holds, "found": check.found} for check in self.checks]
        return {"file": str(self.path), "passed": self.passed, "checks": checks, "reports": self.reports}


def verify(
    path: Path, *, data: Path | None = None, against: str | None = None, progress: Progress | None = None
) -> Verified:
    """Check a file: itself and its synthetic images always, the recorded samples below `data`, the run `against`.

    Only the last one needs torch. Raises BenchError for a file that cannot be opened or is not ours, and for data or a
    run that are not there.
    """
    progress = progress or Progress()
    candidate = load(path)
    card = candidate.card
    result = Verified(path)
    result.checks += [_metadata(card), _accepted(card), _graph(path), *_probes(candidate)]
    if data is not None:
        result.checks.append(_recorded(candidate, data, result, progress))
    if against is not None:
        result.checks.append(_against(candidate, against, result, progress))
    return result


def _metadata(card: Card) -> Check:
    missing = [name for name in _NEEDED if not getattr(card, name)]
    if missing:
        return Check("metadata", holds=False, found=f"missing: {', '.join(missing)}")
    try:
        given = tomllib.loads(card.recipe)
    except tomllib.TOMLDecodeError as cause:
        return Check("metadata", holds=False, found=f"the recipe is damaged: {cause}")
    digest = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()
    if digest != card.recipe_digest:
        return Check("metadata", holds=False, found="the recipe's digest is not the recipe's")
    return Check(
        "metadata", holds=True, found=f"complete: {card.precision}, {len(card.classes)} classes, run {card.run}"
    )


def _accepted(card: Card) -> Check:
    gate = card.gate or {}
    return Check("gate at the export", holds=bool(gate.get("passed")), found=str(gate.get("summary", "no report")))


def _graph(path: Path) -> Check:
    try:
        import onnx
    except ImportError:
        return Check("graph", holds=None, found="not checked: the package onnx is not installed")
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as cause:  # noqa: BLE001  # the checker's, the shape inference's and protobuf's errors
        return Check("graph", holds=False, found=f"onnx.checker: {' '.join(str(cause).split())[:300]}")
    return Check("graph", holds=True, found="onnx.checker finds nothing")


def _probes(candidate: Predictor) -> Iterator[Check]:
    """Synthetic images of several sizes: finite, the same in each size of batch, and as at the export."""
    card = candidate.card
    try:
        singles, difference = _answers_to_probes(candidate)
    except CannotRun as reason:
        yield Check("synthetic images", holds=False, found=str(reason))
        return
    finite = bool(np.isfinite(singles).all())
    count = f"{len(singles)} synthetic images of {len(singles) // A_SIZE} sizes"
    yield Check("finite answers", holds=finite, found=count if finite else f"not to all of {count}")
    limit = _limits(card)["batch_difference"]
    sizes = ", ".join(map(str, (1, *BATCH_SIZES)))
    yield Check("sizes of batches", holds=difference <= limit, found=f"differ by {difference:.2g} between {sizes}")
    probes = read_probes(card)
    if len(probes.trained) != len(singles):
        raise BenchError("its probes are damaged: another number of images", hint="export it again")
    yield _as_exported(card, singles, probes.trained, probes.exported)


def _as_exported(
    card: Card, found: NDArray[np.float32], trained: NDArray[np.float32], exported: NDArray[np.float32] | None
) -> Check:
    """Against the trained model's answers; of a rounded file against its own at the export.

    Made-up images may bring out more than photographs do: where they did at the export, its own answers count too.
    """
    name = "answers as at the export"
    limit = _limits(card)["fp32_max_difference"]
    exact = card.precision == "fp32"
    if exported is None or (exact and np.abs(exported - trained).max() <= limit):
        off, whose = float(np.abs(found - trained).max()), "the trained model's"
    else:
        off, whose = float(np.abs(found - exported).max()), "its own then"
        limit = limit if exact else _PROBE_LIMITS[card.precision]
    return Check(name, holds=off <= limit, found=f"differ by up to {off:.2g} from {whose}; the limit is {limit:.2g}")


def _answers_to_probes(candidate: Predictor) -> tuple[NDArray[np.float32], float]:
    """Answers one at a time, and by how much those in batches differ."""
    card, parts, difference = candidate.card, [], 0.0
    for batch in probe_images(card.preprocessing, card.task):
        arrays = batch if card.preprocessing.in_graph else fitted_probes(batch, card.preprocessing)
        singles = np.concatenate([run_batch(candidate, *(a[row : row + 1] for a in arrays)) for row in range(A_SIZE)])
        for size in BATCH_SIZES:
            for start in range(0, A_SIZE - size + 1, size):
                part = slice(start, start + size)
                found = run_batch(candidate, *(array[part] for array in arrays))
                difference = max(difference, float(np.nan_to_num(np.abs(found - singles[part])).max()))
        parts.append(singles)
    return np.concatenate(parts), difference


def _recorded(candidate: Predictor, data: Path, result: Verified, progress: Progress) -> Check:
    card = candidate.card
    samples = find_samples(card, data)
    report = GateReport(card.precision, samples.name, samples.note, len(samples), _limits(card))
    report.partial = len(samples) < samples.total
    threshold = card.threshold if card.task == "verification" else None
    compare(report, samples.answers, ask(candidate, samples, report=progress.advance), samples, threshold=threshold)
    result.reports["data"] = {**report.as_json(), "missing": samples.missing}
    missing = f"; {samples.missing:,} images not found" if samples.missing else ""
    return Check(f"samples below {data}", holds=report.passed, found=f"{report.summary}{missing}")


def _against(candidate: Predictor, name: str, result: Verified, progress: Progress) -> Check:
    """The whole gate again, with the trained model."""
    from bench.run_names import find
    from bench.stages.restore import restore
    from bench_export.gate.departures import Trained, first_departure
    from bench_export.gate.judge import judge
    from bench_export.gate.samples import open_material

    run, card = find(name), candidate.card
    if (own := run.info()["id"]) != card.run_id:
        found = f"it was exported from {card.run} (id {card.run_id}), not from {run.name} (id {own})"
        return Check(f"against {run.name}", holds=False, found=found)
    restored = restore(run.folder)
    samples = open_material(run, restored.recipe, restored.plan, progress).gate()
    report = judge(
        restored.predict,
        candidate,
        samples,
        precision=card.precision,
        limits=_limits(card),
        report=progress.advance,
        threshold=restored.threshold,
    )
    check_resizing(report, candidate, card.preprocessing, card.task)
    found = report.summary
    if not report.passed and card.precision == "fp32":
        trained = Trained(restored.predict, restored.model)
        how, path = card.preprocessing, candidate.session.path
        departure = first_departure(path, samples, report, preprocessing=how, trained=trained)
        found = f"{found}; the first departure is {departure}"
    result.reports["against"] = report.as_json()
    return Check(f"against {run.name}", holds=report.passed, found=found)


def _limits(card: Card) -> dict[str, float]:
    recorded = (card.gate or {}).get("limits")
    known = recorded if isinstance(recorded, Mapping) else {}
    return {**LIMITS, **{name: value for name, value in known.items() if isinstance(value, int | float)}}
