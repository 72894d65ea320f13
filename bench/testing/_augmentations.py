"""Checks for augmentations: whole batches in and out, a draw for every image, no randomness but the generator's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import Unsupported
from bench.testing._subject import Subject, expect, seeded

if TYPE_CHECKING:
    import torch

    from bench.kinds import Augmentation

    Pair = tuple[torch.Tensor, torch.Tensor]

__all__ = ["CHECKS"]

#: Count, channels, height, width.
_SHAPES = ((1, 1, 8, 8), (1, 3, 32, 48), (5, 1, 33, 17), (4, 3, 64, 64))
_ROUNDING = 1e-5
#: Differences below are rounding, not another draw.
_VISIBLE = 1e-3
_COPIES = 32
_SEEDS = range(8)
#: Where a decision falls for the whole batch, at most this share escapes it (a mixed image may be its own partner).
_ESCAPES = 0.15


def keeps_shape_and_dtype(subject: Subject) -> None:
    """Images and targets come back in the same shapes, as float32."""
    augment, before = _always(subject), _batch()
    for what, given, expected in zip(("images", "targets"), _call(augment, before), before, strict=True):
        expect(
            given.shape == expected.shape and given.dtype == expected.dtype,
            f"{what} {expected.dtype} {tuple(expected.shape)} come back as {given.dtype} {tuple(given.shape)}",
        )


def keeps_range(subject: Subject) -> None:
    """Images stay finite and within 0..1."""
    augment = _always(subject)
    for seed in _SEEDS:
        images, _ = _call(augment, _batch(), seed=seed)
        low, high = float(images.min()), float(images.max())
        inside = bool(images.isfinite().all()) and low >= -_ROUNDING and high <= 1 + _ROUNDING
        expect(inside, f"pixels reach {low:g} to {high:g}; end with clamp(0, 1)")


def targets_stay_distributions(subject: Subject) -> None:
    """Targets stay non-negative, and every row sums to 1."""
    augment = _always(subject)
    for seed in _SEEDS:
        _, targets = _call(augment, _batch(), seed=seed)
        sums = targets.sum(dim=1)
        valid = float(targets.min()) >= -_ROUNDING and bool(((sums - 1).abs() <= _ROUNDING).all())
        expect(valid, f"targets reach down to {float(targets.min()):g}, rows sum to {sums.tolist()}")


def draws_per_image(subject: Subject) -> None:
    """In a batch of copies of one image, each copy has its own draw."""
    augment = subject.load()(**subject.options(p=0.5))
    batches = [list(_outcomes(augment, seed)) for seed in _SEEDS]
    changed = [outcome for batch in batches for outcome in batch if outcome is not None]
    if not changed:
        raise Unsupported("it leaves the sample image as it is, so there is nothing to compare")
    drawn_for_each = any(_differ(group) for batch in batches if (group := [o for o in batch if o is not None]))
    shares = [sum(outcome is not None for outcome in batch) / _COPIES for batch in batches]
    if not _differ(changed) and min(shares) == 1:
        raise Unsupported("it does the same to every image, so there is no draw")
    expect(
        drawn_for_each or not _differ(changed),
        "all copies of an image in a batch are changed alike, and in another batch otherwise; draw len(images) values",
    )
    expect(
        any(0 < share < 1 - _ESCAPES for share in shares) or (drawn_for_each and min(shares) > 0),
        "a batch is changed as a whole or not at all; decide for each image: torch.rand(len(images), ...) < p",
    )


def seeded_by_generator(subject: Subject) -> None:
    """The same state of the generator gives the same result."""
    augment = _always(subject)
    _expect_equal(_call(augment, _batch()), _call(augment, _batch()), "twice the same generator state, two results")


def only_its_generator(subject: Subject) -> None:
    """Torch's, numpy's and Python's global random state are neither used nor changed."""
    import torch

    augment, results = _always(subject), []
    for seed in (0, 1):
        with seeded(seed):
            before = torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002 - it is meant
            results.append(_call(augment, _batch()))
            after = torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002 - the same
        for name, old, new in zip(("torch", "numpy", "random"), before, after, strict=True):
            expect(old == new, f"it draws from the global generator of {name}; pass generator=generator")
    _expect_equal(results[0], results[1], "the result depends on a global random state; pass generator=generator")


def leaves_input(subject: Subject) -> None:
    """It writes into neither the images nor the targets that it is given."""
    augment, given = _always(subject), _batch()
    _call(augment, given)
    _expect_equal(given, _batch(), "it changed its input in place; work on a copy")


def any_size(subject: Subject) -> None:
    """It takes one image or more, grey or colour, of any height and width."""
    augment = _always(subject)
    for shape in _SHAPES:
        given = _batch(shape)
        images, targets = _call(augment, given)
        expect(images.shape == given[0].shape, f"images {shape} come back as {tuple(images.shape)}")
        expect(targets.shape == given[1].shape, f"targets of images {shape} come back as {tuple(targets.shape)}")


def p_zero_is_identity(subject: Subject) -> None:
    """With p = 0 nothing changes, not by a bit."""
    options = subject.options(p=0.0)
    if "p" not in options:
        raise Unsupported("it has no option p")
    augment = subject.load()(**{**options, "p": 0.0})
    _expect_equal(_call(augment, _batch()), _batch(), "with p = 0 it changes images or targets")


def channels_last(subject: Subject) -> None:
    """Images in the memory format channels_last give the same result."""
    import torch

    augment, (images, targets) = _always(subject), _batch()
    expected, _ = _call(augment, (images, targets))
    given, _ = _call(augment, (images.contiguous(memory_format=torch.channels_last), targets))
    difference = float((given - expected).abs().max())
    expect(
        difference <= _VISIBLE, f"channels_last images come out otherwise, by {difference:.3g}; use reshape, not view"
    )


def _always(subject: Subject) -> Augmentation:
    """The augmentation, applied to every image where it has p."""
    augment: Augmentation = subject.load()(**subject.options(p=1.0))
    return augment


def _batch(shape: tuple[int, int, int, int] = (6, 3, 20, 28)) -> Pair:
    """8-bit images in 0..1 with black, white and smooth parts, and targets, some of them mixed already."""
    import torch

    count, channels, height, width = shape
    coarse = torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(7))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    images = (smooth * 1.6 - 0.3).clamp(0, 1).mul(255).round() / 255
    targets = torch.eye(5)[torch.arange(count) % 5]
    targets[::3] = targets[::3] * 0.9 + 0.02
    return images, targets


def _call(augment: Augmentation, pair: Pair, *, seed: int = 0) -> Pair:
    import torch

    result: Any = augment(*pair, torch.Generator().manual_seed(seed))
    fine = isinstance(result, tuple) and [type(part) for part in result] == [torch.Tensor] * 2
    expect(fine, "it must return a tuple of two tensors: images and targets")
    return result  # type: ignore[no-any-return]  # checked one line above


def _outcomes(augment: Augmentation, seed: int) -> Iterator[torch.Tensor | None]:
    """What became of each copy of one image: None where nothing, otherwise its pixels and its sorted target.

    Every copy has a class of its own, so that mixing shows in the targets; sorted, only the shares count.
    """
    import torch

    images, _ = _batch((1, 3, 20, 28))
    images = images.mul(0.6).add(0.2).repeat(_COPIES, 1, 1, 1)
    given = images, torch.eye(_COPIES)
    before, after = (
        torch.cat((pixels.flatten(1), targets.sort(dim=1, descending=True).values), dim=1)
        for pixels, targets in (given, _call(augment, given, seed=seed))
    )
    for old, new in zip(before, after, strict=True):
        yield new if float((new - old).abs().max()) > _VISIBLE else None


def _differ(outcomes: list[torch.Tensor]) -> bool:
    return any(float((outcome - outcomes[0]).abs().max()) > _VISIBLE for outcome in outcomes)


def _expect_equal(given: Pair, expected: Pair, message: str) -> None:
    for what, one, other in zip(("images", "targets"), given, expected, strict=True):
        expect(one.equal(other), f"{what}: {message}")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    keeps_shape_and_dtype,
    keeps_range,
    targets_stay_distributions,
    draws_per_image,
    seeded_by_generator,
    only_its_generator,
    leaves_input,
    any_size,
    p_zero_is_identity,
    channels_last,
)
