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

    With groups, whole groups are held out until each class has its share. Raises DataError where a class has too few
    images (or groups) to be in both.
    """
    if groups is None:
        groups = np.arange(len(labels))
    random = np.random.default_rng(seed)
    order = random.permutation(int(groups.max()) + 1)  # a random order of the groups, the same for every class
    by_group = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[by_group], np.arange(len(order) + 1))
    held = np.zeros(len(labels), dtype=bool)
    counts = np.bincount(labels, minlength=len(classes))
    wanted = np.maximum(1, np.round(counts * share)).astype(np.int64)
    taken = np.zeros_like(wanted)
    for label in np.argsort(counts, kind="stable"):  # rare classes choose first: they have the least choice
        members = np.flatnonzero(labels == label)
        own = np.unique(groups[members])
        if len(own) < 2:  # noqa: PLR2004
            what = "image" if len(own) == len(members) else "group"
            raise DataError(
                f"class {classes[label]!r} has {len(own)} {what}; a split needs at least 2",
                hint="add images, drop the class, or give the dataset splits of its own",
            )
        for group in own[np.argsort(order[own])]:
            if taken[label] >= wanted[label]:
                break
            rows = by_group[starts[group] : starts[group + 1]]
            if held[rows].any():
                continue
            size = int((labels[rows] == label).sum())
            # A large group may overshoot by more than it helps; the first one is taken all the same.
            if taken[label] and taken[label] + size - wanted[label] > wanted[label] - taken[label]:
                continue
            held[rows] = True
            taken += np.bincount(labels[rows], minlength=len(classes))
        if not held[members].any() or held[members].all():
            raise DataError(
                f"class {classes[label]!r} cannot be in both parts of a split without breaking a group",
                hint="use fewer or smaller groups, or give the dataset splits of its own",
            )
    return np.flatnonzero(~held), np.flatnonzero(held)
