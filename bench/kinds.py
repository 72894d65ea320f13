"""The values that the core and its plugins hand each other. Nothing here imports torch.

A plugin is a callable that is declared as an entry point. Its signature is its schema: the first parameter is what
the core hands over; every other one is keyword-only, typed, and a key of the recipe's table.

- model, group `bench.models`: `(spec: DataSpec, *, ...) -> torch.nn.Module`. The module maps images N,C,H,W (float,
  normalised) to logits N,num_classes (or N,1 with the loss "bce" and two classes). Two conventions of timm are
  understood where a module follows them: `pretrained_cfg["mean"]` and `["std"]` say how its weights expect their
  input, and `forward_features` with `forward_head` say where the frozen part of a network ends.
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

__all__ = ["SPLITS", "Augmentation", "DataSpec", "Dataset", "Split", "Task"]

Task: TypeAlias = Literal["classification"]

#: The names that a dataset may give its splits.
SPLITS = ("train", "validation", "test")

#: Images N,C,H,W (float32 in 0..1), targets N,num_classes (float32, rows sum to 1) and a generator on the same device
#: -> images and targets of the same shapes. A whole batch at once, an independent draw for every image, nothing
#: written in place, and no randomness but the generator's.
Augmentation: TypeAlias = "Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]"


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What a model is built for.

    `image_size` is (height, width) in pixels, `channels` 1 or 3, `classes` the class names in label order.
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
    """Labelled images: an array or a list of files.

    `images` is uint8 N,H,W or N,H,W,C (memory-mapped where it is large), or one path an image. `labels` is N integers
    that index `Dataset.classes`. `ids` names each sample for good (default: the path below the dataset's root, or the
    position in the array). Samples that share an entry of `groups` are never divided between two splits.
    """

    images: NDArray[np.uint8] | Sequence[Path]
    labels: Sequence[int] | NDArray[np.integer]
    ids: Sequence[str] | None = None
    groups: Sequence[str] | NDArray[np.integer] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """What a dataset plugin returns. `splits` has "train" and may have "validation" and "test"."""

    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    channels: Literal[1, 3] = 3
    task: Task = "classification"
