"""Order, augmentation, arithmetic, and the thread that reads ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from bench.kinds import Augmentation
from bench.stages import batches as stage
from bench.stages.batches import Batches, Preprocessing, num_steps, one_hot
from bench.stages.image_set import ImageSet
from bench.stages.seeding import Generators

_CPU = torch.device("cpu")
_PLAIN = Preprocessing((0.0,), (1.0,), torch.contiguous_format)


def image_set(count: int, *, channels: int = 1, seed: int = 0) -> ImageSet:
    """Images whose first pixel is their row."""
    images = np.random.default_rng(seed).integers(0, 256, (count + 3, 4, 4, channels), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count + 3)
    rows = np.random.default_rng(1).permutation(count + 3)[:count]
    return ImageSet(images, rows, rows % 2, tuple(map(str, rows)))


def make(images: ImageSet, batch_size: int, *, held: bool = True, augment: Sequence[Augmentation] = ()) -> Batches:
    tensor = torch.from_numpy(images.images) if held else None
    return Batches(images, _PLAIN, 2, batch_size, _CPU, held=tensor, augment=augment)


def rows_of(inputs: torch.Tensor) -> list[int]:
    return (inputs[:, 0, 0, 0] * 255).round().int().tolist()


def noise(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    shift = torch.rand(len(images), 1, 1, 1, generator=generator)
    return images + shift, targets.roll(1, 0)


def read_ahead_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.mark.parametrize(
    ("images", "batch_size", "steps"), [(10, 5, 2), (11, 5, 2), (12, 5, 3), (1, 5, 1), (3, 5, 1), (7, 1, 7), (6, 6, 1)]
)
@pytest.mark.parametrize("held", [True, False])
def test_an_epoch_has_every_image_once_but_for_a_rest_of_one(
    images: int, batch_size: int, steps: int, held: bool
) -> None:
    given = image_set(images)
    batches = make(given, batch_size, held=held)
    assert len(batches) == num_steps(images, batch_size) == steps
    shuffled = list(batches.shuffled(Generators.start(0, _CPU)))
    seen = [row for inputs, _ in shuffled for row in rows_of(inputs)]
    assert len(shuffled) == steps
    assert len(seen) == len(set(seen)) == images - (images == 11)
    assert set(seen) <= set(given.rows.tolist())
    for inputs, targets in shuffled:
        assert targets.argmax(1).tolist() == [row % 2 for row in rows_of(inputs)]
    ordered = [row for inputs, _ in batches.ordered() for row in rows_of(inputs)]
    assert ordered == given.rows.tolist()


@pytest.mark.parametrize("held", [True, False])
def test_the_generators_decide_the_order_and_the_augmentation(held: bool) -> None:
    batches = make(image_set(20), 6, held=held, augment=(noise,))

    def epoch(generators: Generators) -> torch.Tensor:
        return torch.cat([inputs for inputs, _ in batches.shuffled(generators)])

    first, second = Generators.start(0, _CPU), Generators.start(0, _CPU)
    epochs = [epoch(first), epoch(first)]
    assert not torch.equal(*epochs)
    assert torch.equal(epochs[0], epoch(second))
    state = second.state()
    assert torch.equal(epochs[1], epoch(second))
    second.restore(state)
    assert torch.equal(epochs[1], epoch(second))
    assert not torch.equal(epoch(Generators.start(1, _CPU)), epochs[0])


def test_only_shuffled_batches_are_augmented() -> None:
    given = image_set(8)
    plain, augmented = make(given, 8), make(given, 8, augment=(noise,))
    assert torch.equal(next(augmented.ordered())[0], next(plain.ordered())[0])
    views = [next(augmented.ordered(torch.Generator().manual_seed(seed)))[0] for seed in (0, 0, 1)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    inputs, targets = next(augmented.shuffled(Generators.start(0, _CPU)))
    before, labels = next(plain.shuffled(Generators.start(0, _CPU)))
    shift = inputs - before
    assert torch.allclose(shift.amax((1, 2, 3)), shift.amin((1, 2, 3)), atol=1e-6)
    assert len(shift.amax((1, 2, 3)).unique()) == 8  # one draw an image
    assert torch.equal(targets, labels.roll(1, 0))


def test_augmentation_leaves_the_held_images_alone() -> None:
    def wild(images: torch.Tensor, targets: torch.Tensor, _: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return images.zero_(), targets.zero_()

    batches = make(image_set(8), 4, augment=(wild,))
    assert batches.held is not None
    before, labels = batches.held.clone(), [targets for _, targets in batches.ordered()]
    list(batches.shuffled(Generators.start(0, _CPU)))
    assert torch.equal(batches.held, before)
    assert all(map(torch.equal, labels, [targets for _, targets in batches.ordered()]))


# preprocessing


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalised_values_and_layout(layout: torch.memory_format) -> None:
    images = torch.randint(0, 256, (5, 4, 6, 3), dtype=torch.uint8)
    mean, std = (0.1, 0.4, 0.5), (0.2, 0.25, 1.0)
    preprocessing = Preprocessing(mean, std, layout)
    scaled = preprocessing.scale(images)
    assert (scaled.shape, scaled.dtype) == ((5, 3, 4, 6), torch.float32)
    expected = (images.double().permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
        3, 1, 1
    )
    before = scaled.clone()
    normalised = preprocessing.normalise(scaled)
    assert torch.allclose(normalised.double(), expected, atol=1e-6)
    assert normalised.is_contiguous(memory_format=layout)
    assert torch.equal(scaled, before)
    assert images.dtype is torch.uint8


def test_one_hot() -> None:
    assert one_hot(torch.tensor([2, 0], dtype=torch.int32), 3).tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]


# reading ahead


def test_the_thread_ends_when_nobody_wants_more() -> None:
    batches = make(image_set(100), 2, held=False)
    for take in (1, 3):
        stream = batches.shuffled(Generators.start(0, _CPU))
        assert len(list(islice(stream, take))) == take
        del stream
        assert read_ahead_threads() == []
    for _ in batches.ordered():
        break
    assert read_ahead_threads() == []


def test_it_reads_ahead_but_not_far() -> None:
    read: list[int] = []

    def slow(item: torch.Tensor) -> torch.Tensor:
        read.append(int(item))
        return item

    stream = stage._ahead(slow, list(torch.arange(50)))
    assert int(next(stream)) == 0
    deadline = time.monotonic() + 5
    while len(read) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(read) == 5  # one given, three waiting, one in hand
    assert [int(item) for item in stream] == list(range(1, 50))
    assert read_ahead_threads() == []


@pytest.mark.parametrize("error", [ValueError("torn page"), MemoryError(), KeyboardInterrupt()])
def test_the_threads_error_is_raised_where_the_batch_is_missed(error: BaseException) -> None:
    def fail(item: torch.Tensor) -> torch.Tensor:
        if item == 2:
            raise error
        return item

    seen: list[Any] = []
    with pytest.raises(type(error)):
        seen.extend(int(item) for item in stage._ahead(fail, list(torch.arange(5))))
    assert read_ahead_threads() == []
