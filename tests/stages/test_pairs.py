"""Pairs: what is refused, and identities that are held out of them whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import BenchError, DataError, PluginError
from bench.kinds import PAIR_CLASSES, Dataset, Split
from bench.stages.dataset import open_dataset
from bench.stages.pairs import PairTable, check_folds, check_groups, hold_out_pairs, pair_ids


def some_pairs(**changes: Any) -> Split:
    """Six images of three persons; two pairs of one, two of two."""
    values = {
        "images": np.zeros((6, 4, 4), np.uint8),
        "labels": [1, 0, 1, 0],
        "groups": ["a", "a", "b", "b", "c", "c"],
        "pairs": np.array([[0, 1], [1, 2], [2, 3], [4, 0]]),
    }
    return Split(**{**values, **changes})  # type: ignore[arg-type]


def opened(*, classes: tuple[str, ...] = PAIR_CLASSES, **splits: Split) -> Dataset:
    given = Dataset(classes, splits, 1, "verification")

    def toy(_root: Path) -> Dataset:
        return given

    return open_dataset(toy, Path("/data"), {})


# What a dataset may say


def test_right_pairs_are_handed_on() -> None:
    others = some_pairs(groups=["d", "d", "e", "e", "f", "f"])
    assert opened(train=some_pairs(), test=others).splits["test"] is others


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"pairs": None, "labels": [0] * 6}, PluginError, "a verification dataset gives pairs, and the images' ident"),
        ({"groups": None}, PluginError, "a verification dataset gives pairs, and the images' identities"),
        ({"pairs": np.zeros((4, 3), np.int64)}, PluginError, r"pairs must be integers P,2, not int64 \(4, 3\)"),
        ({"pairs": np.zeros(4, np.int64)}, PluginError, r"pairs must be integers P,2, not int64 \(4,\)"),
        ({"pairs": np.zeros((4, 2))}, PluginError, r"pairs must be integers P,2, not float64 \(4, 2\)"),
        (
            {"pairs": np.array([[0, 1], [1, 6], [2, -1], [4, 0]])},
            DataError,
            r"2 pairs name images beyond the 6 that there are, the first is pair 1: \[1, 6\]",
        ),
        ({"labels": [1, 0]}, DataError, "4 pairs but 2 labels"),
        ({"labels": [1, 0, 2, 0]}, DataError, r"1 labels out of range, first 2 at sample 2; 2 classes allow 0\.\.1"),
        ({"ids": ["a", "b"]}, PluginError, "4 pairs but 2 ids"),
        ({"groups": ["a", "b"]}, PluginError, "6 images but 2 groups"),
        ({"pairs": np.zeros((0, 2), np.int64), "labels": []}, DataError, "split 'train' is empty"),
        ({"folds": [0, 1, 2]}, PluginError, "folds stand in the train split, one a sample, and count from 0"),
        ({"folds": [0, 0, 2, 2]}, PluginError, "count from 0"),
        ({"folds": [1, 1, 2, 2]}, PluginError, "count from 0"),
        ({"folds": [-1, 0, 1, 1]}, PluginError, "count from 0"),
        ({"folds": [0, 0, 0, 0]}, PluginError, "count from 0 to at least 1"),
        ({"folds": np.zeros((4, 1), np.int64)}, PluginError, "count from 0"),
    ],
)
def test_faults_of_pairs_are_told(changes: dict[str, Any], error: type[BenchError], message: str) -> None:
    with pytest.raises(error, match=message):
        opened(train=some_pairs(**changes))


def test_pairs_have_their_own_two_classes() -> None:
    with pytest.raises(PluginError, match=r"the classes of pairs are \('different', 'same'\), not \('same', 'diff"):
        opened(classes=PAIR_CLASSES[::-1], train=some_pairs())


def test_folds_are_the_only_split() -> None:
    apart = some_pairs(pairs=np.array([[0, 1], [0, 1], [2, 3], [4, 5]]), folds=[0, 0, 1, 1])
    assert opened(train=apart).splits["train"] is apart
    other = some_pairs(groups=["d", "d", "e", "e", "f", "f"])
    with pytest.raises(PluginError, match=r"with folds there is one split, train, not \['train', 'test'\]"):
        opened(train=apart, test=other)
    with pytest.raises(PluginError, match="split 'test': folds stand in the train split"):
        opened(train=some_pairs(), test=replace(other, folds=[0, 0, 1, 1]))


def test_an_identity_in_two_folds_is_named() -> None:
    with pytest.raises(DataError, match="2 identities are in more than one fold: 'a', 'b'") as error:
        opened(train=some_pairs(folds=[0, 0, 1, 1]))
    assert error.value.hint == "repair the folds"


def test_a_group_in_two_folds_is_an_error_for_single_images_too() -> None:
    split = Split(np.zeros((4, 2, 2), np.uint8), [0, 1, 0, 1], groups=["a", "b", "b", "c"], folds=[0, 0, 1, 1])
    with pytest.raises(DataError, match="1 groups of images are in more than one fold: 'b'"):
        check_folds("train", split, 4)
    check_folds("train", replace(split, groups=["a", "a", "b", "b"]), 4)
    check_folds("train", replace(split, groups=None), 4)


def test_groups_in_two_splits_are_named_and_counted() -> None:
    images, labels = np.zeros((12, 2, 2), np.uint8), [0, 1] * 6
    first = Split(images, labels, groups=[f"{number:02d}" for number in range(12)])
    other = Split(images, labels, groups=[*(f"{number:02d}" for number in range(11)), "x"])
    alone = Split(images, labels, groups=["y"] * 12)
    check_groups({"train": first, "validation": alone, "test": Split(images, labels)})
    with pytest.raises(DataError) as error:
        check_groups({"train": first, "validation": alone, "test": other})
    names = ", ".join(f"'{number:02d}'" for number in range(10))
    assert str(error.value) == f"11 groups of images are in both train and test: {names} and 1 more"
    with pytest.raises(DataError, match="in both validation and test: 'y'"):
        check_groups({"train": first, "validation": alone, "test": alone})


def test_groups_of_numbers_are_compared_too() -> None:
    images = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(DataError, match="in both train and test: '7'"):
        check_groups(
            {name: Split(images, [0, 1], groups=np.array([7, row])) for row, name in enumerate(("train", "test"))}
        )


# Holding out

_PERSONS, _PHOTOS = 60, 4


def table_of(seed: int = 0) -> tuple[PairTable, np.ndarray, list[str]]:
    """Two pairs of one for each of 60 persons and as many pairs of two, drawn at random; persons 50 to 59 only those."""
    random = np.random.default_rng(seed)
    identities = np.repeat(np.arange(_PERSONS), _PHOTOS)
    names = [f"p{image // _PHOTOS:02d}/{image % _PHOTOS}" for image in range(len(identities))]
    same = [(person * _PHOTOS + a, person * _PHOTOS + b) for person in range(50) for a, b in ((0, 1), (2, 3))]
    known: set[frozenset[int]] = set()
    while len(known) < len(same):
        first, second = random.integers(0, len(identities), 2).tolist()
        if identities[first] != identities[second]:
            known.add(frozenset((first, second)))
    pairs = np.array([*same, *(tuple(sorted(pair)) for pair in sorted(known, key=sorted))])
    labels = np.repeat([1, 0], len(same))
    order = random.permutation(len(pairs))
    return PairTable(pairs, labels, pair_ids(pairs, names)).take(order), identities, names


def held_out(
    share: float = 0.2, seed: int = 0, table_seed: int = 0
) -> tuple[PairTable, PairTable, PairTable, np.ndarray]:
    table, identities, names = table_of(table_seed)
    kept, out = hold_out_pairs(table, share, identities=identities, image_ids=names, seed=seed)
    return table, kept, out, identities


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(5))
def test_no_identity_stands_on_both_sides(share: float, seed: int) -> None:
    _, kept, out, identities = held_out(share, seed, seed)
    assert not set(identities[kept.pairs].ravel()) & set(identities[out.pairs].ravel())
    for side in (kept, out):
        assert np.array_equal(side.labels == 1, identities[side.pairs[:, 0]] == identities[side.pairs[:, 1]])
        assert len(side.pairs) == len(side.labels) == len(side.ids)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_shares_and_balance_are_kept(share: float, seed: int) -> None:
    table, kept, out, _ = held_out(share, seed, seed)
    num_same = int((table.labels == 1).sum())
    assert (out.labels == 1).sum() == pytest.approx(share * num_same, abs=2)  # a person has two
    assert (kept.labels == 1).sum() + (out.labels == 1).sum() == num_same  # none is lost
    for side in (kept, out):
        same, different = (side.labels == 1).sum(), (side.labels == 0).sum()
        assert abs(different - same) <= 0.35 * same + 6
    assert (kept.labels == 0).sum() + (out.labels == 0).sum() >= 0.9 * num_same


def test_border_pairs_are_recombined_into_new_ones_of_two_persons() -> None:
    table, kept, out, identities = held_out()
    old = {frozenset(pair) for pair in table.pairs.tolist()}
    persons_out = set(identities[out.pairs].ravel())
    border = [pair for pair in table.pairs.tolist() if len({identities[image] in persons_out for image in pair}) == 2]
    assert border  # the table has such pairs
    images = Counter(image for pair in border for image in pair)
    for side in (kept, out):
        whole = [frozenset(pair) for pair in side.pairs.tolist()]
        assert len(set(whole)) == len(whole)  # in whichever order, none twice
        assert all(len(pair) == 2 for pair in whole)
        fresh = [row for row, pair in enumerate(whole) if pair not in old]
        assert fresh
        assert (side.labels[fresh] == 0).all()
        assert not Counter(image for row in fresh for image in side.pairs[row].tolist()) - images


def test_pairs_of_one_side_stay_as_they_are() -> None:
    table, kept, out, _ = held_out()
    known = dict(zip(table.ids, zip(map(tuple, table.pairs.tolist()), table.labels.tolist(), strict=True), strict=True))
    for side in (kept, out):
        for name, pair, label in zip(side.ids, side.pairs.tolist(), side.labels.tolist(), strict=True):
            assert known.get(name, (tuple(pair), label)) == (tuple(pair), label)
    assert len(set(kept.ids) | set(out.ids)) == len(kept.ids) + len(out.ids)


def test_new_pairs_are_named_by_their_images() -> None:
    table, kept, out, _ = held_out()
    _, _, names = table_of()
    for side in (kept, out):
        for name, (first, second) in zip(side.ids, side.pairs.tolist(), strict=True):
            assert name in {*table.ids, f"{names[first]} {names[second]}"}
    assert pair_ids(np.array([[1, 0]]), ["x.jpg", "y.jpg"]) == ("y.jpg x.jpg",)


def test_the_seed_alone_decides() -> None:
    first, again, other = held_out(seed=3), held_out(seed=3), held_out(seed=4)
    for one, two in zip(first[1:3], again[1:3], strict=True):
        assert (one.ids, one.pairs.tolist(), one.labels.tolist()) == (two.ids, two.pairs.tolist(), two.labels.tolist())
    assert set(first[2].ids) != set(other[2].ids)


def test_persons_without_a_pair_of_their_own_are_held_out_too() -> None:
    sides = [set(held_out(0.5, seed)[2].pairs.ravel() // _PHOTOS) for seed in range(5)]
    assert all(any(person >= 50 for person in side) for side in sides)


def test_holding_out_again_leaves_the_first_part_alone() -> None:
    _, kept, out, identities = held_out(0.25)
    names = table_of()[2]
    rest, second = hold_out_pairs(kept, 0.25, identities=identities, image_ids=names, seed=0)
    persons = [set(identities[side.pairs].ravel()) for side in (rest, second, out)]
    assert sum(map(len, persons)) == len(set.union(*persons))


@pytest.mark.parametrize("share", [1e-6, 0.999])
def test_too_few_identities_are_explained(share: float) -> None:
    with pytest.raises(DataError, match="too few identities to hold out pairs") as error:
        held_out(share)
    assert "data.validation=0.0" in (error.value.hint or "")


@pytest.mark.parametrize("label", [0, 1])
def test_one_label_alone_cannot_be_divided(label: int) -> None:
    table, identities, names = table_of()
    only = table.take(np.flatnonzero(table.labels == label))
    with pytest.raises(DataError, match="too few identities"):
        hold_out_pairs(only, 0.3, identities=identities, image_ids=names, seed=0)
