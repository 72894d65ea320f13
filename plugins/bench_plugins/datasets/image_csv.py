"""Images that a CSV file lists with their labels."""

import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bench.errors import DataError
from bench.kinds import SPLITS, Dataset, Split
from bench.registry import near_miss
from bench_plugins.datasets._files import write_examples
from bench_plugins.datasets._table import Column, Row, read_table

__all__ = ["image_csv"]

NUM_LISTED = 10


def image_csv(
    root: Path,
    *,
    train: str = "train.csv",
    validation: str | None = None,
    test: str | None = None,
    path_column: Column = "path",
    label_column: Column = "label",
    group_column: Column | None = None,
    split_column: Column | None = None,
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ",",
    header: bool = True,
    images: str | None = None,
    channels: Literal[1, 3] = 3,
) -> Dataset:
    """Your own images, listed in CSV files with their labels.

    `train`, `validation` and `test` are CSV files below root, in UTF-8. Columns are given by their names, or by their
    positions from 0 (the only way with `header = false`). `group_column` holds what a split must not break apart;
    `split_column` says train, validation or test row by row, and then `train` names the only file. Image paths start
    from `images`, a folder below root, or else from the folder of their CSV file. Classes are the sorted labels of the
    training rows. `channels = 1` reads the images in grey.

    Raises DataError, with file and line, for a file, column or image that is missing, a row with another number of
    fields than the first, an empty field, an image listed twice, and a label that no training row has.
    """
    columns = {"path": path_column, "label": label_column, "group": group_column, "split": split_column}
    asked = {role: column for role, column in columns.items() if column is not None}
    files = {"train": train, "validation": validation, "test": test}
    tables: Mapping[str, Sequence[Row]] = {
        split: read_table(_existing(root, split, name), asked, delimiter=delimiter, header=header)
        for split, name in files.items()
        if name is not None
    }
    if split_column is not None:
        tables = _divide(tables)
    classes = sorted({row["label"] for row in tables["train"]})
    if len(classes) < 2:  # noqa: PLR2004 -- fewer classes are nothing to tell apart
        message = f"{root / train} has the labels {', '.join(classes) or 'none'}; at least 2 are needed"
        raise DataError(message, hint=f"label_column is {label_column!r}: set it to the column of the class")
    splits = {
        split: _to_split(rows, classes, root, root / images if images else None) for split, rows in tables.items()
    }
    return Dataset(classes=tuple(classes), splits=splits, channels=channels)


def _existing(root: Path, option: str, name: str) -> Path:
    if not (root / name).is_file():
        present = sorted(file.name for file in root.glob("*.csv"))
        message = f"there is no file {root / name}{near_miss(name, present)}"
        hint = f"CSV files in {root}: {', '.join(present) or 'none'}; name one: --set dataset.{option}=FILE"
        raise DataError(message, hint=hint)
    return root / name


def _divide(tables: Mapping[str, Sequence[Row]]) -> dict[str, Sequence[Row]]:
    """The rows of the only table by what their split column says."""
    if len(tables) > 1:
        message = f"split_column and files for {' and '.join(list(tables)[1:])} exclude each other"
        raise DataError(message, hint="leave one of them out")
    for row in tables["train"]:
        if row["split"] not in SPLITS:
            message = f"{row.place}: split {row['split']!r}{near_miss(row['split'], SPLITS)}"
            raise DataError(message, hint=f"allowed: {', '.join(SPLITS)}")
    divided = {split: [row for row in tables["train"] if row["split"] == split] for split in SPLITS}
    return {split: rows for split, rows in divided.items() if rows or split == "train"}


def _to_split(rows: Sequence[Row], classes: Sequence[str], root: Path, images: Path | None) -> Split:
    label_of = {name: label for label, name in enumerate(classes)}
    first: dict[str, Row] = {}
    missing: list[str] = []
    for row in rows:
        base = images or row.file.parent
        identity = posixpath.normpath(posixpath.join(Path(os.path.relpath(base, root)).as_posix(), row["path"]))
        if identity in first:
            raise DataError(f"{row.place}: {row['path']} stands in {first[identity].place}, too", hint="remove one")
        if row["label"] not in label_of:
            message = f"{row.place}: no training row has the label {row['label']!r}{near_miss(row['label'], classes)}"
            raise DataError(message, hint=f"labels of the training rows: {', '.join(classes)}")
        first[identity] = row
        if not os.path.isfile(root / identity):  # noqa: PTH113 -- Path.is_file raises for names that are too long
            missing.append(f"\n  {row.place}: {base / row['path']}")
    if missing:
        more = f"\n  and {len(missing) - NUM_LISTED} more" if len(missing) > NUM_LISTED else ""
        message = f"{len(missing)} of {len(rows)} images do not exist:{''.join(missing[:NUM_LISTED])}{more}"
        raise DataError(message, hint="name the folder that paths start from: --set dataset.images=FOLDER")
    groups = [row["group"] for row in rows] if rows and "group" in rows[0] else None
    labels = [label_of[row["label"]] for row in rows]
    return Split(images=[root / identity for identity in first], labels=labels, ids=list(first), groups=groups)


def _example(folder: Path) -> dict[str, object]:
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for brightness, label in ((60, "dark"), (130, "half bright"), (200, "weiß")):
        for number, path in enumerate(write_examples(folder / "scans" / label, count=12, brightness=brightness)):
            relative = path.relative_to(folder).as_posix()
            lines["test" if number % 3 == 2 else "train"].append(f"{relative};{label};person {number // 2}")  # noqa: PLR2004 -- every third
    for split, rows in lines.items():
        (folder / f"{split}.csv").write_text("\n".join(["file;class;person", *rows, ""]), encoding="utf-8")
    return {"test": "test.csv", "path_column": "file", "label_column": "class", "delimiter": ";"}


image_csv.example = _example  # type: ignore[attr-defined]  # the conformance checks look for this attribute
