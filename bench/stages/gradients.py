"""A model whose gradients are averaged over processes, by torch's DistributedDataParallel."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.nn.parallel import DistributedDataParallel

from bench.errors import BenchError, RecipeError
from bench.stages.model import train_mode
from bench.stages.shards import Shard

if TYPE_CHECKING:
    from bench.stages.batches import Source
    from bench.stages.distributed import Team

__all__ = ["Shared", "share"]

Forward: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

#: What torch says where a step used other parameters than the first one did.
_CHANGED = "Expected to have finished reduction"


@dataclass(frozen=True, slots=True)
class Shared:
    """The forward pass of one process of a team; calling it takes that process's shard of a batch."""

    team: Team
    module: DistributedDataParallel
    num_samples: int
    of_a_step: int

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs -> the model's outputs."""
        try:
            outputs: torch.Tensor = self.module(inputs)
        except RuntimeError as cause:
            if _CHANGED not in str(cause):
                raise
            raise BenchError(
                "the model uses other parameters from one step to the next, which several processes cannot",
                hint="train it with one process: bench run",
            ) from cause
        return outputs

    def no_sync(self) -> AbstractContextManager[None]:
        """While entered, gradients stay with their process and add up."""
        context: AbstractContextManager[None] = self.module.no_sync()
        return context

    def batch_size(self, step: int) -> int:
        """How many samples the whole batch of a step (from 1 on) has."""
        return min(self.of_a_step, self.num_samples - (step - 1) * self.of_a_step)


def share(
    team: Team,
    model: torch.nn.Module,
    source: Source,
    forward_of: Callable[[torch.nn.Module], Forward],
    autocast: Callable[[], torch.autocast],
) -> Shared:
    """Spread the first process's weights, and average gradients from now on.

    Parameters that get no gradient are found by a trial step. Raises RecipeError where the epoch's last batch has fewer
    samples than there are processes and the model takes no empty ones.
    """
    batch_size, samples = source.batch_size, len(source.images)
    inputs, _ = Shard(team.size - 1, team.size).cut(*next(source.ordered()))
    with torch.random.fork_rng(devices=[inputs.device] if inputs.device.type == "cuda" else []):
        trial = copy.deepcopy(model)
        train_mode(trial)
        with autocast():
            outputs = forward_of(trial)(inputs)
        torch.autograd.backward(outputs.float().sum())
    idle = [name for name, one in trial.named_parameters() if one.requires_grad and one.grad is None]
    last = samples - (len(source) - 1) * batch_size
    if min(last, batch_size) < team.size:
        _check_empty(forward_of(trial.eval()), inputs[:0], last=last, size=team.size)
    # With one input channel two memory layouts are the same, and torch cannot tell which one was meant.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    module = DistributedDataParallel(
        _Call(model, forward_of(model)),
        find_unused_parameters=team.any(bool(idle)),
        gradient_as_bucket_view=True,
    )
    module.broadcast_buffers = False  # `Team.share_buffers` does it where they are read; torch renames the argument
    return Shared(team, module, samples, batch_size)


class _Call(torch.nn.Module):
    """A way of calling a model, as a module that holds its parameters."""

    def __init__(self, model: torch.nn.Module, forward: Forward) -> None:
        super().__init__()
        self.model = model
        self._calls = (forward,)  # in a tuple, so that a module is not registered twice

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """As the model would be called."""
        return self._calls[0](inputs)


@torch.no_grad()
def _check_empty(forward: Forward, nothing: torch.Tensor, *, last: int, size: int) -> None:
    try:
        forward(nothing)
    except Exception as cause:
        raise RecipeError(
            f"train.batch_size: the last batch of an epoch has {last} images for {size} processes, "
            f"and the model takes no empty batch ({type(cause).__name__}: {cause})",
            hint="another train.batch_size leaves another last batch",
        ) from cause
