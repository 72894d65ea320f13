"""What the leaderboard knows of an entry: plain values that fit into a file and need no run to be compared again."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bench.comparison.answers import Evidence
    from bench.comparison.model import Kind

__all__ = ["Answered", "Entry", "Standing", "answered_of", "entry_of"]


@dataclass(frozen=True, slots=True)
class Answered:
    """What an entry is judged by, as text: how many of its runs got each image right, and each seed's or fold's accuracy.

    `test_set` is a digest of the images' names and labels, `right` the base64 of the compressed counts, a byte an image;
    "" for folds. With them a kept entry is tested against new ones.
    """

    test_set: str
    samples: int
    accuracies: Mapping[str, float]
    right: str

    def evidence(self, kind: Kind) -> Evidence:
        """The same for bench.comparison. Raises ValueError where the text is damaged."""
        import numpy as np

        from bench.comparison.answers import Evidence

        right = None
        if kind != "folds":
            try:
                counts = zlib.decompressobj().decompress(base64.b64decode(self.right, validate=True), self.samples + 1)
            except zlib.error as cause:
                raise ValueError(f"the answers cannot be unpacked: {cause}") from cause
            if len(counts) != self.samples:
                raise ValueError(f"{len(counts)} answers of {self.samples} images")
            right = np.frombuffer(counts, dtype=np.uint8).astype(np.int64)
        accuracies = {int(number): accuracy for number, accuracy in self.accuracies.items()}
        return Evidence(kind, self.test_set, self.samples, right, accuracies)


@dataclass(frozen=True, slots=True)
class Standing:
    """How an entry stands to the leader of its dataset; `p` is adjusted by Holm's method, None where nothing was tested."""

    verdict: Literal["leader", "tied", "behind", "not tested"]
    p: float | None = None
    test: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A recipe's result on a dataset: of one run, or the mean of a group of seeds or folds.

    Accuracies and scores are shares of 1, `published` too. The interval is the 95 % one; over folds there is a standard
    error in its place. `fault` says why there is nothing to test with, `chosen` why these runs stand for the recipe.
    """

    recipe: str
    recipe_digest: str
    dataset: str
    fingerprint: str
    num_test: int
    pairs: bool
    kind: Kind
    num_runs: int
    accuracy: float
    low: float | None
    high: float | None
    standard_error: float | None
    published: float | None
    macro_f1: float | None
    auroc: float | None
    parameters: int
    train_seconds: float
    hardware: str
    versions: Mapping[str, str]
    date: str
    chosen: str
    answered: Answered | None
    changes: str = ""
    unfinished: int = 0
    fault: str = ""
    standing: Standing = field(default_factory=lambda: Standing("not tested"))

    @property
    def label(self) -> str:
        """The recipe's name without its ending, and what was changed in it."""
        name = self.recipe.removesuffix(".toml")
        return f"{name} ({self.changes})" if self.changes else name

    @property
    def test_set(self) -> str:
        """A digest of the test images' names and labels; "" where they are not known."""
        return self.answered.test_set if self.answered else ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def stands(self, standing: Standing) -> Entry:
        """The same with another standing."""
        return replace(self, standing=standing)


def answered_of(evidence: Evidence) -> Answered:
    """Evidence as text."""
    import numpy as np

    right = ""
    if evidence.right is not None:
        right = base64.b64encode(zlib.compress(evidence.right.astype(np.uint8).tobytes(), 9)).decode()
    accuracies = {str(number): accuracy for number, accuracy in evidence.accuracies.items()}
    return Answered(evidence.test_set, evidence.samples, accuracies, right)


def entry_of(values: Mapping[str, Any]) -> Entry:
    """An entry from `as_json`. Raises KeyError, TypeError or ValueError where the values are none."""
    answered = None if values["answered"] is None else Answered(**values["answered"])
    if not isinstance(values["accuracy"], float) or not isinstance(values["recipe"], str):
        raise TypeError(f"the entry of {values['recipe']!r} has no accuracy")
    entry = Entry(**{**values, "answered": answered, "standing": Standing(**values["standing"])})
    if answered is not None:
        answered.evidence(entry.kind)
    return entry
