"""What the gate allows, and what it reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["LIMITS", "GateReport"]

#: What [export.gate] says where a recipe says nothing.
LIMITS: Mapping[str, float] = {
    "fp32_agreement": 1.0,
    "fp32_max_difference": 1e-3,
    "fp16_agreement": 0.995,
    "fp16_accuracy_loss": 0.2,
    "int8_accuracy_loss": 0.5,
    "batch_difference": 1e-3,
}


@dataclass(slots=True)
class GateReport:
    """What the gate found; plain values, kept in the file's metadata. Differences are those of probabilities.

    With `partial`, the samples are a part of those that were judged at the export: a loss of accuracy counts where it is
    beyond the limit for certain, by its interval. `agreement` counts differences at a tie (the trained model's two best, or the score and the threshold, nearer to
    each other than `tie_width`) as agreement. `accuracy` holds both models' with intervals, their difference in points
    (exported minus trained) with its paired interval, and McNemar's p. `worst` are the samples that differ most.
    """

    precision: str
    split: str
    note: str
    samples: int
    limits: dict[str, float]
    partial: bool = False
    reasons: list[str] = field(default_factory=list)
    not_finite: int = 0
    max_difference: float | None = None
    mean_difference: float | None = None
    agreement: float | None = None
    disagreements: int = 0
    ties: int = 0
    tie_width: float | None = None
    accuracy: dict[str, Any] = field(default_factory=dict)
    batches: list[dict[str, Any]] = field(default_factory=list)
    worst: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return not self.reasons

    @property
    def summary(self) -> str:
        """What was found, in a sentence."""
        if not self.passed:
            return f"rejected: {'; '.join(self.reasons)}"
        low, high = self.accuracy["interval_points"]
        ties = f" ({self.ties} differ at a tie)" if self.ties else ""
        return (
            f"accepted on {self.samples:,} {self.split} samples: agreement {self.agreement:.2%}{ties}, probabilities "
            f"differ by up to {self.max_difference:.2g}, accuracy {self.accuracy['exported']:.2%} against "
            f"{self.accuracy['trained']:.2%} ({self.accuracy['difference_points']:+.2f} points [{low:+.2f}, {high:+.2f}])"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values, `passed` and `summary` among them."""
        return {"passed": self.passed, "summary": self.summary, **asdict(self)}
