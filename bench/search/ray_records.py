"""Runs on their way from a node that does not see the runs' folder to the driver, which does."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["pack", "unpack"]


def pack(folder: Path, names: Sequence[str]) -> bytes:
    """The runs of these names (EXPERIMENT/RUN) below `folder`, as one value."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in names:
            tar.add(folder / name, arcname=name)
    return file.getvalue()


def unpack(archive: bytes, runs: Path) -> None:
    """Put runs that a task has packed into the runs' folder: each is there whole, or as it was before."""
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".arriving-", dir=runs) as name:
        arriving = Path(name)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(arriving, filter="data")
        for file in sorted(arriving.glob("*/*/run.json")):
            source = file.parent
            target = runs / source.relative_to(arriving)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():  # an earlier, interrupted start on a node that sees the folder
                target.replace(arriving / f"before-{target.name}")
            source.replace(target)
