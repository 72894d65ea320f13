"""What a run said of one split: from the saved predictions, or from the evaluation alone where those are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.predictions import SPLITS, SavedPredictions, read_predictions, saved_splits
from bench.statistics import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.reporting.reading import Recorded

__all__ = ["PREFIXES", "Judged", "checked_predictions", "judge"]

#: Split -> the prefix of its metrics.
PREFIXES = {"test": "test", "validation": "val"}


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """`confusion[i, j]` counts samples of class i that were taken for class j; `predictions` may be None."""

    split: str
    pairs: bool
    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    predictions: SavedPredictions | None
    metrics: Mapping[str, float]
    threshold: float | None

    @property
    def num_right(self) -> int:
        """How many samples were judged rightly."""
        return int(np.trace(self.confusion))

    @property
    def num_samples(self) -> int:
        """How many samples were judged."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The share of right ones."""
        return self.num_right / max(self.num_samples, 1)

    def confidences(self) -> NDArray[np.float64]:
        """How probable the run took its guess for, N; of pairs the score."""
        assert self.predictions is not None  # noqa: S101  # callers ask where there are some
        chances = self.predictions.probabilities.astype(np.float64)
        return chances[:, 1] if self.pairs else chances[np.arange(len(chances)), self.predictions.guesses]

    def margins(self) -> NDArray[np.float64]:
        """How clear each decision was, N: the distance of the two most probable classes, or of score and threshold."""
        assert self.predictions is not None  # noqa: S101
        if self.pairs:
            return np.abs(self.confidences() - (0.5 if self.threshold is None else self.threshold))
        top = np.partition(self.predictions.probabilities.astype(np.float64), -2, axis=1)[:, -2:]
        return np.asarray(top[:, 1] - top[:, 0], dtype=np.float64)

    def class_rows(self) -> list[dict[str, Any]]:
        """A row a class: support, precision and recall with Wilson intervals, F1; None where nothing was counted."""
        rows = []
        for index, name in enumerate(self.classes):
            right = int(self.confusion[index, index])
            support, chosen = int(self.confusion[index].sum()), int(self.confusion[:, index].sum())
            rows.append(
                {
                    "name": name,
                    "support": support,
                    "precision": right / chosen if chosen else None,
                    "precision_interval": wilson_interval(right, chosen) if chosen else None,
                    "recall": right / support if support else None,
                    "recall_interval": wilson_interval(right, support) if support else None,
                    "f1": 2 * right / (support + chosen) if support + chosen else None,
                }
            )
        return rows


def judge(recorded: Recorded, split: str | None, problems: list[str]) -> Judged | None:
    """The results on a split, by default the test split where there are any, otherwise the validation split.

    None where the run has none. What is damaged is added to `problems`. Raises BenchError where a split was asked for
    that the run has no results of, though it has others.
    """
    known = [name for name in SPLITS if name in saved_splits(recorded.run) or name in recorded.evaluation]
    if split is not None and known and split not in known:
        raise BenchError(
            f"run {recorded.run.name} has no results on the {split} split", hint=f"it has: {', '.join(known)}"
        )
    for name in known if split is None else [split] if known else []:
        found = _judge(recorded, name, problems)
        if found is not None:
            return found
    return None


def checked_predictions(
    recorded: Recorded, split: str, problems: list[str], *, num_classes: int
) -> SavedPredictions | None:
    """The saved predictions, or None where they are missing, damaged or not of these classes."""
    if split not in saved_splits(recorded.run):
        return None
    try:
        found = read_predictions(recorded.run, split)
    except BenchError as cause:
        problems.append(str(cause))
        return None
    fits = found.probabilities.ndim == 2 and found.probabilities.shape[1] == num_classes  # noqa: PLR2004
    integers = found.labels.dtype.kind in "iu" and found.guesses.dtype.kind in "iu"
    if not fits or not integers or not len(found):
        problems.append(f"predictions/{split}.npz is damaged: it is not of {num_classes} classes")
        return None
    numbers = np.concatenate([found.labels, found.guesses])
    if numbers.min() < 0 or numbers.max() >= num_classes:
        problems.append(f"predictions/{split}.npz is damaged: labels are not in 0..{num_classes - 1}")
        return None
    if not np.isfinite(found.probabilities).all():
        problems.append(f"predictions/{split}.npz holds probabilities that are no numbers, here taken for 0")
        chances = np.nan_to_num(found.probabilities, nan=0.0, posinf=1.0, neginf=0.0)
        return SavedPredictions(split, found.ids, found.labels, found.guesses, chances)
    return found


def _judge(recorded: Recorded, split: str, problems: list[str]) -> Judged | None:
    evaluation = recorded.evaluation.get(split) or {}
    classes = recorded.classes()
    predictions = checked_predictions(recorded, split, problems, num_classes=len(classes))
    if predictions is not None:
        codes = predictions.labels * len(classes) + predictions.guesses
        confusion = np.bincount(codes, minlength=len(classes) ** 2).reshape(len(classes), -1)
    elif evaluation:
        classes = tuple(str(entry["name"]) for entry in evaluation["classes"])
        confusion = np.asarray(evaluation["confusion"])
        problems.append(f"the {split} predictions are not there: what needs them is left out")
    else:
        return None
    prefix = f"{PREFIXES[split]}_"
    tracked = {key.removeprefix(prefix): v for key, v in recorded.metrics.items() if key.startswith(prefix)}
    metrics = {**tracked, **(evaluation.get("metrics") or {})}
    threshold = evaluation.get("threshold", recorded.metrics.get("threshold"))
    return Judged(split, recorded.pairs, classes, confusion, predictions, metrics, threshold)
