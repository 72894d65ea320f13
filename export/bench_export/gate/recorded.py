"""The samples that an export was judged on, by name: packed into its metadata, and found again below a folder."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError, DataError
from bench.images import BadImage, Decoding, fit, open_upright
from bench_export.gate.packing import pack, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.images import Box
    from bench_export.card import Card
    from bench_export.gate.samples import Samples

__all__ = ["MOST_SAMPLES", "Recorded", "find_samples", "pack_samples", "recorded_names"]

#: Samples whose names and answers a file carries.
MOST_SAMPLES = 2_000


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """The gate's samples found below a folder, with the trained model's two best answers to each.

    `files` has one path a sample, or two for a pair; `boxes` what they are cut to; `total` counts those that the gate
    saw, and `missing` those with a name that were not found.
    """

    name: str
    note: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    files: tuple[tuple[Path, ...], ...]
    boxes: tuple[tuple[Box | None, ...], ...]
    answers: NDArray[np.float32]
    decoding: Decoding
    total: int = 0
    missing: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def originals(self, position: int) -> tuple[NDArray[np.uint8], ...]:
        """One image at its own size, or the two of a pair. Raises DataError for a file that cannot be read."""
        return tuple(
            np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, self.decoding.channels)
            for image in self._opened(position)
        )

    def batch(self, positions: Sequence[int] | NDArray[np.int64]) -> tuple[NDArray[np.uint8], ...]:
        """Fitted ones, uint8 N,h,w,C; of pairs two of these."""
        rows = [[fit(image, self.decoding) for image in self._opened(int(position))] for position in positions]
        return tuple(np.stack(column) for column in zip(*rows, strict=True))

    def _opened(self, position: int) -> list[Any]:
        opened = []
        for path, box in zip(self.files[position], self.boxes[position], strict=True):
            try:
                how = self.decoding
                opened.append(open_upright(path, channels=how.channels, max_megapixels=how.max_megapixels, box=box))
            except (BadImage, OSError) as cause:
                raise DataError(f"{path}: {cause}", hint="it was readable when the model was exported") from cause
        return opened


def pack_samples(samples: Samples, answers: NDArray[np.float32], *, seed: int = 0) -> dict[str, Any]:
    """Names, boxes, labels and the trained model's answers of up to 2,000 seeded samples, for the metadata.

    Of a dataset that consists of arrays there is nothing to find again: `files` is then false.
    """
    entry = {"split": samples.name, "note": samples.note, "total": len(samples)}
    if isinstance(samples.source.images, np.ndarray):
        return {**entry, "count": 0, "files": False}
    chosen = np.sort(np.random.default_rng(seed).permutation(len(samples))[:MOST_SAMPLES])
    start = f"{samples.root.as_posix()}/"
    paths = [[samples.source.images[row].as_posix().removeprefix(start) for row in samples.rows(p)] for p in chosen]
    boxes = samples.source.boxes
    values = {
        "ids": [samples.ids[position] for position in chosen],
        "paths": paths,
        "boxes": None if boxes is None else [np.asarray(boxes)[samples.rows(p)].tolist() for p in chosen],
        "labels": samples.labels[chosen].tolist(),
        "best": _two_best(answers[chosen]),
    }
    if all(id_ == " ".join(names) for id_, names in zip(values["ids"], paths, strict=True)):
        values["ids"] = None  # they are the paths
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return {**entry, "count": len(chosen), "files": True, "data": pack(text.encode())}


def recorded_names(gate: Mapping[str, Any] | None) -> list[list[str]]:
    """The paths below the dataset's folder of each sample (of a pair both); [] where a card's gate names none."""
    packed = (gate or {}).get("samples")
    if not isinstance(packed, Mapping) or not packed.get("files"):
        return []
    paths: list[list[str]] = _read(packed)["paths"]
    return paths


def find_samples(card: Card, root: Path) -> Recorded:
    """The samples that a card names, below a folder.

    Raises DataError where none is there, and BenchError where the card names none.
    """
    packed = (card.gate or {}).get("samples")
    if not isinstance(packed, Mapping):
        raise BenchError("its metadata name no samples to check with", hint="export it again")
    if not packed.get("files"):
        raise BenchError(
            f"the dataset {card.dataset.get('name', '')!r} consists of arrays, not of files that could be found again",
            hint="--against RUN compares with the trained model on the run's own images",
        )
    values = _read(packed)
    found = [position for position, names in enumerate(values["paths"]) if _are_there(root, names)]
    if not found:
        raise DataError(
            f"{root}: none of the {len(values['paths']):,} images that the model was judged on is there, "
            f"such as {values['paths'][0][0]}",
            hint="name the folder that the dataset was read from when the run was made",
        )
    try:
        return _recorded(card, packed, values, found, root)
    except (IndexError, KeyError, TypeError, ValueError) as cause:
        raise _damaged(cause) from cause


def _recorded(
    card: Card, packed: Mapping[str, Any], values: Mapping[str, Any], found: Sequence[int], root: Path
) -> Recorded:
    paths, boxes = values["paths"], values["boxes"]
    ids = values["ids"] or [" ".join(names) for names in paths]
    answers = np.full((len(found), len(card.classes)), np.nan, dtype=np.float32)
    for row, position in enumerate(found):
        for label, probability in values["best"][position]:
            answers[row, label] = probability
    return Recorded(
        name=packed["split"],
        note=packed["note"],
        classes=card.classes,
        ids=tuple(ids[position] for position in found),
        labels=np.array([values["labels"][position] for position in found], dtype=np.int64),
        files=tuple(tuple(root / name for name in paths[position]) for position in found),
        boxes=tuple(_boxes(paths[position], boxes[position] if boxes else None) for position in found),
        answers=answers,
        decoding=card.preprocessing.decoding(),
        total=int(packed["total"]),
        missing=len(paths) - len(found),
    )


def _read(packed: Mapping[str, Any]) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(unpack(packed["data"]))
        lengths = {len(values[name]) for name in ("paths", "labels", "best")}
        named = all(names and all(isinstance(name, str) for name in names) for names in values["paths"])
        if len(lengths) != 1 or 0 in lengths or not named:
            raise ValueError("entries are missing")  # noqa: TRY301  # told as any other damage
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError, zlib.error) as cause:
        raise _damaged(cause) from cause
    return values


def _damaged(cause: Exception) -> BenchError:
    return BenchError(f"the names of its samples are damaged: {cause!r}", hint="export it again")


def _are_there(root: Path, names: Sequence[str]) -> bool:
    """A name that leaves the folder counts as missing: a file says nothing of what lies elsewhere."""
    inside = all(not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts for name in names)
    return inside and all((root / name).is_file() for name in names)


def _boxes(names: Sequence[str], boxes: Sequence[Sequence[int]] | None) -> tuple[Box | None, ...]:
    if boxes is None:
        return (None,) * len(names)
    return tuple((int(left), int(top), int(right), int(bottom)) for left, top, right, bottom in boxes)


def _two_best(answers: NDArray[np.float32]) -> list[list[tuple[int, float]]]:
    """(class, probability) of the two most probable classes of each row, to seven digits."""
    best = np.argsort(-answers, axis=1, kind="stable")[:, :2]
    return [
        [(int(label), round(float(row[label]), 7)) for label in order] for row, order in zip(answers, best, strict=True)
    ]
