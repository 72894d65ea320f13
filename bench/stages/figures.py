"""A run's pictures: learning curves, confusion matrix, samples and what the augmentations make of them. PNG files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.stages.drawing import BEST, QUIET, TRAIN, VALIDATION, new_figure, save_figure
from bench.stages.pair_figures import draw_roc, draw_scores
from bench.words import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from bench.kinds import Augmentation
    from bench.record import Run
    from bench.stages.data import Data

__all__ = ["draw_augmentations", "draw_confusion", "draw_curves", "draw_run", "draw_samples"]

_CELL = 0.95  # inches a picture
_MOST_COUNTED = 20  # classes for which the counts are written into the matrix
_MOST_NAMED = 60  # classes whose names fit on the axes
_TICKS = (0, 0.01, 0.05, 0.2, 0.5, 1)
_FEW_EPOCHS = 40  # that many still get a marker each
_ROWS, _DRAWS, _SAMPLES = 4, 6, 24


def draw_run(run: Run, data: Data, augment: Sequence[Augmentation], *, best_epoch: int) -> None:
    """Draw everything that a finished run has: curves, each split's confusion matrix, samples and augmentations."""
    folder = run.folder / "figures"
    if epochs := run.epochs():
        draw_curves(epochs, folder / "curves.png", best_epoch=best_epoch)
    evaluation = json.loads((run.folder / "evaluation.json").read_text(encoding="utf-8"))
    for split, values in evaluation.items():
        classes = [entry["name"] for entry in values["classes"]]
        draw_confusion(values["confusion"], classes, folder / f"confusion_{split}.png")
        if "roc" in values:
            draw_roc(values, folder / f"roc_{split}.png")
            draw_scores(run, split, folder / f"scores_{split}.png")
    images, titles = _samples(data)
    what = "pairs" if data.spec.task == "verification" else "images"
    draw_samples(images, titles, folder / "samples.png", title=f"{len(images)} training {what}")
    if augment:
        width = data.spec.image_size[1]
        original = torch.from_numpy(images[:_ROWS, :, :width]).permute(0, 3, 1, 2).float().div(255)
        draws = [_augmented(original, augment, seed, data.spec.num_classes) for seed in range(_DRAWS)]
        draw_augmentations(original, draws, folder / "augmentations.png")


def _samples(data: Data) -> tuple[NDArray[np.uint8], list[str]]:
    """Some training images and their classes; of pairs, one image beside the other."""
    train = data.splits["train"]
    order = np.random.default_rng(0).permutation(len(train))[:_SAMPLES]
    sides = [np.stack([train.images[row] for row in rows]) for rows in train.rows[order].reshape(len(order), -1).T]
    return np.concatenate(sides, axis=2), [data.spec.classes[label] for label in train.labels[order]]


def draw_curves(epochs: Sequence[Mapping[str, Any]], path: Path, *, best_epoch: int | None = None) -> None:
    """Loss, accuracy and learning rate over the epochs, the best one marked.

    `epochs` is what `Run.epochs` gives, at least one.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    numbers = [line["epoch"] for line in epochs]
    values = {name: [line["values"].get(name, math.nan) for line in epochs] for name in epochs[0]["values"]}
    figure = new_figure(10, 5)
    panels = figure.subplot_mosaic([["loss", "accuracy"], ["lr", "lr"]], height_ratios=[3, 1], sharex=True)
    for name in ("loss", "accuracy"):
        _curve(panels[name], numbers, values.get(f"train_{name}"), "training", TRAIN)
        _curve(panels[name], numbers, values.get(f"val_{name}"), "validation", VALIDATION)
        if best_epoch:
            panels[name].axvline(best_epoch, color=BEST, linestyle=":", linewidth=1.5, label=f"best: {best_epoch}")
        panels[name].set(title=name.capitalize(), xlabel="epoch", ylabel=name)
        panels[name].tick_params(labelbottom=True)
        panels[name].legend(frameon=False)
    panels["loss"].set_ylabel("loss per image (nats)")
    panels["accuracy"].set_ylabel("images classified correctly")
    panels["accuracy"].yaxis.set_major_formatter(PercentFormatter(1.0))
    _curve(panels["lr"], numbers, values.get("lr"), "learning rate", QUIET)
    panels["lr"].set(xlabel="epoch", ylabel="learning rate")
    panels["lr"].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(numbers) == 1:
        panels["lr"].set_xlim(numbers[0] - 1, numbers[0] + 1)
    for panel in panels.values():
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """Confusion matrix: `confusion[i][j]` images of class i were taken for class j. Colours are shares of a row."""
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    counts = np.asarray(confusion)
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    size = min(max(4.5, 0.42 * len(classes) + 2.5), 12.0)
    figure = new_figure(size + 1, size)
    axes = figure.add_subplot()
    norm = PowerNorm(0.4, vmin=0, vmax=1)  # so that one image in a hundred is seen
    picture = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, ticks=_TICKS, format=PercentFormatter(1.0))
    bar.set_label("share of the class's images")
    accuracy = np.trace(counts) / max(int(counts.sum()), 1)
    axes.set(title=f"{counts.sum():,} images, {accuracy:.1%} correct", xlabel="taken for", ylabel="class")
    _name_classes(axes, classes)
    if len(classes) <= _MOST_COUNTED:
        font = 9 if counts.max() < 10_000 else 7  # noqa: PLR2004  # five digits need the room
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.25 else "black"  # noqa: PLR2004  # where the blue turns dark
                axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=font)
    save_figure(figure, path)


def draw_samples(images: NDArray[np.uint8], titles: Sequence[str], path: Path, *, title: str = "") -> None:
    """A grid of images, uint8 N,H,W,C with 1 or 3 channels, with a title each."""
    ratio = max(1, round(images.shape[2] / images.shape[1]))  # a pair is as wide as two images
    columns = min(8 // min(ratio, 8), len(images))
    rows = math.ceil(len(images) / columns)
    figure, grid = _grid(rows, columns, title=title, line=0.34, width=ratio * _CELL)
    for index, axes in enumerate(grid.flat):
        if index < len(images):
            _picture(axes, images[index])
            axes.set_title(_label(titles[index], 16), fontsize=7, pad=3)
    save_figure(figure, path)


def draw_augmentations(original: torch.Tensor, augmented: Sequence[torch.Tensor], path: Path) -> None:
    """Augmented draws beside their originals: a row an image, a column a draw; each float N,C,H,W in 0..1."""
    title = f"{len(augmented)} augmented draws of {len(original)} training images"
    figure, grid = _grid(len(original), 1 + len(augmented), title=title, line=0.05)
    for column, batch in enumerate([original, *augmented]):
        pixels = batch.detach().cpu().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        grid[0, column].set_title(f"draw {column}" if column else "original", fontsize=9, pad=4)
        for row, image in enumerate(pixels):
            _picture(grid[row, column], image)
    for axes in grid[:, 0]:
        axes.spines[:].set(visible=True, color=VALIDATION, linewidth=2)
    save_figure(figure, path)


def _augmented(images: torch.Tensor, augment: Sequence[Augmentation], seed: int, num_classes: int) -> torch.Tensor:
    """One draw; the targets do not matter, but mixup and its kin want some."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.full((len(images), num_classes), 1 / num_classes)
    for augmentation in augment:
        images, targets = augmentation(images, targets, generator)
    return images


def _curve(axes: Axes, numbers: Sequence[int], values: Sequence[float] | None, label: str, color: str) -> None:
    if values is not None:
        marker = "o" if len(numbers) <= _FEW_EPOCHS else None
        axes.plot(numbers, values, color=color, label=label, marker=marker, markersize=3.5, linewidth=1.6)


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    """Class names on both axes; numbers where they are too many."""
    if len(classes) > _MOST_NAMED:
        return
    names = [_label(name, 22) for name in classes]
    font = 9 if len(classes) <= _MOST_COUNTED else 7
    slanted = max(map(len, names)) > 3  # noqa: PLR2004  # shorter ones stand side by side
    axes.set_yticks(range(len(names)), names, fontsize=font)
    axes.set_xticks(
        range(len(names)),
        names,
        fontsize=font,
        rotation=45 if slanted and len(names) <= _MOST_COUNTED else 90 if slanted else 0,
        ha="right" if slanted and len(names) <= _MOST_COUNTED else "center",
        rotation_mode="anchor" if slanted and len(names) <= _MOST_COUNTED else "default",
    )


def _grid(rows: int, columns: int, *, title: str, line: float, width: float = _CELL) -> tuple[Figure, NDArray[Any]]:
    """Axes without ticks; `line` is the height of a title above each, `width` its own, in inches."""
    figure = new_figure(width * columns, (_CELL + line) * rows + 0.4)
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure, grid


def _picture(axes: Axes, image: NDArray[np.uint8]) -> None:
    """One image H,W,C; small ones keep their pixels."""
    grey = image.shape[2] == 1
    axes.imshow(image[..., 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=255)


def _label(text: str, width: int) -> str:
    """A name in which no dollar starts a formula."""
    return shorten(text, width).replace("$", r"\$")
