"""Where a model is weak: its accuracy on parts of the split, with intervals, the surely worst first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.statistics import holm, wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.reporting.judged import Judged
    from bench.reporting.opening import Opened

__all__ = ["SMALL", "Slice", "slices"]

#: Slices of fewer samples are marked: their intervals are wide.
SMALL = 30

_PARTS = 5
_LEVEL = 0.05
_FEWEST = 20  # samples, to be divided by a measure at all
_MOST_GROUPS = 1000


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the split: what it is divided by, its name, its samples and how many were right.

    `below` says that it is worse than the rest of the split, by a test that allows for the number of slices.
    """

    kind: str
    name: str
    samples: int
    right: int
    low: float
    high: float
    below: bool = False

    @property
    def accuracy(self) -> float:
        """The share of right ones."""
        return self.right / self.samples

    @property
    def small(self) -> bool:
        """Whether there are so few samples that little can be said."""
        return self.samples < SMALL


def slices(judged: Judged, opened: Opened | None, positions: NDArray[np.int64] | None) -> list[Slice]:
    """All slices: by class, and where the images are here by brightness, contrast, size and group.

    `positions` are those of the samples in the opened split, -1 where a sample is not there. Small slices come last, and
    otherwise they are sorted by the upper end of the interval: what is surely bad comes first.
    """
    if judged.predictions is None:
        rows = judged.confusion
        of_class = [("class", name, int(rows[i].sum()), int(rows[i, i])) for i, name in enumerate(judged.classes)]
        return _judged(of_class, judged)
    right = judged.predictions.right
    parts = list(_by_class(judged))
    if opened is not None and positions is not None and (positions >= 0).any():
        parts += _by_looks(opened.looks(judged.split), positions)
        parts += _by_group(opened.groups(judged.split), positions, pairs=judged.pairs)
    return _judged([(kind, name, int(own.sum()), int(right[own].sum())) for kind, name, own in parts], judged)


def _judged(parts: Sequence[tuple[str, str, int, int]], judged: Judged) -> list[Slice]:
    """Slices of (kind, name, samples, right), with their intervals and the test, sorted."""
    found = [Slice(*part, *wilson_interval(part[3], part[2])) for part in parts if part[2]]
    tested = [one for one in found if not one.small]
    worse = {id(one) for one, p in zip(tested, _p_values(tested, judged), strict=True) if p < _LEVEL}
    marked = [replace(one, below=id(one) in worse) for one in found]
    return sorted(marked, key=lambda one: (one.small, one.high, one.accuracy, -one.samples))


def _p_values(tested: Sequence[Slice], judged: Judged) -> list[float]:
    """Of Fisher's exact test, one-sided, of each slice against the rest of the split; adjusted for all (Holm)."""
    factorials = np.concatenate([[0.0], np.log(np.arange(1, judged.num_samples + 1)).cumsum()])
    return holm([_tail(one, judged.num_samples, judged.num_samples - judged.num_right, factorials) for one in tested])


def _tail(one: Slice, total: int, all_wrong: int, factorials: NDArray[np.float64]) -> float:
    """The chance that so many samples of all hold at least as many wrong ones: the hypergeometric distribution's tail."""

    def choices(of: int, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(factorials[of] - factorials[chosen] - factorials[of - chosen])

    wrong = np.arange(one.samples - one.right, min(one.samples, all_wrong) + 1)
    wrong = wrong[one.samples - wrong <= total - all_wrong]
    ways = choices(all_wrong, wrong) + choices(total - all_wrong, one.samples - wrong)
    return min(1.0, float(np.exp(ways - choices(total, np.array(one.samples))).sum()))


def _by_class(judged: Judged) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    assert judged.predictions is not None  # noqa: S101
    for label, name in enumerate(judged.classes):
        yield "class", name, judged.predictions.labels == label


def _by_looks(
    looks: dict[str, NDArray[np.float64]], positions: NDArray[np.int64]
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Fifths of the samples by each measure."""
    for kind, values in looks.items():
        own = np.where(positions >= 0, values[positions], np.nan)
        known = own[np.isfinite(own)]
        if len(known) < _FEWEST:
            continue
        edges = np.unique(np.quantile(known, np.linspace(0, 1, _PARTS + 1)))
        if len(edges) < 3:  # noqa: PLR2004  # all samples are alike
            continue
        places = np.clip(np.searchsorted(edges, own, side="right") - 1, 0, len(edges) - 2)
        for part in range(len(edges) - 1):
            yield kind, _range(kind, edges[part], edges[part + 1]), (places == part) & np.isfinite(own)


def _range(kind: str, low: float, high: float) -> str:
    if kind == "size":
        return f"{low:,.0f} to {high:,.0f} pixels"
    return f"{100 * low:.0f} to {100 * high:.0f} %" if high - low > 0.02 else f"{100 * low:.1f} to {100 * high:.1f} %"  # noqa: PLR2004


def _by_group(
    groups: NDArray[Any] | None, positions: NDArray[np.int64], *, pairs: bool
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """A slice a group; a pair belongs to the identities of both its images."""
    if groups is None:
        return
    kind = "identity" if pairs else "group"
    names, codes = np.unique(groups, return_inverse=True)
    codes = codes.reshape(len(groups), -1)[positions]
    known = positions >= 0
    sizes = np.bincount(codes[known].ravel(), minlength=len(names))
    for number in np.argsort(-sizes, kind="stable")[:_MOST_GROUPS].tolist():
        yield kind, str(names[number]), (codes == number).any(1) & known
