"""The predictions that a run has saved: what every comparison, report and listing of mistakes is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.record import Run

__all__ = ["SPLITS", "SavedPredictions", "read_predictions", "saved_splits"]

#: The splits that are predicted, the one that decides first.
SPLITS = ("test", "validation")


@dataclass(frozen=True, slots=True)
class SavedPredictions:
    """What a run said of one split: ids, labels and guesses N, probabilities N,num_classes (float32).

    Of pairs, class 1 is "same", the second column is its score, and the guesses were made at the run's threshold.
    """

    split: str
    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    guesses: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.labels)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each guess is right, N."""
        right: NDArray[np.bool_] = self.guesses == self.labels
        return right


def saved_splits(run: Run) -> tuple[str, ...]:
    """The splits whose predictions lie in the run's folder, the test split first."""
    return tuple(split for split in SPLITS if (run.folder / "predictions" / f"{split}.npz").is_file())


def read_predictions(run: Run, split: str) -> SavedPredictions:
    """One split's predictions. Raises BenchError where they are missing or damaged."""
    import zipfile
    import zlib

    import numpy as np

    path = run.folder / "predictions" / f"{split}.npz"
    hint = _remedy(run, split) or f"the run needs to be trained again: bench run {run.folder / 'recipe.toml'}"
    try:
        # NumPy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            parts = [saved[name] for name in ("ids", "labels", "guesses", "probabilities")]
    except FileNotFoundError as cause:
        raise BenchError(f"run {run.name} has no predictions of its {split} split", hint=hint) from cause
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as cause:
        raise BenchError(f"{path} is damaged: {cause}", hint=hint) from cause
    if len({len(part) for part in parts}) != 1:
        raise BenchError(f"{path} is damaged: its parts differ in length", hint=hint)
    return SavedPredictions(split, *parts)


def _remedy(run: Run, split: str) -> str:
    """What to do where predictions of another split are there, or the run has not come to its end; otherwise ""."""
    if others := [name for name in saved_splits(run) if name != split]:
        return f"it has those of its {others[0]} split"
    try:
        status = run.status()
    except BenchError:
        return ""
    remedies = {"interrupted": f"bench run --resume {run.name} finishes it", "running": "wait until it has ended"}
    return remedies.get(status, "")
