"""Whether the best trial is better than the others, by their answers on the same validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.statistics import holm, mcnemar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from optuna.trial import FrozenTrial

    from bench.record import Run

__all__ = ["Noise", "noise"]

_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Noise:
    """The best trial against the second, and against all others.

    `gained` validation samples are right only with the best, `lost` only with the second; `p_value` is McNemar's, and
    `adjusted` is it for as many comparisons as there are (Holm). Of `compared` other trials `indistinct` cannot be told
    from the best at 5 %, adjusted.
    """

    best: int
    second: int
    samples: int
    gained: int
    lost: int
    p_value: float
    adjusted: float
    compared: int
    indistinct: int

    @property
    def within(self) -> bool:
        """Whether the second best could as well be the best."""
        return self.adjusted >= _LEVEL

    @property
    def text(self) -> str:
        """One or two sentences for people."""
        counts = f"{self.gained} and {self.lost} of {self.samples:,} validation samples are right in only one of them"
        if self.within:
            verdict = f"Trial {self.second}, the second best, is within the noise of trial {self.best}"
        elif self.gained > self.lost:
            verdict = f"Trial {self.best} is better than trial {self.second}, the second best"
        else:  # the metric was another one
            verdict = f"Trial {self.second}, the second best, has more right answers than trial {self.best}"
        many = f", {self.adjusted:.2g} adjusted for {self.compared} comparisons" if self.compared > 1 else ""
        rest = (
            f" {self.indistinct} of {self.compared} other trials cannot be told from it." if self.compared > 1 else ""
        )
        return f"{verdict}: {counts} (McNemar p = {self.p_value:.2g}{many}).{rest}"

    def as_json(self, *, first_runs: bool = False) -> dict[str, Any]:
        """All fields, and the sentences; with `first_runs` they say that each trial has more runs than the one compared."""
        text = f"{self.text} By the first run of each trial." if first_runs else self.text
        return {**asdict(self), "within": self.within, "text": text}


def noise(ranked: Sequence[FrozenTrial], runs: Mapping[int, Run]) -> Noise | None:
    """Compare the first of `ranked` (best first) with the others by McNemar's test on saved validation predictions.

    `runs` are those of the trials, by number. Trials without predictions, or on other validation samples, are left out.
    None where the best has none, or nothing is left.
    """
    right = {trial.number: _right(runs.get(trial.number)) for trial in ranked}
    first = right.get(ranked[0].number) if ranked else None
    if first is None:
        return None
    tables = {
        trial.number: (_only(first, other), _only(other, first))
        for trial in ranked[1:]
        if (other := right[trial.number]) is not None and other.keys() == first.keys()
    }
    if not tables:
        return None
    second, (gained, lost) = next(iter(tables.items()))
    p_values = [mcnemar(*table) for table in tables.values()]
    adjusted = holm(p_values)
    indistinct = sum(p >= _LEVEL for p in adjusted)
    counts = (len(first), gained, lost, p_values[0], adjusted[0])
    return Noise(ranked[0].number, second, *counts, len(tables), indistinct)


def _right(run: Run | None) -> dict[str, bool] | None:
    """Sample -> whether the run's answer is right."""
    import numpy as np

    path = run.folder / "predictions" / "validation.npz" if run else None
    if path is None or not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as saved:
        right: NDArray[np.bool_] = saved["guesses"] == saved["labels"]
        return dict(zip(saved["ids"].tolist(), right.tolist(), strict=True))


def _only(first: Mapping[str, bool], second: Mapping[str, bool]) -> int:
    return sum(right and not second[name] for name, right in first.items())
