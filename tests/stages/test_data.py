"""From a dataset plugin to splits: faults, bad images, fingerprints, memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from bench.errors import BenchError, DataError, PluginError
from bench.kinds import Dataset, Split
from bench.stages.batches import Batches, Preprocessing, hold
from bench.stages.data import Data, load
from bench.stages.dataset import open_dataset
from bench.stages.image_set import channel_statistics
from bench.stages.seeding import Generators
from bench.tables import Data as Table

_SIZE = (6, 6)


def table(**values: Any) -> Table:
    return Table(**{"validation": 0.0, "test": 0.0, **values})


def arrays(count: int = 20, *, classes: int = 2, seed: int = 0, **options: Any) -> Split:
    images = np.random.default_rng(seed).integers(0, 256, (count, *_SIZE, 3), dtype=np.uint8)
    return Split(images, np.arange(count) % classes, **options)


def dataset(**splits: Split) -> Dataset:
    return Dataset(("cat", "dog"), splits)


def plugin(returned: Any) -> Callable[..., Any]:
    def toy(_root: Path) -> Any:
        return returned

    return toy


def folder(root: Path, count: int = 12, *, bad: Sequence[int] = ()) -> Dataset:
    """Files in `root`, two classes by turns; those at `bad` are no images."""
    root.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    paths = [root / f"{number:02d} ñ.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(random.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(path)
        if number in bad:
            path.write_bytes(b"<html>")
    return dataset(train=Split(paths, [number % 2 for number in range(count)]))


def load_(given: Dataset, root: Path = Path("/data"), size: tuple[int, int] = _SIZE, **values: Any) -> Data:
    return load(given, root, table(**values), size=size)


# open_dataset


def test_a_right_dataset_is_handed_on() -> None:
    given = dataset(train=arrays(), test=arrays(4))
    assert open_dataset(plugin(given), Path("/data"), {}) is given


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (None, PluginError, "dataset plugin 'toy' returned NoneType, not a Dataset"),
        (dataset(test=arrays()), PluginError, "its splits are test; allowed: train, validation, test"),
        (dataset(train=arrays(), val=arrays()), PluginError, "its splits are train, val; allowed"),
        (Dataset(("cat",), {"train": arrays(classes=1)}), DataError, "/data: 1 class; a classifier needs at least 2"),
        (dataset(train=Split(np.zeros((3, 2, 2), np.uint8), [0, 1])), DataError, "'train': 3 images but 2 labels"),
        (dataset(train=arrays(), test=Split([], [])), DataError, "split 'test' is empty"),
        (
            dataset(train=Split(np.zeros((4, 2, 2), np.uint8), [0, 1, 2, -1])),
            DataError,
            r"2 labels out of range, first 2 at sample 2; 2 classes allow 0\.\.1",
        ),
        (dataset(train=Split(np.zeros((2, 2, 2), np.uint8), np.array([0.0, 0.7]))), PluginError, "must be integers"),  # type: ignore[arg-type]
        (dataset(train=Split(np.zeros((2, 2, 2), np.uint8), np.array([[0], [1]]))), PluginError, "one an image"),
        (dataset(train=arrays(4, ids=["a", "b"])), PluginError, "4 images but 2 ids"),
        (dataset(train=arrays(4, groups=["a"] * 5)), PluginError, "4 images but 5 groups"),
        (dataset(train=arrays(4, boxes=np.zeros((5, 4), int))), PluginError, "4 images but 5 boxes"),
        (
            dataset(train=arrays(4, boxes=np.zeros((4, 3), int))),
            PluginError,
            r"boxes must be integers N,4, not int64 \(4, 3\)",
        ),
        (
            dataset(train=arrays(4, boxes=np.zeros((4, 4)))),
            PluginError,
            r"boxes must be integers N,4, not float64 \(4, 4\)",
        ),
        (dataset(train=arrays(4, boxes=np.ones((4, 4), int))), PluginError, "boxes cut files; cut the array itself"),
        (dataset(train=arrays(4, groups=list("aabb")), test=arrays(4, groups=list("bccc"))), DataError, "test: 'b'"),
    ],
)
def test_faults_of_a_dataset(returned: Any, error: type[BenchError], message: str) -> None:
    with pytest.raises(error, match=message):
        open_dataset(plugin(returned), Path("/data"), {})


# splits


def test_missing_splits_are_held_out_of_the_training_images() -> None:
    data = load_(dataset(train=arrays(100)), test=0.2, validation=0.25)
    assert {name: len(images) for name, images in data.splits.items()} == {"train": 60, "validation": 20, "test": 20}
    rows = np.concatenate([images.rows for images in data.splits.values()])
    assert np.array_equal(np.sort(rows), np.arange(100))
    for images in data.splits.values():
        assert np.array_equal(images.labels, images.rows % 2)
        assert list(images.ids) == [f"train/{row:06d}" for row in images.rows]
    assert data.describe() == "2 classes; train 60 (30 a class), validation 20 (10 a class), test 20 (10 a class)"
    assert data.spec.classes == ("cat", "dog")


def test_a_datasets_own_splits_stay() -> None:
    own = {"train": arrays(20), "validation": arrays(6, seed=1), "test": arrays(5, seed=2)}
    data = load_(dataset(**own), test=0.5, validation=0.5)
    assert [(name, len(images)) for name, images in data.splits.items()] == [
        ("train", 20),
        ("validation", 6),
        ("test", 5),
    ]
    assert data.counts()["test"] == {"cat": 3, "dog": 2}
    assert np.array_equal(data.splits["test"].images, own["test"].images)


def test_groups_stay_together_in_both_held_out_splits() -> None:
    groups = [f"track {number // 4}" for number in range(200)]
    labels = np.arange(200) // 4 % 2
    given = Split(arrays(200).images, labels, groups=groups)
    data = load_(dataset(train=given), test=0.2, validation=0.2, split_seed=3)
    tracks = [{groups[row] for row in images.rows} for images in data.splits.values()]
    assert sum(map(len, tracks)) == len(set.union(*tracks)) == 50
    assert [len(images) for images in data.splits.values()] == [128, 32, 40]


def test_an_empty_training_class_is_an_error_and_an_empty_test_class_is_not() -> None:
    lacking = Split(arrays(4).images, [0, 0, 0, 0])
    assert load_(dataset(train=arrays(), test=lacking)).counts()["test"] == {"cat": 4, "dog": 0}
    with pytest.raises(DataError, match="/data: no training image of 'dog'"):
        load_(dataset(train=lacking), test=0.2)


# bad images


@pytest.mark.parametrize(("count", "more"), [(1, ""), (10, ""), (13, "\n  ... and 3 more")])
def test_bad_images_are_listed_by_path(tmp_path: Path, count: int, more: str) -> None:
    given = folder(tmp_path / "set", 40, bad=range(5, 5 + count))
    with pytest.raises(DataError) as error:
        load_(given, tmp_path / "set", test=0.2)
    first, *lines = str(error.value).removesuffix(more).splitlines()
    assert first == f"{tmp_path / 'set'}: {count} bad image{'s' if count > 1 else ''}:"
    assert lines[0] == "  05 ñ.png: not an image but HTML or XML (a failed download?)"
    assert len(lines) == min(count, 10)
    assert (error.value.hint or "").endswith("--set data.bad_images=skip")


def test_bad_images_are_listed_even_where_a_class_has_no_other(tmp_path: Path) -> None:
    given = folder(tmp_path / "set", 12, bad=range(12))
    with pytest.raises(DataError, match="12 bad images"):
        load_(given, tmp_path / "set", test=0.2)
    with pytest.raises(DataError, match="no image of the split 'train' is left"):
        load_(given, tmp_path / "set", test=0.2, bad_images="skip")
    half = folder(tmp_path / "half", 12, bad=range(0, 12, 2))
    with pytest.raises(DataError, match="no training image of 'cat'"):
        load_(half, tmp_path / "half", test=0.2, bad_images="skip")


def test_bad_images_can_be_skipped(tmp_path: Path) -> None:
    given = folder(tmp_path / "set", 12, bad=[0, 7])
    data = load_(given, tmp_path / "set", bad_images="skip", validation=0.2)
    assert [line.split(":")[0] for line in data.skipped] == ["00 ñ.png", "07 ñ.png"]
    assert sum(len(images) for images in data.splits.values()) == 10
    for images in data.splits.values():
        assert images.images[images.rows].any(axis=(1, 2, 3)).all()
        assert [int(id_[:2]) % 2 for id_ in images.ids] == images.labels.tolist()


def test_a_box_outside_is_a_bad_image_that_is_named(tmp_path: Path) -> None:
    given = folder(tmp_path / "set", 12)
    boxes = np.array([[0, 0, 7, 9]] * 12)
    boxes[5] = [2, 0, 8, 9]
    cut = dataset(train=replace(given.splits["train"], boxes=boxes))
    with pytest.raises(
        DataError, match=r"1 bad image:\n  05 ñ.png: the box \[2, 0, 8, 9\] is not inside its 7 x 9 pix"
    ):
        load_(cut, tmp_path / "set")
    boxes[5] = [2, 0, 7, 9]
    assert load_(cut, tmp_path / "set").fingerprint != load_(given, tmp_path / "set").fingerprint


# fingerprints


def test_the_fingerprint_is_the_same_elsewhere_and_later(tmp_path: Path) -> None:
    given = folder(tmp_path / "here")
    first = load_(given, tmp_path / "here").fingerprint
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    (tmp_path / "there" / "00 ñ.png").touch()
    moved = dataset(train=replace(given.splits["train"], images=sorted((tmp_path / "there").iterdir())))
    assert load_(moved, tmp_path / "there").fingerprint == first
    for change in ({"size": (5, 4)}, {"channels": 1}, {"memory_gb": 0}, {"validation": 0.2}):
        assert load_(given, tmp_path / "here", **change).fingerprint == first  # type: ignore[arg-type]


def test_the_fingerprint_changes_with_everything_that_matters() -> None:
    train = arrays(8, ids=list("abcdefgh"))
    images = np.array(train.images)
    images[3, 2, 1, 0] ^= 1
    variants = [
        dataset(train=train),
        dataset(train=replace(train, images=images)),
        dataset(train=replace(train, labels=[1, 0, 0, 1, 0, 1, 0, 1])),
        dataset(train=replace(train, ids=list("abcdefgx"))),
        dataset(train=train, test=train),
        dataset(train=train, validation=train),
        Dataset(("cat", "owl"), {"train": train}),
    ]
    assert len({load_(variant).fingerprint for variant in variants}) == len(variants)


# memory


def batches_of(data: Data) -> list[tuple[torch.Tensor, torch.Tensor]]:
    cpu = torch.device("cpu")
    held = hold(data, cpu)
    images = data.splits["train"]
    preprocessing = Preprocessing((0.5,) * 3, (0.2,) * 3, torch.contiguous_format)
    batches = Batches(images, preprocessing, 2, 5, cpu, held=held.get(id(images.images)))
    assert (batches.held is not None) == data.resident
    generators = Generators.start(0, cpu)
    return [*batches.shuffled(generators), *batches.shuffled(generators), *batches.ordered()]


def test_streamed_images_give_the_same_batches(tmp_path: Path) -> None:
    given = folder(tmp_path / "set", 24, bad=[2])
    loaded = [
        load_(given, tmp_path / "set", memory_gb=budget, validation=0.2, bad_images="skip") for budget in ("auto", 0)
    ]
    assert [data.resident for data in loaded] == [True, False]
    pairs = list(zip(batches_of(loaded[0]), batches_of(loaded[1]), strict=True))
    assert len(pairs) == 12
    for resident, streamed in pairs:
        assert torch.equal(resident[0], streamed[0])
        assert torch.equal(resident[1], streamed[1])


def test_splits_of_one_array_share_its_copy() -> None:
    given = arrays(40)
    data = load_(dataset(train=given), test=0.2, validation=0.2)
    assert len({id(images.images) for images in data.splits.values()}) == 1
    assert len(hold(data, torch.device("cpu"))) == 1
    assert data.splits["train"].images is not given.images


def test_memory_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    free = psutil.virtual_memory()._replace(available=2 * 20 * 6 * 6 * 3 - 2)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert not load_(dataset(train=arrays(20))).resident
    assert load_(dataset(train=arrays(19))).resident

    def refuse(*_: Any, **__: Any) -> None:
        raise MemoryError

    given = dataset(train=arrays(4))
    monkeypatch.setattr(np, "array", refuse)
    with pytest.raises(BenchError, match="GB of images do not fit into memory") as error:
        load_(given, memory_gb=1)
    assert error.value.hint == "--set data.memory_gb=0 streams them"


# pixels


@pytest.mark.parametrize("channels", [1, 3])
def test_channel_statistics_equal_numpys(channels: int) -> None:
    images = np.random.default_rng(0).beta(2, 5, (2100, 6, 6, channels)) * [255, 100, 7][:channels]
    data = load_(replace(dataset(train=Split(images.astype(np.uint8), np.arange(2100) % 2)), channels=channels))
    some = data.splits["train"].take(np.arange(0, 2100, 2))
    mean, std = channel_statistics(some)
    pixels = images.astype(np.uint8)[::2].astype(np.float64) / 255
    assert mean == pytest.approx(pixels.mean((0, 1, 2)), abs=1e-6)
    assert std == pytest.approx(pixels.std((0, 1, 2)), abs=1e-6)


def test_a_constant_channel_is_not_blown_up() -> None:
    data = load_(dataset(train=Split(np.full((4, *_SIZE, 3), 51, np.uint8), [0, 1, 0, 1])))
    assert channel_statistics(data.splits["train"]) == ((0.2,) * 3, (0.003922,) * 3)


@pytest.mark.parametrize(
    ("own", "asked", "channels"), [(1, "auto", 1), (3, "auto", 3), (1, 3, 3), (3, 1, 1), (1, 1, 1)]
)
@pytest.mark.parametrize("shape", [(7, 5), (6, 6)])
def test_channels_and_size_are_what_was_asked(own: Any, asked: Any, channels: int, shape: tuple[int, int]) -> None:
    pixels = np.full((4, *shape) + ((3,) if own == 3 else ()), 77, np.uint8)
    given = replace(dataset(train=Split(pixels, [0, 1, 0, 1])), channels=own)
    data = load_(given, channels=asked)
    assert data.splits["train"].images.shape == (4, *_SIZE, channels)
    assert np.all(data.splits["train"].images == 77)
    assert (data.spec.channels, data.spec.image_size) == (channels, _SIZE)
