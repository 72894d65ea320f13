"""STL-10, photographs of 96 x 96 pixels, in its official binary files."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from bench.errors import DataError
from bench.kinds import Dataset, Split

__all__ = ["stl10"]

FOLDER = "stl10_binary"
SHAPE = (3, 96, 96)
IMAGE_BYTES = 3 * 96 * 96
FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")
FOLDS_FILE = "fold_indices.txt"


def stl10(root: Path, *, fold: Annotated[int, Field(ge=0, le=9)] | None = None, download: bool = True) -> Dataset:
    """STL-10: 10 classes, 5,000 + 8,000 photos of 96 x 96 pixels.

    Splits "train" and "test"; uint8 N,96,96,3, a view of the official files root/stl10_binary/*.bin, which are mapped
    and not read. `fold` keeps the 1,000 training images of that predefined fold (27 MB, copied). Without the files,
    `download` fetches 2.6 GB and keeps the 0.4 GB that are used.

    Raises DataError, with the remedy, where the files are missing and cannot be fetched, or are cut off. Source:
    Coates, Ng and Lee 2011, cs.stanford.edu/~acoates/stl10.
    """
    folder = root / FOLDER
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        # Imported only here: it needs torchvision, which takes seconds.
        from bench_plugins.datasets._stl10_download import download_stl10, remedy

        if not download:
            raise DataError(f"{folder} lacks {', '.join(missing)}", hint=f"set download = true, or {remedy(root)}")
        download_stl10(root, (*FILES, FOLDS_FILE))
    classes = tuple((folder / "class_names.txt").read_text(encoding="utf-8").split())
    train, test = (_read(folder, split, len(classes)) for split in ("train", "test"))
    if fold is not None:
        train = _fold_of(train, folder / FOLDS_FILE, fold)
    return Dataset(classes=classes, splits={"train": train, "test": test})


def _read(folder: Path, split: str, num_classes: int) -> Split:
    labels = np.fromfile(folder / f"{split}_y.bin", dtype=np.uint8).astype(np.int64) - 1
    images_file, labels_file = folder / f"{split}_X.bin", folder / f"{split}_y.bin"
    found = images_file.stat().st_size
    if not len(labels) or (found % IMAGE_BYTES == 0 and found > len(labels) * IMAGE_BYTES):
        raise _cut_off(labels_file, expected=max(1, found // IMAGE_BYTES), found=len(labels))
    if found != len(labels) * IMAGE_BYTES:
        raise _cut_off(images_file, expected=len(labels) * IMAGE_BYTES, found=found)
    if labels.min() < 0 or labels.max() >= num_classes:
        message = f"{labels_file} holds labels {labels.min() + 1} to {labels.max() + 1}; 1 to {num_classes} are allowed"
        raise DataError(message, hint=f"remove {folder} and fetch the files again")
    stored = np.memmap(images_file, dtype=np.uint8, mode="r", shape=(len(labels), *SHAPE))
    # A colour plane is stored column by column: N,C,W,H -> N,H,W,C.
    images = stored.transpose(0, 3, 2, 1)
    return Split(images=images, labels=labels, ids=[f"{split}/{position:04d}" for position in range(len(labels))])


def _cut_off(file: Path, *, expected: int, found: int) -> DataError:
    message = f"{file} is incomplete: {found} bytes, expected {expected}"
    return DataError(message, hint=f"remove {file}; the next run fetches it again")


def _fold_of(train: Split, file: Path, fold: int) -> Split:
    """The training images whose positions stand in one line of the file; their ids stay."""
    assert isinstance(train.images, np.ndarray)  # noqa: S101 -- an invariant: made above
    assert train.ids is not None  # noqa: S101 -- the same
    try:
        chosen = np.array(file.read_text(encoding="utf-8").splitlines()[fold].split(), dtype=np.int64)
        images, labels = train.images[chosen], np.asarray(train.labels)[chosen]
    except (OSError, IndexError, ValueError) as cause:
        message = f"{file} does not give fold {fold}: {cause}"
        raise DataError(message, hint=f"remove {file.parent}; the next run fetches it again") from cause
    return Split(images=images, labels=labels, ids=[train.ids[position] for position in chosen])


def _example(folder: Path) -> dict[str, object]:
    generator = np.random.default_rng(0)
    binary = folder / FOLDER
    binary.mkdir(parents=True)
    for split, count in (("train", 24), ("test", 9)):
        labels = np.arange(count) % 3
        noise = generator.integers(-20, 21, size=(count, *SHAPE))
        pixels = 60 + 70 * labels[:, None, None, None] + noise
        pixels.astype(np.uint8).tofile(binary / f"{split}_X.bin")
        (labels + 1).astype(np.uint8).tofile(binary / f"{split}_y.bin")
    (binary / "class_names.txt").write_text("dark\nmiddle\nbright\n", encoding="utf-8")
    folds = [" ".join(str((position + fold) % 24) for position in range(12)) for fold in range(10)]
    (binary / FOLDS_FILE).write_text("\n".join(folds), encoding="utf-8")
    return {"fold": 0, "download": False}


stl10.example = _example  # type: ignore[attr-defined]  # the conformance checks look for this attribute
