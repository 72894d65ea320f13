"""Time things against each other in one run: interleaved, repeated, reported as ratios with their spread."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Ratios", "compare", "seconds_of"]


@dataclass(frozen=True, slots=True)
class Ratios:
    """Pairwise ratios of two durations: `other` seconds over `ours`, so that more than 1 means ours is faster."""

    name: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The ratio to quote."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        return f"{self.name}: {self.median:.2f} (median of {len(self.values)} pairs, {low:.2f} to {high:.2f})"


def compare(
    name: str, ours: Callable[[], float], other: Callable[[], float], *, rounds: int = 5, warm_up: int = 1
) -> Ratios:
    """Run both in turn, A B A B ..., each returning its own seconds; the first `warm_up` rounds do not count."""
    pairs = [(ours(), other()) for _ in range(warm_up + rounds)][warm_up:]
    ratios = Ratios(name, tuple(theirs / own for own, theirs in pairs))
    sys.stderr.write(f"\n{ratios}\n")
    return ratios


def seconds_of(work: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def table(rows: Mapping[str, float], unit: str) -> None:
    """Print absolute figures beside the ratios; they are for reading, never asserted."""
    for name, value in rows.items():
        sys.stderr.write(f"  {name}: {value:.4g} {unit}\n")
