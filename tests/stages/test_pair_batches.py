"""Batches of pairs: two halves, an augmentation of its own for each side, held and streamed alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import environment
from bench.errors import RecipeError
from bench.kinds import Augmentation
from bench.plan import draft
from bench.progress import Progress
from bench.recipe import Recipe, parse
from bench.stages import setup
from bench.stages.batches import Batches, Preprocessing, in_halves
from bench.stages.image_set import ImageSet
from bench.stages.pair_augmentation import augment_pairs, own_targets
from bench.stages.seeding import Generators
from bench.stages.train import Trainer
from bench_plugins.augmentations.affine import affine
from bench_plugins.augmentations.cutmix import cutmix
from bench_plugins.augmentations.mixup import mixup
from bench_plugins.datasets.lfw_pairs import lfw_pairs

_CPU = torch.device("cpu")
_PLAIN = Preprocessing((0.0,), (1.0,), torch.contiguous_format)


def pairs_of(count: int = 22) -> ImageSet:
    """Pairs of images whose first pixel is their row; images 0 and 1 stand in none."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(40)
    rows = np.array([random.choice(np.arange(2, 40), 2, replace=False) for _ in range(count)])
    return ImageSet(images, rows, np.arange(count) % 2, tuple(f"{first} {second}" for first, second in rows))


def make(images: ImageSet, size: int = 5, *, held: bool = True, augment: Sequence[Augmentation] = ()) -> Batches:
    return Batches(images, _PLAIN, 2, size, _CPU, torch.from_numpy(images.images) if held else None, augment)


def rows_of(inputs: torch.Tensor) -> list[list[int]]:
    """The pairs of a batch, by their first pixels."""
    assert len(inputs) % 2 == 0
    return (inputs[:, 0, 0, 0] * 255).round().int().reshape(2, -1).T.tolist()  # type: ignore[no-any-return]


def shift(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return images + torch.rand(len(images), 1, 1, 1, generator=generator), targets


def test_halves() -> None:
    assert in_halves(np.array([[1, 2], [3, 4], [5, 6]])).tolist() == [1, 3, 5, 2, 4, 6]
    assert in_halves(np.array([4, 2])).tolist() == [4, 2]


@pytest.mark.parametrize("held", [True, False])
def test_inputs_are_the_first_images_then_the_second_ones(held: bool) -> None:
    given = pairs_of()
    batches = make(given, held=held)
    assert len(batches) == 5  # 22 pairs by five, the last two are a batch
    ordered = list(batches.ordered())
    assert [len(inputs) for inputs, _ in ordered] == [10, 10, 10, 10, 4]
    assert [pair for inputs, _ in ordered for pair in rows_of(inputs)] == given.rows.tolist()
    assert torch.cat([targets for _, targets in ordered]).argmax(1).tolist() == given.labels.tolist()
    by_pair = {tuple(pair): label for pair, label in zip(given.rows.tolist(), given.labels.tolist(), strict=True)}
    seen = []
    for inputs, targets in batches.shuffled(Generators.start(0, _CPU)):
        assert [by_pair[tuple(pair)] for pair in rows_of(inputs)] == targets.argmax(1).tolist()
        seen += rows_of(inputs)
    assert seen != given.rows.tolist()
    assert sorted(seen) == sorted(given.rows.tolist())


@pytest.mark.parametrize("augment", [(), (shift,), (affine(),)])
def test_held_and_streamed_pairs_are_the_same(augment: tuple[Augmentation, ...]) -> None:
    epochs = []
    for held in (True, False):
        batches, generators = make(pairs_of(), held=held, augment=augment), Generators.start(3, _CPU)
        epochs.append([*batches.shuffled(generators), *batches.shuffled(generators), *batches.ordered()])
    for (first, one), (second, two) in zip(*epochs, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(one, two)


def test_each_side_has_a_draw_of_its_own() -> None:
    batches, plain = make(pairs_of(), 22, augment=(shift,)), make(pairs_of(), 22)
    (inputs, targets), (before, labels) = (next(b.shuffled(Generators.start(0, _CPU))) for b in (batches, plain))
    drawn = (inputs - before).mean((1, 2, 3))
    assert len(drawn.round(decimals=5).unique()) == 44
    assert torch.allclose((inputs - before).amax((1, 2, 3)), drawn, atol=1e-6)
    assert torch.equal(targets, labels)
    again = next(batches.shuffled(Generators.start(0, _CPU)))[0]
    assert torch.equal(inputs, again)
    assert torch.equal(next(batches.ordered())[0], next(plain.ordered())[0])


@pytest.mark.parametrize(("mixing", "name"), [(mixup(), "mixup"), (cutmix(p=1.0), "cutmix")])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [1, 0, 1, 1]])
def test_mixing_is_refused_whatever_the_labels(mixing: Augmentation, name: str, labels: list[int]) -> None:
    rows = np.array([[2, 3], [4, 5], [6, 7], [8, 9]])
    given = ImageSet(pairs_of().images, rows, np.array(labels), ("a", "b", "c", "d"))
    batches = make(given, 4, augment=(shift, mixing))
    with pytest.raises(
        RecipeError, match=f"augment: {name} mixes images and their targets, which pairs do not allow"
    ) as e:
        list(batches.shuffled(Generators.start(0, _CPU)))
    assert e.value.hint == f"take {name} out of the recipe"
    with pytest.raises(RecipeError, match=f"{name} mixes images"):  # where features are computed once, too
        list(batches.distinct().ordered(torch.Generator().manual_seed(0)))


def test_an_augmentation_that_is_an_object_is_named_by_its_class() -> None:
    class Blend:
        def __call__(self, images: torch.Tensor, targets: torch.Tensor, _: torch.Generator) -> Any:
            return images, targets.flip(0)

    Blend.__qualname__ = "Blend"
    with pytest.raises(RecipeError, match="augment: Blend mixes"):
        augment_pairs((Blend(),), torch.zeros(4, 1, 2, 2), torch.Generator())


def test_a_copy_of_the_targets_is_no_change() -> None:
    pixels = torch.rand(4, 1, 2, 2)
    after = augment_pairs((lambda images, targets, _: (images + 1, targets.clone()),), pixels, torch.Generator())
    assert torch.equal(after, pixels + 1)


def test_the_targets_shown_to_augmentations_are_all_different_probabilities() -> None:
    for count in (2, 7, 128):
        shown = own_targets(count)
        assert len(shown.unique(dim=0)) == count
        assert torch.allclose(shown.sum(1), torch.ones(count))
        assert shown.min() >= 0


@pytest.mark.parametrize("held", [True, False])
def test_distinct_images_are_each_there_once(held: bool) -> None:
    given = pairs_of()
    batches = make(given, held=held, augment=(shift,))
    single = batches.distinct()
    rows = np.unique(given.rows)
    found = torch.cat([inputs for inputs, _ in single.ordered()])
    assert (found[:, 0, 0, 0] * 255).round().int().tolist() == rows.tolist()
    assert len(single.images) == len(rows) < given.rows.size
    assert len(single.images.ids) == len(set(single.images.ids)) == len(rows)
    generator = torch.Generator().manual_seed(0)
    views = torch.cat([inputs for inputs, _ in single.ordered(generator)])
    assert len((views - found).mean((1, 2, 3)).round(decimals=5).unique()) == len(rows)
    assert single.distinct() is single
    assert batches.images is given  # the pairs are left alone


def test_batches_of_another_size_are_the_same_pairs() -> None:
    batches = make(pairs_of())
    assert batches.resized(22).batch_size == 22
    assert batches.batch_size == 5
    assert rows_of(next(batches.resized(22).ordered())[0]) == batches.images.rows.tolist()


# A whole run

_RECIPE = """
[dataset]
name = "lfw_pairs"
root = "{root}"
[data]
size = 8
validation = 0.25
[model]
name = "siamese"
embedding = [8]
[[model.blocks]]
channels = 4
kernel = 3
pool = 2
[[augment]]
name = "affine"
[train]
epochs = 2
batch_size = 7
loss = "bce"
[compute]
precision = "fp32"
memory_format = "contiguous"
threads = 1
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    lfw_pairs.example(root)  # type: ignore[attr-defined]
    return root


def recipe(root: Path, *changes: str) -> Recipe:
    return parse(_RECIPE.format(root=root), path=Path("pairs.toml"), changes=changes)


def trained(given: Recipe, folder: Path) -> Trainer:
    """The trainer of a recipe's one run, at its end."""
    progress = Progress()
    plan = draft(given, environment.detect())
    data = setup.load_data(given, plan, progress)
    plan = setup.settle(given, plan, data, progress)
    parts: dict[str, Any] = {"progress": progress, "on_epoch": lambda *_: None}
    trainer = setup.make_trainer(given, plan, data, seed=0, folder=folder, **parts)
    trainer.fit()
    return trainer


@pytest.mark.parametrize("changes", [(), ('model.freeze=["twin"]', "train.views=2"), ("data.copies=3",)])
def test_a_streamed_set_of_pairs_trains_to_the_same_weights(
    faces: Path, changes: tuple[str, ...], tmp_path: Path
) -> None:
    held, streamed = (
        trained(recipe(faces, f"data.memory_gb={budget}", *changes), tmp_path / budget).model.state_dict()
        for budget in ("auto", "0")
    )
    assert held.keys() == streamed.keys()
    assert all(torch.equal(tensor, streamed[name]) for name, tensor in held.items())


@pytest.mark.parametrize("changes", [('model.freeze=["twin"]',), ("data.copies=3",)])
def test_mixing_is_refused_where_images_are_augmented_beforehand(
    faces: Path, changes: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="mixes images and their targets"):
        trained(recipe(faces, 'augment=[{name="mixup"}]', *changes), tmp_path)


@pytest.mark.parametrize("copies", [1, 3])
def test_an_epoch_has_every_copy_once(faces: Path, copies: int, tmp_path: Path) -> None:
    trainer = trained(recipe(faces, f"data.copies={copies}"), tmp_path)
    names = [name.partition("#")[0] for name in trainer.source.images.ids]
    assert set(Counter(names).values()) == {copies}
    assert trainer.plan.steps_per_epoch == len(trainer.source) == -(-len(names) // 7)
    assert isinstance(trainer.source, Batches)
    assert bool(trainer.source.augment) == (copies == 1)  # what was augmented once is not augmented again
