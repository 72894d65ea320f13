"""Build a model from its plugin, load weights into it, and freeze parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from bench.errors import BenchError, PluginError, RecipeError
from bench.registry import find, near_miss

if TYPE_CHECKING:
    from bench.kinds import DataSpec, Task
    from bench.recipe import Chosen
    from bench.stages.batches import Batches

__all__ = [
    "LoadedWeights",
    "build",
    "check_output",
    "fit_features",
    "forward_of",
    "freeze",
    "has_frozen_backbone",
    "input_statistics",
    "load_weights",
    "train_mode",
]

_SHOWN = 5

#: What heads are called in the files of other models.
_HEADS = ("classifier", "fc", "head", "heads")


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """What a weights file brought: tensors loaded, and the head's tensors that stay new or were left out."""

    loaded: int
    new: tuple[str, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        head = f"; new in the head: {', '.join(self.new)}" if self.new else ""
        rest = f"; of the file's head not used: {', '.join(self.left_out)}" if self.left_out else ""
        return f"{self.loaded} tensors loaded{head}{rest}"


def build(chosen: Chosen, spec: DataSpec) -> torch.nn.Module:
    """Call a model plugin. Raises PluginError where it returns no module."""
    plugin = find("models", chosen.name)
    try:
        model = plugin.load()(spec, **chosen.options)
    except BenchError:
        raise
    except Exception as cause:
        message = f"model plugin {chosen.name!r} of {plugin.distribution} failed: {type(cause).__name__}: {cause}"
        raise PluginError(message, hint=f"bench plugins models/{chosen.name} prints its options") from cause
    if not isinstance(model, torch.nn.Module):
        raise PluginError(f"model plugin {chosen.name!r} returned {type(model).__name__}, not a torch.nn.Module")
    _check_arguments(model, chosen.name, spec.task)
    return model


def _check_arguments(model: torch.nn.Module, name: str, task: Task) -> None:
    """A model of one image cannot compare two, and the other way round."""
    wanted = {"classification": 1, "verification": 2}
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    taken = [p for p in parameters if p.kind in positional]
    needed = sum(p.default is p.empty for p in taken)
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if needed > wanted[task] or (len(taken) < wanted[task] and not variadic):
        raise RecipeError(
            f"model.name: {name!r} takes {needed} batch{'es' if needed > 1 else ''} of images; "
            f"{task} needs a model of {wanted[task]}",
            hint="bench plugins lists the models",
        )


def check_output(model: torch.nn.Module, loss: str) -> None:
    """Raise RecipeError where a model of pairs says that it returns a distance and the loss takes a logit, or reversed."""
    output, wanted = getattr(model, "output", None), "distance" if loss == "contrastive" else "logit"
    if output in {"logit", "distance"} and output != wanted:
        raise RecipeError(
            f"train.loss: {loss!r} takes a {wanted}, but the model returns a {output}",
            hint=f"--set train.loss={'contrastive' if output == 'distance' else 'bce'}, or change the model's distance",
        )


def forward_of(
    module: torch.nn.Module, *, task: Task, features: bool = False
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A batch's inputs -> the model's outputs; with `features`, from the features of a frozen backbone on.

    For verification the inputs are 2n long, first images before second ones, and the outputs n.
    """
    call = cast("Callable[..., torch.Tensor]", module.forward_head if features else module)
    if task == "classification":
        return call

    def of_pairs(both: torch.Tensor) -> torch.Tensor:
        first, second = both.chunk(2)
        return call(first, second)

    return of_pairs


def fit_features(model: torch.nn.Module, batches: Batches) -> None:
    """Let a model that asks for it compute what it takes from the training images themselves (bench/kinds.py)."""
    fit = getattr(model, "fit_features", None)
    if not callable(fit):
        return
    images = batches.images
    samples = {"labels": torch.from_numpy(images.labels)}
    if images.rows.ndim > 1:
        samples["pairs"] = torch.from_numpy(np.searchsorted(images.distinct_rows(), images.rows))
    model.eval()  # no dropout, and batch normalisation as it will predict
    with torch.no_grad():
        fit(_Inputs(batches.distinct()), **{name: values.to(batches.device) for name, values in samples.items()})


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The inputs of batches, as often as they are asked for."""

    batches: Batches

    def __iter__(self) -> Iterator[torch.Tensor]:
        for images, _ in self.batches.ordered():
            yield images


def load_weights(model: torch.nn.Module, path: Path) -> LoadedWeights:
    """Load a .safetensors file by name and shape.

    The head, that is the uppermost part that holds the model's last parameter but not all of them, may be missing or
    of another shape: its tensors then stay new. Any other tensor that is missing, unexpected or of another shape is an error that lists
    them all.
    """
    own = model.state_dict()
    head = _head(model)
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
            fits = {name for name, shape in shapes.items() if name in own and tuple(own[name].shape) == shape}
            found = {name: file.get_tensor(name) for name in fits}
    except (SafetensorError, OSError) as cause:
        raise BenchError(f"{path}: not a readable .safetensors file: {cause}", hint="download it again") from cause
    new = [name for name in own if name not in fits and not name.endswith("num_batches_tracked")]
    left_out = [name for name in shapes if name not in fits]
    faults = [
        *_fault("missing", [n for n in new if n not in shapes and not _below(n, head)]),
        *_fault(
            "unexpected", [n for n in left_out if n not in own and not any(_below(n, part) for part in (head, *_HEADS))]
        ),
        *_fault(
            "of another shape",
            [
                f"{n} {shapes[n]}, the model has {tuple(own[n].shape)}"
                for n in new
                if n in shapes and not _below(n, head)
            ],
        ),
    ]
    if faults or not fits:
        raise BenchError(
            f"{path} holds the weights of another model:\n  " + "\n  ".join(faults or ["no tensor fits"]),
            hint="check model.name and its options against the file",
        )
    model.load_state_dict(found, strict=False)
    return LoadedWeights(len(found), tuple(new), tuple(left_out))


def freeze(model: torch.nn.Module, parts: Sequence[str]) -> None:
    """Stop training of the named parts. Their modules are also kept in evaluation mode by `train_mode`."""
    names = dict(model.named_modules())
    for part in parts:
        if part not in names or not part:
            candidates = [name for name in names if name and name.count(".") < 2]  # noqa: PLR2004
            miss = near_miss(part, candidates) or f"; parts: {', '.join(candidates[:20])}"
            raise RecipeError(f"model.freeze: the model has no part {part!r}{miss}")
        names[part].requires_grad_(requires_grad=False)
    if parts and not any(parameter.requires_grad for parameter in model.parameters()):
        raise RecipeError("model.freeze: nothing is left to train", hint="leave the head out")


def train_mode(model: torch.nn.Module) -> None:
    """Training mode, but evaluation mode for modules all of whose parameters are frozen.

    A frozen batch normalisation must not go on adapting its statistics.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def has_frozen_backbone(model: torch.nn.Module) -> bool:
    """Whether a model with `forward_features` trains nothing but its head, so that features can be computed once."""
    if not (callable(getattr(model, "forward_features", None)) and callable(getattr(model, "forward_head", None))):
        return False
    head = _head(model)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return len(trained) < len(list(model.parameters())) and all(_below(name, head) for name in trained)


def input_statistics(model: torch.nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std) that the model's weights expect, by timm's convention; None where the model does not say."""
    given: Any = getattr(model, "pretrained_cfg", None) or {}
    mean, std = given.get("mean"), given.get("std")
    return (tuple(map(float, mean)), tuple(map(float, std))) if mean and std else None


def _head(model: torch.nn.Module) -> str:
    """The uppermost part that holds the model's last parameter, but not all of them; "" where there is none."""
    names = list(dict(model.named_parameters()))
    if not names:
        return ""
    steps = names[-1].split(".")[:-1] or names[-1:]
    parts = [".".join(steps[:depth]) for depth in range(1, len(steps) + 1)]
    return next((part for part in parts if not all(_below(name, part) for name in names)), parts[-1])


def _fault(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{more}"]


def _below(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")
