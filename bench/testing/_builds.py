"""Models under check: built for several kinds of data, fed with random images or pairs of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.errors import Unsupported
from bench.kinds import PAIR_CLASSES, DataSpec
from bench.testing._subject import Subject, expect, seeded

if TYPE_CHECKING:
    import torch

__all__ = ["build", "builds", "first_build", "num_outputs", "random_inputs", "run"]

_TEN = tuple(f"class {number}" for number in range(10))
#: Colour, grey with two classes, and not square.
_SPECS = (
    DataSpec("classification", _TEN, 3, (32, 32)),
    DataSpec("classification", ("no", "yes"), 1, (32, 32)),
    DataSpec("classification", _TEN, 3, (32, 64)),
)
#: The same sizes as pairs, for a model that declines classification.
_PAIR_SPECS = tuple(replace(spec, task="verification", classes=PAIR_CLASSES) for spec in _SPECS)
#: A model that declines small images is asked for larger ones.
_FACTORS = (1, 2, 7)


def build(subject: Subject, spec: DataSpec, *, seed: int = 0) -> torch.nn.Module:
    import torch

    with seeded(seed):
        model: Any = subject.load()(spec, **subject.options())
    expect(isinstance(model, torch.nn.Module), f"it returns {type(model).__name__}, not a torch.nn.Module")
    return model  # type: ignore[no-any-return]  # checked one line above


def _build_or_larger(subject: Subject, spec: DataSpec) -> tuple[DataSpec, torch.nn.Module]:
    """The model for the smallest images that it does not decline."""
    reason: Unsupported | None = None
    for factor in _FACTORS:
        larger = replace(spec, image_size=(spec.image_size[0] * factor, spec.image_size[1] * factor))
        try:
            return larger, build(subject, larger)
        except Unsupported as declined:
            reason = declined
    assert reason is not None  # noqa: S101 - the loop returned otherwise
    raise reason


def first_build(subject: Subject) -> tuple[DataSpec, torch.nn.Module]:
    """A build for colour images or pairs. Parameters that start at zero are filled, or they would hide what lies behind them."""
    import torch

    spec, model = next(builds(subject))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.count_nonzero():
                parameter.normal_(std=0.1, generator=generator)
    return spec, model


def builds(subject: Subject) -> Iterator[tuple[DataSpec, torch.nn.Module]]:
    """A fresh build for each kind of data that it does not decline. Raises Unsupported where it declines all."""
    reason: Unsupported | None = None
    built = 0
    for specs in (_SPECS, _PAIR_SPECS):
        for spec in specs:
            try:
                made = _build_or_larger(subject, spec)
            except Unsupported as declined:
                reason = declined
                continue
            built += 1
            yield made
        if built:
            return
    if reason is not None:
        raise reason


def num_outputs(spec: DataSpec) -> int:
    """Values an image, or a pair of images."""
    return 1 if spec.task == "verification" else spec.num_classes


def random_inputs(spec: DataSpec, *, count: int = 4, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """What the model's `forward` takes: one batch of images, or one for each side of the pairs."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    sides = 2 if spec.task == "verification" else 1
    return tuple(torch.randn(count, spec.channels, *spec.image_size, generator=generator) for _ in range(sides))


def run(model: torch.nn.Module, inputs: Sequence[torch.Tensor], *, seed: int = 0) -> Any:
    import torch

    with seeded(seed), torch.no_grad():
        return model(*inputs)
