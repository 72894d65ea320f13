"""Out of memory: say which batch size would have fitted."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch

from bench.errors import BenchError
from bench.stages.model import forward_of

if TYPE_CHECKING:
    from bench.kinds import Task
    from bench.plan import Plan
    from bench.recipe import Recipe
    from bench.stages.batches import Batches
    from bench.stages.data import Data
    from bench.stages.optim import Loss

__all__ = ["explain", "explain_run", "fitting_batch_size", "is_out_of_memory"]

_CPU_MESSAGES = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that an allocation failed, on a GPU or in memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_MESSAGES)


def explain(
    error: Exception, model: torch.nn.Module, batches: Batches, loss: Loss, *, task: Task = "classification"
) -> Exception:
    """Out of memory becomes an error that names the batch size that fits; anything else stays as it is."""
    if not is_out_of_memory(error):
        return error
    size = fitting_batch_size(model, batches, loss, batches.batch_size, task=task)
    if size is None:
        return BenchError("out of memory, even with batches of 1", hint="use a smaller model or data.size")
    steps = math.ceil(batches.batch_size / size)
    return BenchError(
        f"out of memory with batches of {batches.batch_size}; {size} fits",
        hint=f"--set train.batch_size={size} --set train.accumulate={steps} keeps the gradient's size",
    )


def explain_run(error: Exception, recipe: Recipe, plan: Plan, data: Data) -> Exception:
    """The same for the run of a recipe."""
    from bench.stages.setup import build_model, class_loss, make_batches  # which needs this module itself

    if not is_out_of_memory(error):
        return error
    parts = (recipe, plan, data)
    return explain(error, build_model(*parts), make_batches(plan, data, "train"), class_loss(*parts), task=plan.task)


def fitting_batch_size(
    model: torch.nn.Module, batches: Batches, loss: Loss, batch_size: int, *, task: Task = "classification"
) -> int | None:
    """The largest halving of a batch size with which one training step fits; None where not even 1 does."""
    size = batch_size // 2
    while size >= 1:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            _one_step(model, batches, loss, size, task)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size //= 2
        else:
            return size
    return None


def _one_step(model: torch.nn.Module, batches: Batches, loss: Loss, size: int, task: Task) -> None:
    """A forward and backward pass and room for two moments of each weight."""
    trial = copy.deepcopy(model)
    trial.zero_grad(set_to_none=True)
    trial.eval()  # a batch of 1 has no variance; the memory is the same
    images, targets = next(batches.resized(size).ordered())
    value = loss(forward_of(trial, task=task)(images), targets).mean()
    if value.requires_grad:  # a model that is computed instead of trained has no gradient
        torch.autograd.backward(value)
    moments = [torch.empty_like(parameter) for parameter in trial.parameters() for _ in range(2)]
    del moments
