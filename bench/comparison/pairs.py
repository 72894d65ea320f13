"""Every pair of entries of one test set, tested, and corrected for all pairs of all test sets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from bench.comparison.model import LEVEL, Part, Verdict
from bench.comparison.paired import mcnemar_p, paired_intervals
from bench.comparison.varying import parts_of
from bench.statistics import holm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.comparison.answers import Evidence

    Counts = NDArray[np.int64]

__all__ = ["Pairs", "judge"]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of entries by their numbers, as arrays of one length: thousands of verdicts are made when they are asked for.

    `gained` and `lost` count the images that only the first, only the second gets right; of pairs in which seeds or
    folds vary they are 0, and `parts` (position -> its parts and difference) decides.
    """

    first: Counts
    second: Counts
    gained: Counts
    lost: Counts
    trials: Counts
    p: NDArray[np.float64]
    adjusted: NDArray[np.float64]
    parts: Mapping[int, tuple[float, tuple[Part, ...]]]

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.p)

    def differing(self, *, of: int | None = None, among: Collection[int] | None = None) -> set[tuple[int, int]]:
        """The pairs between which there is a difference: all, those with one entry, or those among some."""
        found = np.flatnonzero(self._wanted(of, among) & (self.adjusted < LEVEL))
        return set(zip(self.first[found].tolist(), self.second[found].tolist(), strict=True))

    def verdicts(self, *, of: int | None = None, among: Collection[int] | None = None) -> Iterator[Verdict]:
        """The verdicts: all, those on one entry, or those among some."""
        chosen = np.flatnonzero(self._wanted(of, among))
        chosen = chosen[np.lexsort((self.second[chosen], self.first[chosen]))]
        counts = self.gained[chosen], self.lost[chosen], self.trials[chosen]
        columns = ((counts[0] - counts[1]) / counts[2], *paired_intervals(*counts))
        for place, *numbers in zip(chosen.tolist(), *(column.tolist() for column in columns), strict=True):
            yield self._verdict(place, *numbers)

    def _wanted(self, of: int | None, among: Collection[int] | None) -> NDArray[np.bool_]:
        wanted = np.ones(len(self), bool)
        if of is not None:
            wanted &= (self.first == of) | (self.second == of)
        if among is not None:
            wanted &= np.isin(self.first, list(among)) & np.isin(self.second, list(among))
        return wanted

    def _verdict(self, place: int, difference: float, low: float, high: float) -> Verdict:
        test = "McNemar"
        parts: tuple[Part, ...] = ()
        if place in self.parts:
            difference, parts = self.parts[place]
            widest = max(parts, key=lambda part: part.high - part.low)
            low, high = widest.low, widest.high
            test = "folds" if len(parts) == 1 else "seeds and images"
        numbers = int(self.first[place]), int(self.second[place])
        p = float(self.p[place]), float(self.adjusted[place])
        return Verdict(*numbers, difference, low, high, *p, test, parts)


def judge(test_sets: Sequence[Mapping[int, Evidence]]) -> Pairs:
    """Test every pair of each set; a set is number -> evidence, the more accurate entries first."""
    tables = [table for one in test_sets for table in _tables(one)]
    columns = np.concatenate([np.zeros((5, 0), np.int64), *(counts for counts, _ in tables)], axis=1)
    parts: dict[int, tuple[float, tuple[Part, ...]]] = {}
    start = 0
    for counts, own in tables:
        parts |= {start + place: found for place, found in own.items()}
        start += counts.shape[1]
    p = mcnemar_p(columns[2], columns[3])
    for place, (_, found) in parts.items():
        p[place] = max(part.p for part in found)
    first, second, gained, lost, trials = columns
    return Pairs(first, second, gained, lost, trials, p, np.array(holm(p.tolist())), parts)


def _tables(entries: Mapping[int, Evidence]) -> Iterator[tuple[Counts, dict[int, tuple[float, tuple[Part, ...]]]]]:
    """The pairs of single runs, all at once, and those in which seeds or folds vary, one by one: first, second, gained,
    lost, trials as rows.
    """
    single = {number: one.right for number, one in entries.items() if one.kind == "run" and one.right is not None}
    if len(single) > 1:
        yield _counted(list(single), np.stack(list(single.values()))), {}
    varying = [(a, b) for a, b in combinations(entries, 2) if a not in single or b not in single]
    if varying:
        firsts, seconds = np.array(varying, np.int64).T
        nothing, one = np.zeros_like(firsts), np.ones_like(firsts)
        found = {place: _varying(entries[a], entries[b]) for place, (a, b) in enumerate(varying)}
        yield np.stack([firsts, seconds, nothing, nothing, one]), found


def _counted(numbers: Sequence[int], right: Counts) -> Counts:
    """Pairs of single runs, from which images each gets right: runs,N."""
    # As float32 the product is one of BLAS, and exact for up to 16 million images.
    table = right.astype(np.float32)
    both = (table @ table.T).astype(np.int64)
    totals = np.diag(both)
    rows, columns = np.triu_indices(len(numbers), 1)
    shared = both[rows, columns]
    named = np.array(numbers, np.int64)
    trials = np.full(len(rows), right.shape[1], np.int64)
    return np.stack([named[rows], named[columns], totals[rows] - shared, totals[columns] - shared, trials])


def _varying(a: Evidence, b: Evidence) -> tuple[float, tuple[Part, ...]]:
    means = [float(np.mean(list(one.accuracies.values()))) for one in (a, b)]
    return means[0] - means[1], parts_of(a, b)
