"""Finding the fastest of several contenders on a noisy machine: blocks in turns, ratios within a round, elimination."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Interval", "Outcome", "duel", "median_interval", "race"]

Contender = TypeVar("Contender", bound=Hashable)

_ROUNDS = 12
_FEWEST_ROUNDS = 6  # the fewest of which a median has an interval of 95 %
_TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and its 95 % interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """For the record, to four digits."""
        return {"ratio": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Contender]):
    """Who won, and everybody's times a round (a contender that was eliminated has fewer)."""

    best: Contender
    times: dict[Contender, list[float]]

    def ratios(self, against: Contender) -> dict[Contender, float]:
        """How many times as fast each was as `against`: the median over the rounds that both took part in."""
        base = self.times[against]
        return {
            contender: round(statistics.median(b / a for a, b in zip(times, base, strict=False)), 4)
            for contender, times in self.times.items()
        }


def race(
    contenders: Sequence[Contender],
    block: Callable[[Contender], float],
    *,
    order: random.Random,
    rounds: int = _ROUNDS,
) -> Outcome[Contender]:
    """Every round times each contender once (`block` -> seconds), in a new order; whoever is surely slower drops out.

    The first contender is the default. It stays to the end, and wins unless another is faster beyond the noise.
    """
    times: dict[Contender, list[float]] = {contender: [] for contender in contenders}
    racing = list(contenders)
    for number in range(1, rounds + 1):
        for contender in order.sample(racing, len(racing)):
            times[contender].append(block(contender))
        if number >= _FEWEST_ROUNDS and len(racing) > 1:
            leader = min(racing, key=lambda contender: statistics.median(times[contender]))
            racing = [c for c in racing if c in {contenders[0], leader} or not _slower(times[c], times[leader])]
            if racing == [contenders[0]]:
                break
    leader = min(racing, key=lambda contender: statistics.median(times[contender]))
    default = contenders[0]
    return Outcome(leader if _slower(times[default], times[leader]) else default, times)


def duel(
    default: Contender, other: Contender, block: Callable[[Contender], float], *, rounds: int, order: random.Random
) -> Interval:
    """How many times as fast `other` is, from rounds of their own: a race's winner looks better than it is."""
    ratios = []
    for _ in range(rounds):
        times = {contender: block(contender) for contender in order.sample([default, other], 2)}
        ratios.append(times[default] / times[other])
    return median_interval(ratios)


def median_interval(values: Sequence[float]) -> Interval:
    """The median with its distribution-free 95 % interval by order statistics; unbounded below 6 values.

    Source: Conover, Practical Nonparametric Statistics, 3rd ed. (1999), 3.2.
    """
    ordered, count = sorted(values), len(values)
    middle = statistics.median(ordered)
    rank, tail = 0, 0.5**count
    while tail <= _TAIL:  # the chance that at most `rank` values lie below the true median
        rank += 1
        tail += math.comb(count, rank) * 0.5**count
    if rank == 0:
        return Interval(middle, -math.inf, math.inf)
    return Interval(middle, ordered[rank - 1], ordered[count - rank])


def _slower(times: Sequence[float], leader: Sequence[float]) -> bool:
    """Whether a contender is slower than the leader beyond the noise, compared round by round."""
    return median_interval([a / b for a, b in zip(times, leader, strict=False)]).low > 1
