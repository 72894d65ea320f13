"""Pairs of images: the checks that they need, and how identities are held out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.errors import DataError, PluginError
from bench.kinds import PAIR_CLASSES, Dataset, Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PairTable", "check_folds", "check_groups", "check_pairs", "hold_out_pairs", "pair_ids"]

_SHOWN = 10


class PairTable(NamedTuple):
    """Pairs P,2 of positions in images, with their labels P and ids P."""

    pairs: NDArray[np.int64]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]

    def take(self, chosen: NDArray[np.int64]) -> PairTable:
        """Some of the pairs."""
        return PairTable(self.pairs[chosen], self.labels[chosen], tuple(self.ids[row] for row in chosen))


def check_pairs(name: str, split: Split, dataset: Dataset) -> None:
    """Raise PluginError where a verification split is not what bench/kinds.py asks for."""
    if tuple(dataset.classes) != PAIR_CLASSES:
        raise PluginError(f"the classes of pairs are {PAIR_CLASSES}, not {tuple(dataset.classes)}")
    if split.pairs is None or split.groups is None:
        raise PluginError(f"split {name!r}: a verification dataset gives pairs, and the images' identities as groups")
    pairs = np.asarray(split.pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":  # noqa: PLR2004
        raise PluginError(f"split {name!r}: pairs must be integers P,2, not {pairs.dtype} {pairs.shape}")
    outside = np.flatnonzero(((pairs < 0) | (pairs >= len(split.images))).any(1))
    if len(outside):
        raise DataError(
            f"split {name!r}: {len(outside)} pairs name images beyond the {len(split.images)} that there are, "
            f"the first is pair {outside[0]}: {pairs[outside[0]].tolist()}",
            hint="repair the pairs",
        )


def check_groups(splits: Mapping[str, Split]) -> None:
    """Raise DataError where images of one group (an identity, a track) are in two splits."""
    owners: dict[str, set[str]] = {
        name: set(map(str, np.unique(np.asarray(split.groups))))
        for name, split in splits.items()
        if split.groups is not None
    }
    for (first, own), (second, other) in combinations(owners.items(), 2):
        if shared := sorted(own & other):
            raise DataError(
                f"{len(shared)} groups of images are in both {first} and {second}: {_some(shared)}",
                hint="images of one person, object or track must stay on one side, or the test measures memory",
            )


def check_folds(name: str, split: Split, num_samples: int) -> None:
    """Raise PluginError where folds do not count from 0, DataError where an identity or a group is in two folds."""
    if split.folds is None:
        return
    folds = np.asarray(split.folds)
    numbers = np.unique(folds).tolist()
    counted = len(numbers) > 1 and numbers == list(range(len(numbers)))
    if name != "train" or folds.shape != (num_samples,) or not counted:
        raise PluginError(
            f"split {name!r}: folds stand in the train split, one a sample, and count from 0 to at least 1"
        )
    if split.groups is None:
        return
    each = np.unique(np.asarray(split.groups), return_inverse=True)[1]
    identities = each[:, None] if split.pairs is None else each[np.asarray(split.pairs)]
    seen = Counter(identity for fold in np.unique(folds) for identity in np.unique(identities[folds == fold]).tolist())
    names = np.unique(np.asarray(split.groups))
    twice = [str(names[identity]) for identity, count in seen.items() if count > 1]
    if twice:
        what = "groups of images" if split.pairs is None else "identities"
        raise DataError(f"{len(twice)} {what} are in more than one fold: {_some(twice)}", hint="repair the folds")


def pair_ids(pairs: NDArray[np.int64], image_ids: Sequence[str]) -> tuple[str, ...]:
    """A name for each pair, made of its images' ids."""
    return tuple(f"{image_ids[first]} {image_ids[second]}" for first, second in pairs.tolist())


def hold_out_pairs(
    table: PairTable, share: float, *, identities: NDArray[np.int64], image_ids: Sequence[str], seed: int
) -> tuple[PairTable, PairTable]:
    """Divide pairs so that no identity is on both sides: (kept, held out).

    `identities` has one number an image. Identities are drawn until they have `share` of the same pairs. Pairs that
    straddle the border are recombined in twos: the two kept images make a new pair of different identities, and so do
    the two held out. Raises DataError where a side would have no pair of a label.
    """
    random = np.random.default_rng(seed)
    same = table.labels == 1
    each = np.bincount(identities[table.pairs[same, 0]], minlength=int(identities.max()) + 1)
    order = random.permutation(len(each))
    order = order[np.argsort(each[order] == 0, kind="stable")]  # identities with same pairs first
    wanted = share * same.sum()
    with_same = int((each > 0).sum())
    # As many of the identities that have no same pair go with them.
    count = int(np.searchsorted(np.cumsum(each[order[:with_same]]), wanted)) + 1
    held = np.zeros(len(each), dtype=bool)
    held[order[:count]] = True
    held[order[with_same:][: round(share * (len(each) - with_same))]] = True
    inside = held[identities[table.pairs]]
    kept, out = table.take(np.flatnonzero(~inside.any(1))), table.take(np.flatnonzero(inside.all(1)))
    border = np.flatnonzero(inside[:, 0] != inside[:, 1])
    border = border[random.permutation(len(border))]
    kept_border = table.pairs[border][~inside[border]]
    out_border = table.pairs[border][inside[border]]
    kept = _with_different(kept, kept_border, identities, image_ids)
    out = _with_different(out, out_border, identities, image_ids)
    for side in (kept, out):
        if len(set(side.labels.tolist())) < 2:  # noqa: PLR2004
            raise DataError(
                "too few identities to hold out pairs for validation",
                hint="--set data.validation=0.0 chooses the threshold on the training pairs",
            )
    return kept, out


def _with_different(
    table: PairTable, images: NDArray[np.int64], identities: NDArray[np.int64], image_ids: Sequence[str]
) -> PairTable:
    """The table and new pairs of neighbouring images, as far as they show different identities and are new."""
    pairs = images[: len(images) // 2 * 2].reshape(-1, 2)
    known = {frozenset(pair) for pair in table.pairs.tolist()}
    fresh = []
    for pair in pairs.tolist():
        if identities[pair[0]] != identities[pair[1]] and frozenset(pair) not in known:
            known.add(frozenset(pair))
            fresh.append(pair)
    added = np.array(fresh, dtype=np.int64).reshape(-1, 2)
    return PairTable(
        np.concatenate([table.pairs, added]),
        np.concatenate([table.labels, np.zeros(len(added), dtype=np.int64)]),
        (*table.ids, *pair_ids(added, image_ids)),
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
