"""The images that a rerun sees: those of the record, found where they lie now, decoded anew where that may matter."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.errors import DataError, RecipeError
from bench.together import load_together

if TYPE_CHECKING:
    from bench.progress import Progress
    from bench.reproduction.rerun import Prepared
    from bench.stages.data import Data
    from bench.stages.distributed import Team

__all__ = ["Opened", "check_data", "fresh_cache"]


class Opened:
    """The datasets of the runs; the one used last stays open, as the runs of a group share theirs."""

    def __init__(self, progress: Progress, team: Team | None) -> None:
        self._progress, self._team = progress, team
        self._key = ""
        self._data: Data | None = None

    def data(self, prepared: Prepared) -> Data:
        """The images that the recorded run saw: of its fold, and without a test split where it was a trial."""
        recipe, plan, info = prepared.recipe, prepared.plan, prepared.info
        key = repr((recipe.dataset, recipe.data, plan.dataset_root, plan.image_size))
        if self._data is None or key != self._key:
            if self._data is not None and self._team is not None:
                raise RecipeError("these runs are of several datasets", hint="name the runs one by one")
            self._key, self._data = key, load_together(recipe, plan, self._progress, self._team)
        data = self._data if info.get("fold") is None else self._data.of_fold(info["fold"])
        if "trial" not in info:
            return data
        return replace(data, splits={name: images for name, images in data.splits.items() if name != "test"})


def check_data(prepared: Prepared, data: Data, *, any_data: bool) -> bool:
    """Whether these are the recorded images. Raises DataError where they are not, and have to be or cannot be used."""
    name, root = prepared.run.name, prepared.plan.dataset_root
    if tuple(prepared.plan.classes or ()) != tuple(data.spec.classes):
        raise DataError(
            f"{root}: its classes are not those that {name} was trained on",
            hint="restore the dataset, or name its folder with BENCH_DATA",
        )
    if (prepared.info.get("dataset") or {}).get("fingerprint") == data.fingerprint:
        return True
    if not any_data:
        raise DataError(
            f"{root}: the dataset has changed since {name} was recorded",
            hint="restore the dataset; --any-data trains on what is there, and compares by test on the common samples",
        )
    return False


@contextmanager
def fresh_cache(prepared: Sequence[Prepared], *, alone: bool) -> Iterator[None]:
    """An empty cache where a kept one could hide what has changed: cached features, images that another Pillow decoded.

    Several processes keep theirs, as they have to share it.
    """
    from tempfile import TemporaryDirectory

    from bench.stages.cache import cache_folder

    if not alone or not any(
        one.plan.cache_features or any(change.matters for change in one.changes) for one in prepared
    ):
        yield
        return
    home = cache_folder()
    home.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("BENCH_CACHE")
    with TemporaryDirectory(prefix="reproduce-", dir=home) as folder:
        os.environ["BENCH_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["BENCH_CACHE"]
            else:
                os.environ["BENCH_CACHE"] = before
