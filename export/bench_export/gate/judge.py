"""Judge an exported file by the trained model's answers to the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bench.statistics import mcnemar, paired_difference_interval, wilson_interval
from bench_export.gate.answers import (
    Answers,
    Asked,
    CannotRun,
    Reference,
    Report,
    ask,
    guesses,
    reference_answers,
    run_batch,
)
from bench_export.gate.report import LIMITS, GateReport

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench_export.predictor import Predictor

__all__ = ["Judged", "compare", "judge"]

_WORST = 7
_ROUNDING = 1e-9


class Judged(Asked, Protocol):
    """Samples with what is known of them."""

    @property
    def name(self) -> str:
        """The split's name."""

    @property
    def note(self) -> str:
        """Why it is this split; "" where that needs no word."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in label order."""

    @property
    def ids(self) -> tuple[str, ...]:
        """A name for each sample."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each sample."""


def judge(
    reference: Reference,
    candidate: Predictor,
    samples: Judged,
    *,
    precision: str,
    limits: Mapping[str, float] | None = None,
    report: Report | None = None,
    threshold: float | None = None,
    known: NDArray[np.float32] | None = None,
) -> GateReport:
    """Ask both models and compare their answers; the file sees each image at its own size.

    `threshold` is the trained one, of pairs (default: the file's own). `known` are the reference's answers where
    they have been computed before (`reference_answers`). `report` is called with what is going on, done, total.
    """
    result = GateReport(precision, samples.name, samples.note, len(samples), {**LIMITS, **(limits or {})})
    if candidate.card.task == "verification":
        threshold = candidate.card.threshold if threshold is None else threshold
        _check_decisions(result, candidate, samples, threshold)
    else:
        threshold = None
    if tuple(candidate.classes) != tuple(samples.classes):
        result.reasons.append(_other_classes(candidate.classes, samples.classes))
        if len(candidate.classes) != len(samples.classes):
            return result
    expected = reference_answers(reference, samples, report) if known is None else known
    _check_reference(result, expected, samples.ids)
    found = ask(candidate, samples, report=report)
    compare(result, expected, found, samples, threshold=threshold)
    return result


def compare(
    result: GateReport, expected: NDArray[np.float32], found: Answers, samples: Judged, *, threshold: float | None
) -> None:
    """Fill a report with what the answers come to, and the reasons of every check that fails."""
    if found.failure is not None:
        result.reasons.append(found.failure)
        return
    answers = found.probabilities
    known = np.isfinite(expected)  # of recorded answers, only the most probable classes are
    each = np.where(known, np.abs(expected.astype(np.float64) - answers), 0.0)
    expected = np.where(known, expected, np.float32(0))
    finite = np.asarray(np.isfinite(answers).all(axis=1))
    result.not_finite = int((~finite).sum())
    if result.not_finite:
        first = samples.ids[int(np.flatnonzero(~finite)[0])]
        result.reasons.append(
            f"{result.not_finite:,} of {len(answers):,} answers are not finite, the first for {first}"
        )
    _differences(result, each, finite, samples.ids)
    if finite.any():
        result.mean_difference = float(each[finite][known[finite]].mean())
        _agreement(result, expected, answers, each.max(axis=1), threshold)
        _accuracy(result, guesses(expected, threshold), guesses(answers, threshold), samples.labels)
    _batches(result, found)


def _check_reference(result: GateReport, expected: NDArray[np.float32], ids: Sequence[str]) -> None:
    """What the trained model cannot answer itself proves nothing."""
    broken = np.flatnonzero(~np.isfinite(expected).all(axis=1))
    if len(broken):
        result.reasons.append(
            f"the trained model's own answers to {len(broken):,} of {len(expected):,} samples are not finite, "
            f"the first for {ids[int(broken[0])]}"
        )


def _differences(result: GateReport, each: NDArray[np.float64], finite: NDArray[np.bool_], ids: Sequence[str]) -> None:
    largest = np.where(finite, each.max(axis=1), np.inf)
    for position in np.argsort(-largest, kind="stable")[:_WORST].tolist():
        difference = float(largest[position]) if finite[position] else None
        result.worst.append({"position": position, "id": ids[position], "difference": difference})
    if not finite.any():
        return
    result.max_difference = float(largest[finite].max())
    limit = result.limits["fp32_max_difference"]
    if result.precision == "fp32" and result.max_difference > limit:
        position = int(np.where(finite, largest, -1.0).argmax())
        result.reasons.append(
            f"probabilities differ by up to {result.max_difference:.2g} (on {ids[position]}); the limit is {limit:g}"
        )


def _agreement(
    result: GateReport,
    expected: NDArray[np.float32],
    answers: NDArray[np.float32],
    differences: NDArray[np.float64],
    threshold: float | None,
) -> None:
    """Noise is what is seen where both agree, and never more than what an exact export may show.

    It moves both of two classes that are nearly tied, but only the score and not the threshold.
    """
    same = guesses(expected, threshold) == guesses(answers, threshold)
    if threshold is None:
        ordered = np.sort(expected.astype(np.float64), axis=1)
        gaps = ordered[:, -1] - ordered[:, -2]
    else:
        gaps = np.abs(expected[:, 1].astype(np.float64) - threshold)
    noise = float(np.nan_to_num(differences[same]).max(initial=0.0))
    result.tie_width = (2 if threshold is None else 1) * min(noise, result.limits["fp32_max_difference"])
    is_tie = ~same & (gaps <= result.tie_width)
    result.disagreements, result.ties = int((~same).sum()), int(is_tie.sum())
    result.agreement = float((same | is_tie).mean())
    limit = result.limits.get(f"{result.precision}_agreement")
    if limit is not None and result.agreement < limit - _ROUNDING:
        real = result.disagreements - result.ties
        result.reasons.append(
            f"another answer than the trained model's to {real:,} of {len(same):,} samples "
            f"(agreement {result.agreement:.2%}; the limit is {limit:.2%})"
        )


def _accuracy(
    result: GateReport, trained: NDArray[np.int64], exported: NDArray[np.int64], labels: NDArray[np.int64]
) -> None:
    total = len(labels)
    right, still_right = trained == labels, exported == labels
    gained, lost = int((still_right & ~right).sum()), int((right & ~still_right).sum())
    low, high = paired_difference_interval(gained, lost, total)
    result.accuracy = {
        "trained": float(right.mean()),
        "trained_interval": list(wilson_interval(int(right.sum()), total)),
        "exported": float(still_right.mean()),
        "exported_interval": list(wilson_interval(int(still_right.sum()), total)),
        "gained": gained,
        "lost": lost,
        "difference_points": 100 * (gained - lost) / total,
        "interval_points": [100 * low, 100 * high],
        "p": mcnemar(gained, lost),
    }
    limit = result.limits.get(f"{result.precision}_accuracy_loss")
    loss = -result.accuracy["difference_points"]
    if limit is not None and (-100 * high if result.partial else loss) > limit + _ROUNDING:
        result.reasons.append(
            f"accuracy falls by {loss:.2f} points [{-100 * high:.2f}, {-100 * low:.2f}] from {right.mean():.2%} to "
            f"{still_right.mean():.2%} (McNemar's p = {result.accuracy['p']:.2g}); the limit is {limit:g}"
        )


def _batches(result: GateReport, found: Answers) -> None:
    limit = result.limits["batch_difference"]
    for batch in found.batches.values():
        result.batches.append(asdict(batch))
        if batch.failure is not None:
            result.reasons.append(f"{batch.failure} (single images run: the batch dimension is frozen)")
        elif batch.max_difference > limit:
            result.reasons.append(
                f"in batches of {batch.size} the same images get other answers than one at a time, by up to "
                f"{batch.max_difference:.2g} ({batch.changed} of {batch.images:,} change their class); "
                f"the limit is {limit:g}"
            )


def _check_decisions(result: GateReport, candidate: Predictor, samples: Judged, threshold: float | None) -> None:
    """The file's own decisions have to be those at the trained threshold."""
    if candidate.card.threshold != threshold:
        result.reasons.append(f"its threshold is {candidate.card.threshold}, the trained one is {threshold}")
    if not candidate.card.preprocessing.in_graph or threshold is None:
        return
    if "decision" not in candidate.session.outputs:
        result.reasons.append("it gives no decision")
        return
    wrong = total = 0
    for start in range(0, min(len(samples), 2_000), 32):
        arrays = samples.batch(range(start, min(start + 32, len(samples))))
        try:
            score = run_batch(candidate, *arrays)[:, 1]
        except CannotRun:
            return  # the comparison says so
        outputs = dict(zip(candidate.session.outputs, candidate.session.run(*arrays), strict=True))
        wrong += int((np.asarray(outputs["decision"]).reshape(-1) != (score >= np.float32(threshold))).sum())
        total += len(score)
    if wrong:
        result.reasons.append(
            f"{wrong:,} of {total:,} decisions are not those at the trained threshold {threshold:.6g}"
        )


def _other_classes(own: Sequence[str], trained: Sequence[str]) -> str:
    if sorted(own) != sorted(trained):
        return f"its {len(own)} classes are not the run's {len(trained)}"
    first = next(index for index, pair in enumerate(zip(own, trained, strict=True)) if pair[0] != pair[1])
    return f"its classes stand in another order: class {first} is {own[first]!r}, in the run {trained[first]!r}"
