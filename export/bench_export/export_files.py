"""Where exported files are written, and how a file gets its name once it is judged."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import RecipeError

__all__ = ["file_name", "make_room", "settle", "unproven"]

#: What the names of folders begin with that hold files that nobody has judged yet.
_UNPROVEN = ".unproven"

#: After that many seconds such a folder is what a killed export has left.
_ABANDONED_S = 24 * 3600


def file_name(precision: str, *, raw: bool = False) -> str:
    """What a file of this precision is called: model.onnx, model.int8.onnx, model.raw.onnx."""
    parts = ["model", *(["raw"] if raw else []), *([] if precision == "fp32" else [precision]), "onnx"]
    return ".".join(parts)


def make_room(folder: Path) -> None:
    """Make a folder for exports, without what killed ones have left in it. Raises RecipeError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as cause:
        raise RecipeError(f"{folder}: cannot be written to: {cause.strerror}", hint="--out FOLDER") from cause
    for left in folder.glob(f"{_UNPROVEN}*"):
        with suppress(OSError):  # another export has just taken it away
            if left.stat().st_mtime < time.time() - _ABANDONED_S:
                shutil.rmtree(left)


@contextmanager
def unproven(folder: Path, name: str) -> Iterator[Path]:
    """A place for a file until it is judged, in a folder of its own that is gone afterwards, whatever happens."""
    with tempfile.TemporaryDirectory(prefix=f"{_UNPROVEN}-", dir=folder) as place:
        yield Path(place, name)


def settle(unproven: Path, *, accepted: bool) -> Path:
    """Give a judged file its name, and take those of an earlier export away; weights beside it come along."""
    folder = unproven.parent.parent
    good = folder / unproven.name
    bad = good.with_name(f"{good.stem}.rejected.onnx")
    for old in (good, bad, good.with_name(f"{good.stem}.gate.json"), good.with_name(f"{good.name}.data")):
        old.unlink(missing_ok=True)
    weights = unproven.with_name(f"{unproven.name}.data")
    if weights.exists():
        weights.replace(folder / weights.name)
    return unproven.replace(good if accepted else bad)
