"""From a dataset's splits to a run's: folds, shares, groups and identities, also where images are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.errors import DataError
from bench.kinds import PAIR_CLASSES, Dataset, Split
from bench.stages.data import Data, load
from bench.stages.image_set import channel_statistics
from bench.tables import Data as Table

_SIZE = (4, 4)
_PERSONS, _PHOTOS = 30, 4


def load_(given: Dataset, root: Path = Path("/data"), *, fold: int = 0, **values: Any) -> Data:
    data = load(given, root, Table(**{"validation": 0.0, "test": 0.0, **values}), size=_SIZE)
    return data.of_fold(fold) if fold else data


def photos() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (_PERSONS * _PHOTOS, *_SIZE, 1), dtype=np.uint8)


def pair_list() -> tuple[np.ndarray, np.ndarray]:
    """Two pairs of one and two of two for each person; neighbours in groups of ten persons, so that three folds fit."""
    same = [(p * _PHOTOS + a, p * _PHOTOS + a + 1) for p in range(_PERSONS) for a in (0, 2)]
    different = [
        (p * _PHOTOS + a, (p // 10 * 10 + (p + a + 1) % 10) * _PHOTOS + 3) for p in range(_PERSONS) for a in (0, 1)
    ]
    return np.array([*same, *different]), np.repeat([1, 0], len(same))


def of_pairs(images: Any = None, **options: Any) -> Dataset:
    pairs, labels = pair_list()
    groups = [f"person {image // _PHOTOS}" for image in range(_PERSONS * _PHOTOS)]
    split = Split(photos() if images is None else images, labels, groups=groups, pairs=pairs, **options)
    return Dataset(PAIR_CLASSES, {"train": split}, 1, "verification")


def person_folds() -> np.ndarray:
    return pair_list()[0][:, 0] // _PHOTOS // 10


def persons(data: Data) -> dict[str, set[int]]:
    return {name: set((images.rows // _PHOTOS).ravel().tolist()) for name, images in data.splits.items()}


# Pairs


def test_test_and_validation_pairs_show_strangers() -> None:
    data = load_(of_pairs(), test=0.2, validation=0.25)
    assert list(data.splits) == ["train", "validation", "test"]
    found = persons(data)
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == _PERSONS
    counts = data.counts()
    assert (counts["test"]["same"], counts["validation"]["same"], counts["train"]["same"]) == (12, 12, 36)
    assert "test" in data.describe()
    assert (
        f"train {len(data.splits['train'])} pairs ({counts['train']['different']} different, 36 same)"
        in data.describe()
    )
    for images in data.splits.values():
        same = images.rows[:, 0] // _PHOTOS == images.rows[:, 1] // _PHOTOS
        assert np.array_equal(images.labels == 1, same)


def test_without_shares_the_pairs_stay() -> None:
    data = load_(of_pairs())
    pairs, labels = pair_list()
    assert list(data.splits) == ["train"]
    assert np.array_equal(data.splits["train"].rows, pairs)
    assert np.array_equal(data.splits["train"].labels, labels)
    assert data.splits["train"].ids[0] == "train/000000 train/000001"


def test_the_split_seed_decides() -> None:
    ids = [load_(of_pairs(), test=0.2, split_seed=seed).splits["test"].ids for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_a_fold_is_the_test_split_and_validation_comes_from_the_others(fold: int) -> None:
    folds = person_folds()
    data = load_(of_pairs(folds=folds), fold=fold, test=0.4, validation=0.25)
    assert data.num_folds == 3
    found = persons(data)
    assert found["test"] == set(range(fold * 10, fold * 10 + 10))
    assert not found["train"] & found["validation"]
    assert found["train"] | found["validation"] == set(range(_PERSONS)) - found["test"]
    assert np.array_equal(data.splits["test"].rows, pair_list()[0][folds == fold])  # as the dataset says, unchanged
    assert data.counts()["test"] == {"different": 20, "same": 20}


def test_every_fold_has_one_fingerprint_and_folds_change_it() -> None:
    folds = person_folds()
    prints = {load_(of_pairs(folds=folds), fold=fold).fingerprint for fold in range(3)}
    prints |= {load_(of_pairs(folds=(folds + 1) % 3)).fingerprint, load_(of_pairs()).fingerprint}
    assert len(prints) == 3


def test_the_fingerprint_knows_which_images_make_a_pair() -> None:
    given = of_pairs(ids=[str(number) for number in range(120)])
    pairs = given.splits["train"].pairs
    assert pairs is not None
    before = load_(given).fingerprint
    pairs[0] = (0, 2)  # still one person, with the same id
    assert load_(given).fingerprint != before


def test_a_bad_image_takes_its_pairs_along(tmp_path: Path) -> None:
    paths = []
    for number, pixels in enumerate(photos()):
        paths.append(tmp_path / f"{number:03d}.png")
        Image.fromarray(pixels[..., 0]).save(paths[-1])
    paths[3].write_bytes(b"<html>")
    pairs, _ = pair_list()
    lost = (pairs == 3).any(1)
    given = of_pairs(paths, folds=person_folds())
    with pytest.raises(DataError, match=r"1 bad image:\n  003.png: not an image"):
        load_(given, tmp_path)
    data = load_(given, tmp_path, bad_images="skip")
    assert lost.sum() > 1
    assert sum(map(len, data.splits.values())) == 120 - lost.sum()
    assert not any((images.rows == 3).any() for images in data.splits.values())
    assert persons(data)["test"] <= set(range(10))  # the folds of what is left still fit
    assert data.skipped[0].startswith("003.png: ")
    whole = load_(of_pairs(paths), tmp_path, bad_images="skip", validation=0.2)
    assert "000.png 001.png" in {*whole.splits["train"].ids, *whole.splits["validation"].ids}


def test_an_image_of_many_pairs_counts_once_in_the_statistics() -> None:
    images = np.zeros((4, *_SIZE, 1), np.uint8)
    images[3] = 255
    pairs = np.array([[0, 1], [0, 2], [0, 1], [2, 3]])
    split = Split(images, [1, 0, 1, 0], groups=["a", "a", "b", "c"], pairs=pairs)
    data = load_(Dataset(PAIR_CLASSES, {"train": split}, 1, "verification"))
    assert data.splits["train"].distinct_rows().tolist() == [0, 1, 2, 3]
    assert channel_statistics(data.splits["train"])[0] == (0.25,)
    assert data.splits["train"].take(np.array([0, 2])).distinct_rows().tolist() == [0, 1]


# Classes


def of_classes(count: int = 120, **options: Any) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (count, *_SIZE, 1), dtype=np.uint8)
    return Dataset(("cat", "dog"), {"train": Split(images, np.arange(count) // 4 % 2, **options)}, 1)


@pytest.mark.parametrize("fold", [0, 2])
def test_folds_of_single_images_are_test_splits_too(fold: int) -> None:
    tracks_of = np.random.default_rng(0).permutation(np.arange(120) // 4)  # a track's images lie apart
    folds = tracks_of % 3
    given = of_classes(folds=folds, groups=[f"track {track}" for track in tracks_of])
    data = load_(given, fold=fold, validation=0.2)
    assert data.num_folds == 3
    assert np.array_equal(data.splits["test"].rows, np.flatnonzero(folds == fold))
    tracks = [set(tracks_of[images.rows].tolist()) for images in data.splits.values()]
    assert sum(map(len, tracks)) == len(set.union(*tracks)) == 30
    assert len(data.splits["validation"]) == pytest.approx(16, abs=8)  # whole tracks of four


def test_a_datasets_test_split_needs_no_fold() -> None:
    assert load_(of_classes(), test=0.25).num_folds is None


def test_groups_are_part_of_the_fingerprint() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, *_SIZE, 1), dtype=np.uint8)
    labels = np.arange(20) % 2

    def fingerprint(groups: list[str] | None) -> str:
        split = Split(images, labels, groups=groups)
        return load_(Dataset(("a", "b"), {"train": split}, 1)).fingerprint

    one, two = [str(row // 2) for row in range(20)], [str(row // 4) for row in range(20)]
    assert len({fingerprint(None), fingerprint(one), fingerprint(two)}) == 3
