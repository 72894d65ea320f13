"""The values that the core and its plugins hand each other. Nothing here imports torch.

A plugin is a callable that is declared as an entry point. Its signature is its schema: the first parameter is what
the core hands over; every other one is keyword-only, typed, and a key of the recipe's table.

- model, group `bench.models`: `(spec: DataSpec, *, ...) -> torch.nn.Module`. For classification the module maps images
  N,C,H,W (float, normalised) to logits N,num_classes (or N,1 with the loss "bce" and two classes). For verification it
  takes two such batches, `forward(first, second)`, and returns N,1: the logit of "same", or with the loss
  "contrastive" a distance of at least 0. Conventions that are understood where a module follows them:
  - `pretrained_cfg["mean"]` and `["std"]` (timm's) say how its weights expect their input;
  - `forward_features(images)` with `forward_head(features)` (timm's) say where the frozen part of a network ends; for
    verification `forward_head(first, second)` takes the features of both sides;
  - `output`, "logit" or "distance", says what a model of pairs returns, so that a loss for the other is refused;
  - `fit_features(batches, *, labels)` is called once before training, for what is computed from the training images
    instead of trained (a whitening, a codebook, a metric in closed form): an iterable of normalised batches, each
    image once and none augmented, and the labels N. For verification it is `fit_features(batches, *, pairs, labels)`
    with pairs P,2 of positions among the images. It leaves its result in buffers or frozen parameters. A recipe with
    `train.epochs = 0` leaves it at that.
- dataset, group `bench.datasets`: `(root: Path, *, ...) -> Dataset`.
- augmentation, group `bench.augmentations`: `(*, p: float = 0.5, ...) -> Augmentation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor

__all__ = ["PAIR_CLASSES", "SPLITS", "Augmentation", "DataSpec", "Dataset", "Split", "Task"]

Task: TypeAlias = Literal["classification", "verification"]

#: The classes of a verification dataset, in label order.
PAIR_CLASSES = ("different", "same")

#: The names that a dataset may give its splits.
SPLITS = ("train", "validation", "test")

#: Images N,C,H,W (float32 in 0..1), targets N,num_classes (float32, rows sum to 1) and a generator on the same device
#: -> images and targets of the same shapes. A whole batch at once, an independent draw for every image, nothing
#: written in place, and no randomness but the generator's.
Augmentation: TypeAlias = "Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]"


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What a model is built for.

    `image_size` is (height, width) in pixels, `channels` 1 or 3, `classes` the class names in label order; for
    verification they are `PAIR_CLASSES`.
    """

    task: Task
    classes: tuple[str, ...]
    channels: int
    image_size: tuple[int, int]

    @property
    def num_classes(self) -> int:
        """The number of classes, at least 2."""
        return len(self.classes)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Labelled images, or labelled pairs of images: an array or a list of files.

    `images` is uint8 N,H,W or N,H,W,C (memory-mapped where it is large), or one path an image. `labels` is N integers
    that index `Dataset.classes`. `ids` names each sample for good (default: the path below the dataset's root, or the
    position in the array). Images that share an entry of `groups` (N) are never divided between two splits.

    For verification, `pairs` is P,2 positions in `images`, where each image stands once. `labels` (0 different, 1 same)
    and `ids` are then those of the P pairs; `groups` stays one entry an image, its identity, and no identity may be in
    two splits.

    `folds` gives every sample (or pair) the number of its fold, from 0 on. A recipe then trains once for each fold, on
    the others, and tests on that one; the dataset has no test split of its own.

    `boxes` (N,4: left, top, right, bottom in pixels, right and bottom excluded) cuts each file to a part before it is
    resized.
    """

    images: NDArray[np.uint8] | Sequence[Path]
    labels: Sequence[int] | NDArray[np.integer]
    ids: Sequence[str] | None = None
    groups: Sequence[str] | NDArray[np.integer] | None = None
    pairs: NDArray[np.integer] | None = None
    folds: Sequence[int] | NDArray[np.integer] | None = None
    boxes: NDArray[np.integer] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """What a dataset plugin returns. `splits` has "train" and may have "validation" and "test"."""

    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    channels: Literal[1, 3] = 3
    task: Task = "classification"
