"""The dataset of a recorded run, opened again through the core's data stage; images are decoded once, into its cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.kinds import Dataset, Split
    from bench.progress import Progress
    from bench.reporting.reading import Recorded
    from bench.stages.data import Data
    from bench.stages.image_set import ImageSet

__all__ = ["Opened", "Opener"]

_GRID = 64  # pixels a side that are enough for brightness and contrast


@dataclass(frozen=True, eq=False)
class Opened:
    """A dataset as the run saw it; `changed` says that its fingerprint is another one by now."""

    dataset: Dataset
    data: Data
    changed: bool
    _looks: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict, repr=False)

    def source(self, split: str) -> Split:
        """The dataset's own split that a split's rows point into: held-out images are training images."""
        return self.dataset.splits.get(split, self.dataset.splits["train"])

    def positions(self, split: str, ids: Sequence[str], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each predicted sample stands in the split here, N; -1 where it is not there or has another label."""
        images = self.data.splits.get(split)
        if images is None:
            return np.full(len(ids), -1)
        if tuple(ids) == images.ids:
            found = np.arange(len(ids))
        else:
            known = {id_: position for position, id_ in enumerate(images.ids)}
            found = np.array([known.get(id_, -1) for id_ in ids], dtype=np.int64)
        return np.where((found >= 0) & (images.labels[found] == labels), found, -1)

    def looks(self, split: str) -> dict[str, NDArray[np.float64]]:
        """Brightness and contrast (0 to 1) of each sample of a split, and its size in pixels where it is known.

        Of pairs, the mean over both sides. The size is the geometric mean of the sides of the file, or of its box.
        """
        if split not in self._looks:
            images = self.data.splits[split]
            rows = images.distinct_rows()
            of_image = {"brightness": _brightness(images, rows), "contrast": _contrast(images, rows)}
            sizes = _sizes(self.source(split), rows)
            if sizes is not None:
                of_image["size"] = sizes
            places = np.searchsorted(rows, images.rows)
            spread = {name: values[places] for name, values in of_image.items()}
            self._looks[split] = {name: v if v.ndim == 1 else v.mean(1) for name, v in spread.items()}
        return self._looks[split]

    def groups(self, split: str) -> NDArray[Any] | None:
        """The group of each image of a split, rows as `ImageSet.rows`; None where the dataset has none."""
        groups = self.source(split).groups
        return None if groups is None else np.asarray(groups)[self.data.splits[split].rows]


class Opener:
    """Opens datasets, each once however many runs of an experiment share it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._known: dict[Any, tuple[Dataset, Data] | str] = {}

    def open(self, recorded: Recorded) -> Opened | str:
        """The run's dataset, or why it cannot be shown here."""
        recipe = recorded.recipe
        if recipe is None:
            return "its recipe cannot be used here"
        root = _root(recorded)
        key = (root, recipe.dataset.name, repr(sorted(recipe.dataset.options.items())), repr(recipe.data))
        if key not in self._known:
            self._known[key] = self._open(recorded, root)
        found = self._known[key]
        if isinstance(found, str):
            return found
        dataset, data = found
        fold = recorded.info.get("fold")
        try:
            data = data.of_fold(int(fold)) if fold is not None and data.num_folds else data
        except (BenchError, ValueError) as cause:
            return str(cause)
        fingerprint = (recorded.info.get("dataset") or {}).get("fingerprint")
        return Opened(dataset, data, changed=fingerprint not in {None, data.fingerprint})

    def _open(self, recorded: Recorded, root: Path) -> tuple[Dataset, Data] | str:
        from bench.registry import find
        from bench.stages.data import load
        from bench.stages.dataset import open_dataset

        recipe = recorded.recipe
        assert recipe is not None  # noqa: S101  # `open` has looked
        try:
            plugin = find("datasets", recipe.dataset.name).load()
            dataset = open_dataset(plugin, root, recipe.dataset.options)
            data = load(
                dataset,
                root,
                recipe.data.model_copy(update={"memory_gb": 0.0}),  # few of them are needed, so they stay on the disk
                size=recipe.data.image_size,
                report=lambda done, total: self._progress.advance("decoding images", done, total),
            )
        except (BenchError, OSError) as cause:
            return str(cause)
        return dataset, data


def _root(recorded: Recorded) -> Path:
    """Where the run had its dataset, or, on another machine, where it would be looked for here."""
    from bench.places import find_root

    noted = str(recorded.plan.get("dataset_root") or "")
    recipe = recorded.recipe
    if (noted and Path(noted).exists()) or recipe is None:
        return Path(noted)
    return Path(find_root(recipe.root or recipe.dataset.name)[0])


def _brightness(images: ImageSet, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return _of_pixels(images, rows, np.mean)


def _contrast(images: ImageSet, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return _of_pixels(images, rows, np.std)


def _of_pixels(images: ImageSet, rows: NDArray[np.int64], measure: Any) -> NDArray[np.float64]:
    """A figure of each image's grey values in 0..1, of large images on a grid; reads the images in portions."""
    step = max(1, min(images.images.shape[1:3]) // _GRID)
    pixels = images.images[:, ::step, ::step]
    portions = []
    for start in range(0, len(rows), 512):
        grey = pixels[rows[start : start + 512]].mean(-1, dtype=np.float32) / 255
        portions.append(measure(grey.reshape(len(grey), -1), axis=1))
    return np.concatenate(portions).astype(np.float64)


def _sizes(split: Split, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """The geometric mean of an image's sides in pixels, from the files' headers; None where none is a file."""
    from PIL import Image

    if isinstance(split.images, np.ndarray):
        return None
    if split.boxes is not None:
        boxes = np.asarray(split.boxes, dtype=np.float64)[rows]
        return np.asarray(np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))
    sizes = []
    for row in rows.tolist():
        try:
            with Image.open(split.images[row]) as image:
                sizes.append((image.width * image.height) ** 0.5)
        except OSError:  # changed since it was decoded
            sizes.append(np.nan)
    return np.array(sizes)
