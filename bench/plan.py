"""What a run will do, derived from the recipe, the machine and the data; each derived value with its reason.

A plan is drafted from recipe and machine alone, completed once the data and the model are known, and settled by the
calibration. No stage derives any of it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bench.errors import RecipeError
from bench.places import find_root, find_weights

if TYPE_CHECKING:
    from bench.environment import Machine
    from bench.kinds import DataSpec, Task
    from bench.recipe import Recipe

__all__ = ["Plan", "Statistics", "complete", "draft", "from_json", "require_files"]

#: Mean and standard deviation of each channel, in 0..1.
Statistics: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]

_BF16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}


@dataclass(frozen=True, slots=True)
class Plan:
    """Derived values; None and "auto" are not known yet. `reasons` says why, by field name.

    `mean` and `std` are in 0..1 (image values over 255), `image_size` is (height, width).
    """

    experiment: str
    seeds: tuple[int, ...]
    dataset_root: str
    weights: str
    image_size: tuple[int, int]
    device: str
    precision: str
    memory_format: str
    threads: int | None
    epochs: int
    batch_size: int
    normalize: str
    processes: int = 1
    task: Task = "classification"
    num_folds: int | None = None
    channels: int | None = None
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    steps_per_epoch: int | None = None
    cache_features: bool | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def decided(self, **choices: tuple[Any, str]) -> Plan:
        """The plan with some values and their reasons filled in."""
        values = {name: value for name, (value, _) in choices.items()}
        reasons = {**self.reasons, **{name: reason for name, (_, reason) in choices.items()}}
        return replace(self, **values, reasons=reasons)

    def as_json(self) -> dict[str, Any]:
        """Plain values for plan.json."""
        return asdict(self)


def from_json(values: Mapping[str, Any]) -> Plan:
    """A plan as it was written by `as_json`."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return Plan(**fields)


def draft(recipe: Recipe, machine: Machine) -> Plan:
    """What recipe and machine decide. Raises RecipeError where the machine cannot do what the recipe asks."""
    root, root_reason = find_root(recipe.root or recipe.dataset.name)
    weights, weights_reason = find_weights(recipe.weights)
    device, device_reason = _device(recipe.compute.device, machine)
    precision, precision_reason = _precision(recipe.compute.precision, device, machine)
    threads, threads_reason = _threads(recipe.compute.threads, device, machine)
    normalize, normalize_reason = _normalize(recipe)
    layout = recipe.compute.memory_format
    given = "given by the recipe"
    plan = Plan(
        experiment=recipe.experiment,
        seeds=recipe.seeds,
        dataset_root=root,
        weights=weights,
        image_size=recipe.data.image_size,
        device=device,
        precision=precision,
        memory_format=layout,
        threads=threads,
        epochs=recipe.train.epochs,
        batch_size=recipe.train.batch_size,
        normalize=normalize,
    )
    return plan.decided(
        experiment=(plan.experiment, "the recipe's file name" if plan.experiment == recipe.path.stem else given),
        seeds=(plan.seeds, f"{len(plan.seeds)} run{'s' if len(plan.seeds) > 1 else ''}"),
        dataset_root=(root, root_reason),
        weights=(weights, weights_reason),
        image_size=(plan.image_size, f"height x width in pixels; {recipe.data.resize}, {recipe.data.filter}"),
        device=(device, device_reason),
        precision=(precision, precision_reason),
        memory_format=(layout, "the faster one in a calibration" if layout == "auto" else given),
        threads=(threads, threads_reason),
        epochs=(plan.epochs, given),
        batch_size=(plan.batch_size, given),
        normalize=(normalize, normalize_reason),
        processes=(1, "torchrun starts several"),
    )


def complete(
    plan: Plan,
    recipe: Recipe,
    *,
    spec: DataSpec,
    counts: Mapping[str, Mapping[str, int]],
    statistics: Callable[[], Statistics],
    model_statistics: Statistics | None,
    frozen_backbone: bool,
    num_folds: int | None = None,
    steps_per_epoch: int,
) -> Plan:
    """Fill in what the data and the model decide. `statistics` computes (mean, std) of the training images."""
    samples = "pairs" if spec.task == "verification" else "images"
    images = ", ".join(f"{sum(classes.values()):,} {name}" for name, classes in counts.items())
    mean, std, reason = _mean_and_std(plan, recipe, spec.channels, statistics, model_statistics)
    choice = recipe.train.cache_features
    if choice == "on" and not plan.epochs:
        raise RecipeError(
            'train.cache_features = "on" needs epochs to train in', hint="--set train.cache_features=auto"
        )
    if choice == "on" and not frozen_backbone:
        raise RecipeError(
            'train.cache_features = "on" needs a wholly frozen backbone of a model with forward_features',
            hint='name its parts in model.freeze, for instance freeze = ["features"]',
        )
    cached = frozen_backbone and choice != "off"
    views = f"; {recipe.train.views} augmented views of each image" if recipe.augment else ""
    cached_reason = f"the backbone is frozen{views}" if cached else "the backbone is trained"
    return plan.decided(
        task=(spec.task, "of the dataset"),
        num_folds=(
            num_folds or 0,
            f"a run for each; {images} in the first" if num_folds else "the dataset has no folds",
        ),
        classes=(spec.classes, f"{spec.num_classes} classes; {images} {samples}"),
        channels=(spec.channels, "of the dataset" if recipe.data.channels == "auto" else "given by the recipe"),
        mean=(mean, reason),
        std=(std, reason),
        steps_per_epoch=(steps_per_epoch, f"training {samples} / batch size; {steps_per_epoch * plan.epochs:,} in all"),
        cache_features=(cached, "switched off by the recipe" if choice == "off" else cached_reason),
    )


def require_files(plan: Plan) -> None:
    """Raise RecipeError where a file that the plan names is missing; a plan alone may be made without it."""
    if plan.weights and not Path(plan.weights).is_file():
        raise RecipeError(
            f"model.weights: no file {plan.weights!r} ({plan.reasons['weights']})",
            hint="--set model.weights=/full/path",
        )


def _device(choice: str, machine: Machine) -> tuple[str, str]:
    if choice == "auto":
        return ("cuda", machine.gpu) if machine.gpu else ("cpu", f"no CUDA device; {machine.cpu}")
    if choice.startswith("cuda") and not machine.gpu:
        raise RecipeError(
            f"compute.device = {choice!r}, but torch sees no CUDA device", hint="--set compute.device=auto"
        )
    if not re.fullmatch(r"cpu|cuda(:\d+)?", choice):
        raise RecipeError(f"compute.device = {choice!r}: known are auto, cpu, cuda and cuda:N")
    return choice, "given by the recipe"


def _precision(choice: str, device: str, machine: Machine) -> tuple[str, str]:
    if choice != "auto":
        if choice == "fp16" and device == "cpu":
            raise RecipeError('compute.precision = "fp16" needs CUDA', hint="--set compute.precision=auto")
        return choice, "given by the recipe"
    if device == "cpu":
        flags = sorted(_BF16_FLAGS & set(machine.cpu_flags))
        if not flags:
            return "fp32", "the CPU has no bf16 instructions"
        return "auto", f"the CPU has {', '.join(flags)}: fp32 or bf16, the faster one in a calibration"
    return "auto", "fp32 or bf16, the faster one in a calibration"


def _threads(choice: int | str, device: str, machine: Machine) -> tuple[int | None, str]:
    if isinstance(choice, int):
        return choice, "given by the recipe"
    if device != "cpu":
        return machine.cores, "every core; the GPU does the work"
    if machine.cores == 1:
        return 1, "one core"
    return None, f"1 to {machine.cores} (cores), the fastest in a calibration"


def _normalize(recipe: Recipe) -> tuple[str, str]:
    choice = recipe.data.normalize
    if choice != "auto":
        return choice, "given by the recipe"
    if recipe.weights or recipe.model.options.get("pretrained"):
        return "weights", "pretrained weights expect the input that they were trained on"
    return "data", "no pretrained weights: mean and std of the training images"


def _mean_and_std(
    plan: Plan,
    recipe: Recipe,
    channels: int,
    statistics: Callable[[], Statistics],
    model_statistics: Statistics | None,
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    if plan.normalize == "none":
        return (0.0,) * channels, (1.0,) * channels, "no normalisation"
    if plan.normalize == "given":
        mean, std = recipe.data.mean or (), recipe.data.std or ()
        if len(mean) != channels:
            raise RecipeError(f"data.mean: {len(mean)} values for images of {channels} channels")
        return mean, std, "given by the recipe"
    if plan.normalize == "weights":
        if model_statistics is not None:
            mean, std = model_statistics
            if len(mean) != channels:  # weights for colour, grey images: the mean over the channels
                mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
            return mean, std, "what the weights expect"
        if recipe.data.normalize == "weights":
            raise RecipeError(
                f'data.normalize = "weights", but the model {recipe.model.name!r} does not say what its weights expect',
                hint='give mean and std, or normalize = "data"',
            )
        return *statistics(), "of the training images; the model does not say what its weights expect"
    return *statistics(), "of the training images"
