"""The images that a run's exports are judged, calibrated and tuned on: from the run's folder and its dataset.

Needs torch's side of the core, and so a machine that has the dataset; `bench_export.gate.recorded` does without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bench.errors import DataError
from bench.images import BadImage, Decoding, open_upright
from bench.kinds import Split
from bench.places import find_root
from bench.registry import find

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.plan import Plan
    from bench.progress import Progress
    from bench.recipe import Recipe
    from bench.record import Run
    from bench.stages.data import Data
    from bench.stages.image_set import ImageSet

__all__ = ["Images", "Material", "Samples", "open_material", "samples_of"]

#: One image, or the two of a pair.
Images: TypeAlias = "tuple[NDArray[np.uint8], ...]"


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Labelled images or pairs of one split, in their order.

    `name` is the split's, `note` says why it is this one, `fitted_set` holds the images as the model takes them,
    `source` is the dataset's own split that they stand in, `root` its folder.
    """

    name: str
    note: str
    classes: tuple[str, ...]
    fitted_set: ImageSet
    source: Split
    root: Path
    decoding: Decoding

    def __len__(self) -> int:
        return len(self.fitted_set)

    @property
    def ids(self) -> tuple[str, ...]:
        """A name for each sample."""
        return self.fitted_set.ids

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each sample."""
        return self.fitted_set.labels

    @property
    def takes_pairs(self) -> bool:
        """Whether a sample is a pair."""
        return self.fitted_set.rows.ndim > 1

    def rows(self, position: int) -> list[int]:
        """Where the image, or each of the pair, stands in the dataset's split."""
        return [int(row) for row in np.atleast_1d(self.fitted_set.rows[position])]

    def original(self, position: int) -> NDArray[np.uint8] | Images:
        """uint8 H,W,C: decoded at its own size, upright, cut to its box, not resized. Of a pair two of these."""
        images = self.originals(position)
        return images if self.takes_pairs else images[0]

    def originals(self, position: int) -> Images:
        """The same, always as a tuple. Raises DataError for a file that has become unreadable."""
        return tuple(self._original(row) for row in self.rows(position))

    def fitted(self, position: int) -> NDArray[np.uint8] | Images:
        """uint8 h,w,C as the model takes it, resized by Pillow. Of a pair two of these."""
        images = tuple(batch[0] for batch in self.batch([position]))
        return images if self.takes_pairs else images[0]

    def batch(self, positions: Sequence[int] | NDArray[np.int64]) -> Images:
        """uint8 N,h,w,C, fitted; of pairs two of these."""
        rows = self.fitted_set.rows[np.asarray(positions, dtype=np.int64)]
        columns = rows.T if rows.ndim > 1 else rows[None]
        return tuple(np.ascontiguousarray(self.fitted_set.images[column]) for column in columns)

    def take(self, positions: NDArray[np.int64], *, note: str | None = None) -> Samples:
        """Some of the samples."""
        return replace(self, fitted_set=self.fitted_set.take(positions), note=self.note if note is None else note)

    def _original(self, row: int) -> NDArray[np.uint8]:
        if isinstance(self.source.images, np.ndarray):
            return _with_channels(self.source.images[row], self.decoding.channels)
        path = self.source.images[row]
        boxes = self.source.boxes
        left, top, right, bottom = (0, 0, 0, 0) if boxes is None else np.asarray(boxes[row]).tolist()
        try:
            image = open_upright(
                path,
                channels=self.decoding.channels,
                max_megapixels=self.decoding.max_megapixels,
                box=None if boxes is None else (left, top, right, bottom),
            )
        except BadImage as reason:
            raise DataError(f"{path}: {reason}", hint="it could be read when the run was made") from reason
        return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, self.decoding.channels)


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """All samples of a run's dataset, divided as the run divided them."""

    data: Data
    sources: dict[str, Split]
    root: Path
    decoding: Decoding

    def gate(self) -> Samples:
        """What exports are judged on: the validation split; the test split where the run has none."""
        if "validation" in self.data.splits:
            return self._samples("validation", "")
        if "test" in self.data.splits:
            return self._samples("test", "the run has no validation split: judged on the test split")
        return self._samples("train", "the run holds nothing out: judged on the training split")

    def training(self, count: int, seed: int = 0) -> Samples:
        """Up to `count` seeded training samples, to calibrate on."""
        order = self._order(seed)
        most = len(order) if "validation" in self.data.splits else -(-len(order) // 2)
        return self._samples("train", "").take(order[: min(count, most)])

    def selection(self, count: int, seed: int = 0) -> Samples:
        """Up to `count` seeded samples to choose between calibrations: of the validation split, or of the training.

        Training samples are none of those that `training` gives for the same seed.
        """
        if "validation" in self.data.splits:
            samples = self._samples("validation", "chosen on validation samples")
            chosen = np.random.default_rng(seed).permutation(len(samples))[:count]
            return samples.take(np.sort(chosen))
        order = self._order(seed)
        samples = self._samples("train", "chosen on training samples that were not calibrated on")
        return samples.take(order[::-1][: min(count, len(order) // 2)])

    def _order(self, seed: int) -> NDArray[np.int64]:
        return np.random.default_rng(seed).permutation(len(self.data.splits["train"]))

    def _samples(self, name: str, note: str) -> Samples:
        return Samples(
            name, note, self.data.spec.classes, self.data.splits[name], self.sources[name], self.root, self.decoding
        )


def open_material(run: Run, recipe: Recipe, plan: Plan, progress: Progress) -> Material:
    """Open, decode and divide the dataset of a run as it did. Raises DataError where it is not the recorded one."""
    from bench.stages.data import load
    from bench.stages.dataset import open_dataset

    root = Path(plan.dataset_root)
    if not root.exists():  # the run was made elsewhere
        root = Path(find_root(recipe.root or recipe.dataset.name)[0])
    dataset = open_dataset(find("datasets", recipe.dataset.name).load(), root, recipe.dataset.options)
    data = load(
        dataset,
        root,
        recipe.data,
        size=plan.image_size,
        report=lambda done, total: progress.advance("decoding images", done, total),
    )
    info = run.info()
    if info["dataset"]["fingerprint"] != data.fingerprint:
        raise DataError(
            f"{root}: the dataset has changed since {run.name} was made",
            hint="restore the dataset: the gate has to see the images that the run was judged on",
        )
    if (fold := info.get("fold")) is not None:
        data = data.of_fold(fold)
    table = recipe.data
    how = Decoding(plan.image_size, data.spec.channels, table.resize, table.filter, table.max_megapixels)
    # What was held out, or made a fold, stands in the dataset's training split.
    sources = {name: dataset.splits.get(name, dataset.splits["train"]) for name in data.splits}
    return Material(data, sources, root, how)


def samples_of(run: Run, progress: Progress | None = None) -> Samples:
    """The samples that a run's exports are judged on."""
    from bench.progress import Progress as Silent
    from bench.stages.restore import restore

    restored = restore(run.folder)
    return open_material(run, restored.recipe, restored.plan, progress or Silent()).gate()


def _with_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """uint8 H,W or H,W,C of a dataset's array -> H,W,`channels`, as Pillow converts."""
    from PIL import Image

    array = pixels[..., None] if pixels.ndim == 2 else pixels  # noqa: PLR2004
    if array.shape[2] != channels:
        flat = array[..., 0] if array.shape[2] == 1 else array
        image = Image.fromarray(np.ascontiguousarray(flat)).convert("L" if channels == 1 else "RGB")
        array = np.asarray(image, dtype=np.uint8).reshape(*array.shape[:2], channels)
    return np.ascontiguousarray(array)
