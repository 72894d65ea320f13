"""Predictions and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.files import atomic
from bench.stages.optim import probabilities
from bench.statistics import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.stages.batches import Source
    from bench.stages.distributed import Team
    from bench.stages.optim import Loss

__all__ = ["Predictions", "evaluate", "predict", "score"]

#: Bins of the expected calibration error (Guo et al., arXiv:1706.04599).
_ECE_BINS = 15


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Class probabilities N,num_classes (float32), labels N, ids N, and the mean loss.

    Of pairs, the second column is the score for "same", and `decided` says what each was taken for (bench.stages.
    verification sets it); otherwise the most probable class counts.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    loss: float
    decided: NDArray[np.int64] | None = None

    @property
    def guesses(self) -> NDArray[np.int64]:
        """The class that each sample was taken for, N."""
        return self.probabilities.argmax(1) if self.decided is None else self.decided

    def save(self, path: Path) -> None:
        """Write ids, labels, guesses and probabilities as a .npz file (no pickle)."""
        with atomic(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                ids=np.array(self.ids, dtype=np.str_),
                labels=self.labels,
                guesses=self.guesses,
                probabilities=self.probabilities,
            )


@torch.no_grad()
def predict(
    forward: Callable[[torch.Tensor], torch.Tensor],
    source: Source,
    *,
    loss: Loss,
    loss_name: str,
    autocast: torch.autocast,
    team: Team | None = None,
) -> Predictions:
    """Run a model in evaluation mode over every sample of a source, in order; each process of a team over a shard."""
    outputs, losses = [], []
    for images, targets in source.ordered() if team is None else source.ordered(shard=team.shard):
        with autocast:
            output = forward(images)
        outputs.append(probabilities(output, loss_name))
        losses.append(loss(output, targets))
    if team is not None:
        shards = team.gather([(output.cpu(), each.cpu()) for output, each in zip(outputs, losses, strict=True)])
        outputs, losses = map(list, zip(*(pair for shard in shards for pair in shard), strict=True))
    mean = float(torch.cat(losses).double().mean().item())
    return Predictions(torch.cat(outputs).cpu().numpy(), source.images.labels, source.images.ids, mean)


def score(predictions: Predictions) -> dict[str, float]:
    """The tracked metrics: accuracy, balanced accuracy, macro F1, AUROC (one against the rest), log loss, ECE, loss.

    The averages over classes leave out classes that have no image.
    """
    from torchmetrics.functional import classification as tm

    probability = torch.from_numpy(predictions.probabilities)
    labels = torch.from_numpy(predictions.labels)
    classes = probability.shape[1]
    present = torch.bincount(labels, minlength=classes) > 0
    guesses = torch.from_numpy(predictions.guesses)
    options: dict[str, Any] = {"num_classes": classes, "validate_args": False}
    each_recall = tm.multiclass_recall(guesses, labels, average="none", **options)
    each_f1 = tm.multiclass_f1_score(guesses, labels, average="none", **options)
    each_auroc = _auroc(probability, labels, present)
    true = probability[torch.arange(len(labels)), labels]
    return {
        "accuracy": (guesses == labels).double().mean().item(),
        "balanced_accuracy": each_recall[present].double().mean().item(),
        "macro_f1": each_f1[present].double().mean().item(),
        "auroc": each_auroc,
        "log_loss": -true.double().clamp_min(1e-12).log().mean().item(),
        "ece": tm.multiclass_calibration_error(probability, labels, n_bins=_ECE_BINS, **options).item(),
        "loss": predictions.loss,
    }


def evaluate(predictions: Predictions, classes: Sequence[str]) -> dict[str, Any]:
    """The whole evaluation of a split: metrics, the accuracy's 95 % interval, each class, the confusion matrix.

    `confusion[i][j]` counts images of class i that were taken for class j.
    """
    guesses = predictions.guesses
    count = len(classes)
    confusion = np.bincount(predictions.labels * count + guesses, minlength=count**2).reshape(count, count)
    correct = np.diag(confusion)
    support, chosen = confusion.sum(1), confusion.sum(0)
    precision = np.divide(correct, chosen, out=np.zeros(count), where=chosen > 0)
    recall = np.divide(correct, support, out=np.zeros(count), where=support > 0)
    f1 = np.divide(2 * precision * recall, precision + recall, out=np.zeros(count), where=precision + recall > 0)
    return {
        "images": len(guesses),
        "metrics": score(predictions),
        "accuracy_interval": wilson_interval(int(correct.sum()), len(guesses)),
        "classes": [
            {
                "name": name,
                "images": int(support[index]),
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "recall_interval": wilson_interval(int(correct[index]), int(support[index])),
                "f1": float(f1[index]),
            }
            for index, name in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }


def _auroc(probability: torch.Tensor, labels: torch.Tensor, present: torch.Tensor) -> float:
    """Mean over the classes that have images of their own and others; NaN where none has."""
    from torchmetrics.functional import classification as tm

    if int(present.sum()) < 2:  # noqa: PLR2004
        return float("nan")
    columns = torch.nonzero(present).squeeze(1)
    each = [tm.binary_auroc(probability[:, c], (labels == c).long(), validate_args=False) for c in columns.tolist()]
    return float(torch.stack(each).double().mean().item())


def tracked(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Metric names as they are tracked: val_accuracy, test_loss."""
    return {f"{prefix}_{name}": value for name, value in metrics.items()}
