"""Put together what a run needs: the settled plan, the model, its loss, its batches and its trainer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import RecipeError
from bench.plan import Plan, Statistics, complete
from bench.registry import find
from bench.stages import model as model_stage
from bench.stages.allocator import keep_freed_memory
from bench.stages.batches import Batches, Preprocessing, hold, hold_arrays, num_steps
from bench.stages.calibrate import MEMORY_FORMATS, calibrate
from bench.stages.copies import multiply
from bench.stages.data import Data, load
from bench.stages.dataset import open_dataset
from bench.stages.features import cache_features, feature_key
from bench.stages.image_set import ImageSet, channel_statistics
from bench.stages.initialise import initialise
from bench.stages.memory import explain
from bench.stages.optim import Loss, make_loss
from bench.stages.seeding import Generators, derive
from bench.stages.train import Trainer
from bench.tables import METRICS_OF

if TYPE_CHECKING:
    from bench.kinds import Augmentation, Task
    from bench.progress import Progress
    from bench.recipe import Recipe
    from bench.stages.distributed import Team

__all__ = ["augmentations", "build_model", "class_loss", "load_data", "make_batches", "make_trainer", "settle"]


def load_data(recipe: Recipe, plan: Plan, progress: Progress) -> Data:
    """Open, decode, split and fingerprint the recipe's dataset, and say what it is."""
    root = Path(plan.dataset_root)
    plugin = find("datasets", recipe.dataset.name).load()
    dataset = open_dataset(plugin, root, recipe.dataset.options)
    data = load(
        dataset,
        root,
        recipe.data,
        size=plan.image_size,
        report=lambda done, total: progress.advance("decoding images", done, total),
    )
    progress.note(data.describe())
    if data.skipped:
        progress.warn(f"{len(data.skipped)} bad images left out, the first: {data.skipped[0]}")
    if not data.resident:
        progress.note("the images do not fit into memory and are streamed from disk")
    return data


def settle(
    recipe: Recipe,
    plan: Plan,
    data: Data,
    progress: Progress,
    *,
    statistics: Callable[[], Statistics] | None = None,
) -> Plan:
    """Complete the plan with what data and model decide, then calibrate what is still open.

    `statistics` gives the mean and the standard deviation of the training images where they are known already.
    """
    if plan.device == "cpu":
        keep_freed_memory()
    check_task(recipe, data.spec.task)
    model = build_model(recipe, plan, data, report=progress.note)
    if data.spec.task == "verification":
        model_stage.check_output(model, recipe.train.loss)
    train = data.splits["train"]
    plan = complete(
        plan,
        recipe,
        spec=data.spec,
        counts=data.counts(),
        statistics=statistics or (lambda: channel_statistics(train)),
        model_statistics=model_stage.input_statistics(model),
        frozen_backbone=model_stage.has_frozen_backbone(model) and plan.epochs > 0,
        num_folds=data.num_folds,
        steps_per_epoch=num_steps(len(train) * recipe.data.copies, plan.batch_size),
    )
    if "auto" not in {plan.precision, plan.memory_format} and plan.threads is not None:
        return plan
    progress.note("timing a few steps to choose threads, memory format and precision")
    batches, loss = make_batches(plan, data, "train"), class_loss(recipe, plan, data)
    try:
        plan = calibrate(plan, model, batches, loss)
    except (RuntimeError, MemoryError) as error:
        raise explain(error, model, batches, loss, task=plan.task) from error
    threads = f"{plan.threads} thread{'s' if plan.threads != 1 else ''}"
    progress.note(f"chose {plan.precision}, {plan.memory_format}, {threads} on {plan.device}")
    return plan


def build_model(
    recipe: Recipe, plan: Plan, data: Data, *, report: Callable[[str], None] | None = None
) -> torch.nn.Module:
    """The model on its device, with its weights loaded and its parts frozen."""
    model = model_stage.build(recipe.model, data.spec)
    initialise(model, recipe.init)
    if plan.weights:
        loaded = model_stage.load_weights(model, Path(plan.weights))
        if report is not None:
            report(f"{Path(plan.weights).name}: {loaded}")
    model_stage.freeze(model, recipe.freeze)
    if plan.epochs and not any(parameter.requires_grad for parameter in model.parameters()):
        raise RecipeError(f"train.epochs: {recipe.model.name!r} has nothing to train", hint="--set train.epochs=0")
    return model.to(torch.device(plan.device))


def check_task(recipe: Recipe, task: Task) -> None:
    """Raise RecipeError where a loss or a monitor does not go with the dataset's task."""
    losses = ("bce", "contrastive") if task == "verification" else ("cross_entropy", "nll", "bce")
    if recipe.train.loss not in losses:
        raise RecipeError(
            f"train.loss: {recipe.train.loss!r} is not for {task}; {' and '.join(losses)} are",
            hint=f"--set train.loss={losses[0]}",
        )
    metric = recipe.train.monitor.removeprefix("val_")
    if metric != recipe.train.monitor and metric not in METRICS_OF[task]:
        raise RecipeError(
            f"train.monitor: {recipe.train.monitor!r} is not tracked for {task}; "
            f"tracked: {', '.join(f'val_{name}' for name in METRICS_OF[task])}",
            hint="--set train.monitor=val_accuracy",
        )


def class_loss(recipe: Recipe, plan: Plan, data: Data) -> Loss:
    """The recipe's loss, weighted by the training split's classes where the recipe says so."""
    return make_loss(recipe.train, list(data.counts()["train"].values()), torch.device(plan.device))


def augmentations(recipe: Recipe) -> tuple[Augmentation, ...]:
    """The recipe's augmentations, ready to be called."""
    return tuple(find("augmentations", chosen.name).load()(**chosen.options) for chosen in recipe.augment)


def make_batches(
    plan: Plan,
    data: Data,
    images: str | ImageSet,
    *,
    held: Mapping[int, torch.Tensor] | None = None,
    augment: Sequence[Augmentation] = (),
) -> Batches:
    """The batches of one split, given by its name or itself; `held` comes from `hold`."""
    images = data.splits[images] if isinstance(images, str) else images
    layout = MEMORY_FORMATS.get(plan.memory_format, torch.contiguous_format)
    return Batches(
        images=images,
        preprocessing=Preprocessing(plan.mean or (), plan.std or (), layout),
        num_classes=data.spec.num_classes,
        batch_size=plan.batch_size,
        device=torch.device(plan.device),
        held=(held or {}).get(id(images.images)),
        augment=augment,
    )


def make_trainer(
    recipe: Recipe,
    plan: Plan,
    data: Data,
    *,
    seed: int,
    folder: Path,
    progress: Progress,
    on_epoch: Callable[[int, dict[str, float]], None],
    team: Team | None = None,
) -> Trainer:
    """Everything that one seed trains with, in each process of a team; generators are seeded before the model is built."""
    device = torch.device(plan.device)
    if device.type == "cpu":
        keep_freed_memory()
    torch.set_num_threads(plan.threads or torch.get_num_threads())
    torch.use_deterministic_algorithms(recipe.compute.deterministic)
    generators = Generators.start(seed, device)
    model = build_model(recipe, plan, data)
    held = hold(data, device)
    start = time.perf_counter()
    model_stage.fit_features(model, make_batches(plan, data, "train", held=held))
    fit_seconds = time.perf_counter() - start
    sources: dict[str, Any] = {"train": _training_batches(recipe, plan, data, held, seed)}
    if "validation" in data.splits:
        sources["validation"] = make_batches(plan, data, "validation", held=held)
    if plan.cache_features:
        with nullcontext() if team is None else team.one_a_host_first():
            sources = {
                split: cache_features(
                    model,
                    batches,
                    views=recipe.train.views if batches.augment else 1,
                    seed=derive(seed, "views"),
                    key={"split": split, **feature_key(recipe, plan, data)},
                    precision=plan.precision,
                    report=lambda done, total: progress.advance("computing features", done, total),
                )
                for split, batches in sources.items()
            }
    if team is not None:
        from bench.stages.batch_norm import over_processes

        model = over_processes(model, device)
    return Trainer(
        model=model,
        recipe=recipe,
        plan=plan,
        loss=class_loss(recipe, plan, data),
        generators=generators,
        source=sources["train"],
        validation=sources.get("validation"),
        folder=folder,
        progress=progress,
        on_epoch=on_epoch,
        fit_seconds=fit_seconds,
        team=team,
    )


def _training_batches(recipe: Recipe, plan: Plan, data: Data, held: dict[int, torch.Tensor], seed: int) -> Batches:
    """Training images, augmented anew in every epoch; or with data.copies, once and for all."""
    augment, train = augmentations(recipe), data.splits["train"]
    if recipe.data.copies == 1:
        return make_batches(plan, data, train, held=held, augment=augment)
    train = multiply(train, augment, recipe.data.copies, seed=derive(seed, "copies"))
    return make_batches(plan, data, train, held=hold_arrays([train.images], torch.device(plan.device)))
