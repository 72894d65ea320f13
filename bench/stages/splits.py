"""Hold out a share of a set: stratified by class, seeded, and never through the middle of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["hold_out"]


def hold_out(
    labels: NDArray[np.int64],
    share: float,
    *,
    seed: int,
    classes: Sequence[str],
    groups: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions (kept, held out), both sorted. Every class is in both, by `share` as nearly as its images allow.

    With groups, whole groups are held out until each class has its share; none that holds the last images of a class
    in what is kept. Raises DataError where a class has too few images (or groups) to be in both.
    """
    if groups is None:
        groups = np.arange(len(labels))
    random = np.random.default_rng(seed)
    order = random.permutation(int(groups.max()) + 1)  # a random order of the groups, the same for every class
    by_group = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[by_group], np.arange(len(order) + 1))
    held = np.zeros(len(labels), dtype=bool)
    counts = np.bincount(labels, minlength=len(classes))
    wanted = np.clip(np.round(counts * share).astype(np.int64), 1, np.maximum(1, counts - 1))
    taken = np.zeros_like(wanted)

    def take(group: int) -> bool:
        rows = by_group[starts[group] : starts[group + 1]]
        sizes = np.bincount(labels[rows], minlength=len(classes))
        if held[rows[0]] or np.any((sizes > 0) & (taken + sizes >= counts)):
            return False
        held[rows] = True
        taken[:] += sizes
        return True

    for label in np.argsort(counts, kind="stable"):  # rare classes choose first: they have the least choice
        members = np.flatnonzero(labels == label)
        own = np.unique(groups[members])
        if len(own) < 2:  # noqa: PLR2004
            what = "image" if len(own) == len(members) else "group"
            raise DataError(
                f"class {classes[label]!r} has {len(own)} {what}; a split needs at least 2",
                hint="add images, drop the class, or give the dataset splits of its own",
            )
        sizes = np.bincount(groups[members])
        own = own[np.argsort(order[own])]
        for group in own:
            # A large group may overshoot by more than it helps.
            if taken[label] + sizes[group] - wanted[label] <= wanted[label] - taken[label]:
                take(group)
        if not taken[label]:  # every group is too large: the smallest does least harm
            any(take(group) for group in own[np.argsort(sizes[own], kind="stable")])
        if not taken[label]:
            raise DataError(
                f"class {classes[label]!r} cannot be in both parts of a split without breaking a group",
                hint="use fewer or smaller groups, or give the dataset splits of its own",
            )
    return np.flatnonzero(~held), np.flatnonzero(held)
