"""What a run's folder proves about its training: numbers of each epoch, predictions, weights. And two of them compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.predictions import SPLITS, SavedPredictions, read_predictions
from bench.statistics import mcnemar, paired_difference_interval, wilson_interval

if TYPE_CHECKING:
    from bench.record import Run

__all__ = ["Comparison", "Evidence", "Paired", "collect", "compare"]

#: Split -> the prefix of its metrics.
_PREFIXES = {"test": "test", "validation": "val"}


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """`epochs` maps numbers to values that training alone decides, `weights` tensors' names to their sha256.

    `ended` says whether training came to its end; `lacking` names what should be there and is not.
    """

    epochs: Mapping[int, Mapping[str, float]]
    predictions: Mapping[str, SavedPredictions]
    weights: Mapping[str, str]
    ended: bool
    lacking: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Paired:
    """A split's predictions, then and now: on `samples` common samples, `differing` guesses are others.

    `gained` counts what is right only now, `lost` what was right only then. `interval` is that of the accuracy now less
    that then (Tango), `p_value` McNemar's.
    """

    split: str
    samples: int
    identical: bool
    differing: int
    right_then: int
    right_now: int
    gained: int
    lost: int
    p_value: float
    interval: tuple[float, float]

    def accuracy(self, right: int) -> tuple[float, float, float]:
        """(accuracy, low, high) of so many right ones."""
        return right / self.samples, *wilson_interval(right, self.samples)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`departs` says where the values of the epochs first differ, `weights` whether they are the same (None: unknown).

    `lacking` names what could not be compared.
    """

    epochs: int
    departs: str
    paired: tuple[Paired, ...]
    weights: bool | None
    digests: tuple[str, str]
    lacking: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether something was compared, and all of it is the same to the bit."""
        compared = bool(self.epochs or self.paired or self.weights is not None)
        return compared and not self.departs and self.weights is not False and all(one.identical for one in self.paired)

    @property
    def tested(self) -> Paired | None:
        """The predictions that decide where bits do not: those of the test split, else of the validation split."""
        return next(iter(self.paired), None)

    def difference(self) -> str:
        """The first thing that is not the same, in words."""
        if self.departs:
            return self.departs
        for one in self.paired:
            if not one.identical:
                what = f"{one.differing:,} of {one.samples:,} {one.split} predictions" if one.differing else ""
                return f"{what} differ" if what else f"the {one.split} probabilities differ, the guesses do not"
        return "the weights differ" if self.weights is False else "nothing could be compared"


def collect(run: Run) -> Evidence:
    """What a run's folder holds; what is missing or damaged is named, not raised."""
    info = run.info()
    metrics: Mapping[str, Any] = info.get("metrics") or {}
    ended = info["status"] == "finished"
    lacking: list[str] = []
    epochs = {int(line["epoch"]): _decided(line["values"]) for line in run.epochs()}
    if ended and len(epochs) < metrics.get("epochs", 0):
        lacking.append(f"{metrics['epochs'] - len(epochs):.0f} of {metrics['epochs']:.0f} epochs: not in metrics.jsonl")
    predictions = {}
    for split in SPLITS:
        if f"{_PREFIXES[split]}_accuracy" not in metrics or not ended:
            continue
        try:
            predictions[split] = read_predictions(run, split)
        except BenchError as error:
            lacking.append(f"{split} predictions: {error}")
    weights = _weights(run, lacking) if ended else {}
    return Evidence(epochs, predictions, weights, ended, tuple(lacking))


def compare(recorded: Evidence, now: Evidence) -> Comparison:
    """Two runs' evidence; of predictions, the samples that both have."""
    numbers = sorted(recorded.epochs.keys() & now.epochs.keys())
    paired = [
        one
        for split, saved in recorded.predictions.items()
        if split in now.predictions and (one := _paired(saved, now.predictions[split])) is not None
    ]
    lacking = [
        *recorded.lacking,
        *(f"{split} predictions: none now" for split in recorded.predictions if split not in now.predictions),
    ]
    known = bool(recorded.weights and now.weights)
    return Comparison(
        epochs=len(numbers),
        departs=_departure(recorded, now, numbers),
        paired=tuple(paired),
        weights=dict(recorded.weights) == dict(now.weights) if known else None,
        digests=(_digest(recorded.weights), _digest(now.weights)),
        lacking=tuple(lacking),
    )


def _decided(values: Mapping[str, float]) -> dict[str, float]:
    """An epoch's values without times and loads."""
    return {name: value for name, value in values.items() if name == "lr" or name.startswith(("train_", "val_"))}


def _weights(run: Run, lacking: list[str]) -> dict[str, str]:
    """The sha256 of each tensor. That of the file is no use: it holds the run's name."""
    import torch

    from bench.stages import checkpoint

    path = run.folder / "model.safetensors"
    if not path.is_file():
        lacking.append("weights: there is no model.safetensors")
        return {}
    try:
        tensors, _ = checkpoint.load(path)
    except BenchError as error:
        lacking.append(f"weights: {error}")
        return {}
    found = {}
    for name, tensor in sorted(tensors.items()):
        digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        found[name] = digest.hexdigest()
    return found


def _digest(weights: Mapping[str, str]) -> str:
    text = "".join(f"{name} {digest}\n" for name, digest in sorted(weights.items()))
    return hashlib.sha256(text.encode()).hexdigest() if weights else ""


def _departure(recorded: Evidence, now: Evidence, numbers: list[int]) -> str:
    """Where the epochs' values first differ, in words; "" where they do not."""
    for number in numbers:
        then, again = recorded.epochs[number], now.epochs[number]
        for name in (name for name in then if name in again):
            if then[name] != again[name] and not (then[name] != then[name] and again[name] != again[name]):  # NaN
                return f"{name} of epoch {number} was {then[name]!r}, now it is {again[name]!r}"
    if recorded.ended and now.ended and len(recorded.epochs) != len(now.epochs) and not recorded.lacking:
        return f"the record has {len(recorded.epochs)} epochs, the rerun {len(now.epochs)}"
    return ""


def _paired(then: SavedPredictions, now: SavedPredictions) -> Paired | None:
    """Both on their common samples; None where there are none."""
    import numpy as np

    _, rows_then, rows_now = np.intersect1d(then.ids, now.ids, return_indices=True)
    same_label = then.labels[rows_then] == now.labels[rows_now]
    rows_then, rows_now = rows_then[same_label], rows_now[same_label]
    if not len(rows_then):
        return None
    right_then, right_now = then.right[rows_then], now.right[rows_now]
    gained, lost = int((right_now & ~right_then).sum()), int((right_then & ~right_now).sum())
    names = ("ids", "labels", "guesses", "probabilities")
    return Paired(
        split=then.split,
        samples=len(rows_then),
        identical=all(getattr(then, n).tobytes() == getattr(now, n).tobytes() for n in names),
        differing=int((then.guesses[rows_then] != now.guesses[rows_now]).sum()),
        right_then=int(right_then.sum()),
        right_now=int(right_now.sum()),
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
        interval=paired_difference_interval(gained, lost, len(rows_then)),
    )
