"""Hold-out splits over many seeds: stratified, disjoint, complete, and no group broken."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.errors import DataError
from bench.stages.splits import hold_out

_NAMES = tuple(f"class {letter}" for letter in "abcdefghijkl")


def split(
    labels: NDArray[np.int64], share: float, seed: int, groups: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    kept, held = hold_out(labels, share, seed=seed, classes=_NAMES[: int(labels.max()) + 1], groups=groups)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(labels)))
    for part in (kept, held):
        assert np.array_equal(part, np.sort(part))
        assert set(labels[part].tolist()) == set(labels.tolist())
    if groups is not None:
        assert not set(groups[kept].tolist()) & set(groups[held].tolist())
    return kept, held


@pytest.mark.parametrize("seed", range(30))
def test_shares_are_right_within_rounding(seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = random.integers(2, 60, random.integers(2, 12))
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    share = random.choice([0.01, 0.1, 0.2, 0.5, 0.9, 0.99])
    _, held = split(labels, share, seed)
    expected = np.clip(np.round(counts * share), 1, counts - 1)
    assert np.array_equal(np.bincount(labels[held]), expected)


@pytest.mark.parametrize("seed", range(30))
def test_groups_are_never_broken(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 31, 60)  # tracks of one class each
    labels = np.repeat(np.arange(60) % 4, sizes).astype(np.int64)
    groups = np.repeat(random.permutation(60), sizes).astype(np.int64)
    order = random.permutation(len(labels))
    labels, groups = labels[order], groups[order]
    _, held = split(labels, 0.2, seed, groups)
    off = np.bincount(labels[held]) - 0.2 * np.bincount(labels)
    assert np.abs(off).max() <= 15.5  # half of the largest group


@pytest.mark.parametrize("seed", range(60))
def test_groups_with_several_classes(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.choice(4, 400, p=[0.5, 0.3, 0.17, 0.03]).astype(np.int64)
    labels[:8] = [0, 1, 2, 3, 0, 1, 2, 3]
    groups = random.integers(0, random.choice([10, 40, 200]), 400)
    groups = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    try:
        _, held = split(labels, 0.2, seed, groups)
    except DataError as error:
        assert "without breaking a group" in str(error)  # noqa: PT017  # allowed where groups are few
        assert len(np.unique(groups)) <= 10
    else:
        assert 0.05 < len(held) / 400 < 0.6


def test_a_later_class_does_not_take_the_last_images_of_an_earlier_one() -> None:
    labels = np.array([0] * 2 + [1] * 40, dtype=np.int64)
    groups = np.array([0, 1, *([0] * 10), *([1] * 10), *range(2, 22)], dtype=np.int64)
    for seed in range(20):
        split(labels, 0.8, seed, groups)


def test_a_large_group_is_not_chosen_for_a_small_share() -> None:
    labels = np.repeat([0, 1], 100).astype(np.int64)
    groups = np.concatenate([np.repeat([0, 1, 2], [80, 10, 10]), 3 + np.arange(100)]).astype(np.int64)
    for seed in range(10):
        _, held = split(labels, 0.1, seed, groups)
        assert np.bincount(labels[held]).tolist() == [10, 10]


def test_the_seed_decides_and_nothing_else() -> None:
    labels = np.tile(np.arange(3), 50).astype(np.int64)
    first = split(labels, 0.2, 0)[1]
    assert np.array_equal(split(labels, 0.2, 0)[1], first)
    assert len({tuple(split(labels, 0.2, seed)[1].tolist()) for seed in range(20)}) == 20
    counts = np.bincount(np.concatenate([split(labels, 0.2, seed)[1] for seed in range(100)]), minlength=150)
    assert (counts.min(), counts.max()) > (5, 25)  # no image is always or never held out
    assert counts.max() < 45


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.8, 0.999])
def test_two_images_are_enough(share: float) -> None:
    assert [len(part) for part in split(np.array([0, 0, 1, 1]), share, 0)] == [2, 2]


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 0, 1], None, "class 'class b' has 1 image; a split needs at least 2"),
        ([0, 0, 1, 1], [0, 1, 2, 2], "class 'class b' has 1 group; a split needs at least 2"),
        ([0, 0, 2, 2], None, "class 'class b' has 0 image"),
        ([0, 0, 1, 1], [0, 1, 0, 1], None),
        ([0, 1, 0, 1, 0, 0], [0, 0, 1, 2, 2, 2], None),
        ([0, 1, 1, 0, 2, 2], [0, 0, 1, 1, 1, 2], None),
        ([0, 1, 1, 2, 2, 0], [0, 0, 1, 1, 2, 2], "cannot be in both parts of a split without breaking a group"),
    ],
)
def test_classes_that_cannot_be_divided_are_named(
    labels: list[int], groups: list[int] | None, message: str | None
) -> None:
    given = None if groups is None else np.array(groups, dtype=np.int64)
    if message is None:
        split(np.array(labels, dtype=np.int64), 0.3, 0, given)
        return
    with pytest.raises(DataError, match=message) as error:
        hold_out(np.array(labels, dtype=np.int64), 0.3, seed=0, classes=_NAMES[: max(labels) + 1], groups=given)
    assert "give the dataset splits of its own" in (error.value.hint or "")


@pytest.mark.parametrize("grouped", [False, True])
def test_a_hundred_thousand_images_take_a_moment(grouped: bool) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 12, 100_000)
    groups = np.unique(random.integers(0, 30_000, 100_000), return_inverse=True)[1] if grouped else None
    start = time.perf_counter()
    split(labels, 0.2, 0, groups)
    assert time.perf_counter() - start < 2
