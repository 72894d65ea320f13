"""One training step: forward, backward, and at every so many of them an update of the weights; and their tally."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.recipe import Recipe
    from bench.stages.distributed import Team
    from bench.stages.ema import Average
    from bench.stages.gradients import Shared
    from bench.stages.optim import Loss, Schedule

__all__ = ["Step", "Tally"]

Forward: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


@dataclass(slots=True)
class Step:
    """Takes the steps of an epoch, which are `steps` many.

    The loss of a step is the mean over its batch. Where that is shared with other processes, each returns its share of
    the loss; their sum is the loss.
    """

    model: torch.nn.Module
    forward: Forward
    recipe: Recipe
    loss: Loss
    steps: int
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    average: Average | None
    autocast: Callable[[], torch.autocast]
    shared: Shared | None = None

    def take(self, step: int, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs and loss. The weights move at every `accumulate`-th step and at the last."""
        every = self.recipe.train.accumulate
        group = min(every, self.steps - (step - 1) // every * every)  # the last group may be smaller
        moves = step % every == 0 or step == self.steps
        shared = self.shared
        with nullcontext() if shared is None or moves else shared.no_sync():
            with self.autocast():
                outputs = self.forward(inputs)
            losses = self.loss(outputs, targets)
            loss = losses.mean() if shared is None else losses.sum() / shared.batch_size(step)
            # The mean is taken of the processes' gradients, and these shares of the loss are to be summed.
            whole = loss if shared is None else loss * shared.team.size
            torch.autograd.backward(self.scaler.scale(whole / group))
        if moves:
            self._move()
        return outputs.detach(), loss.detach()

    def _move(self) -> None:
        if self.recipe.train.clip_norm:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.train.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        if self.average:
            self.average.update(self.model)


@dataclass(slots=True)
class Tally:
    """An epoch's losses, and how many of how many images were guessed right; over all processes of a team."""

    epoch: int
    device: torch.device
    team: Team | None = None
    losses: list[torch.Tensor] = field(default_factory=list)
    images: int = 0
    _correct: torch.Tensor = field(init=False)
    _summed: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)

    def add(self, loss: torch.Tensor, guessed: torch.Tensor, targets: torch.Tensor) -> None:
        """One more step."""
        self.losses.append(loss)
        self._correct += (guessed == targets.argmax(1)).sum()
        self.images += len(targets)

    def check(self, since: int = 0) -> float:
        """The latest loss. Raises BenchError at the first one that is no number; the last checkpoint stays."""
        if self.team is not None and self._summed < len(self.losses):
            self.losses[self._summed :] = self.team.total(torch.stack(self.losses[self._summed :])).unbind()
            self._summed = len(self.losses)
        bad = (~torch.isfinite(torch.stack(self.losses[since:]))).nonzero()
        if not len(bad):
            return self.losses[-1].item()
        step, epoch = since + int(bad[0].item()) + 1, self.epoch
        kept = f"the checkpoint of epoch {epoch - 1} is kept" if epoch > 1 else "there is no checkpoint yet"
        raise BenchError(
            f"the loss is {self.losses[step - 1].item()} at step {step} of epoch {epoch}; {kept}",
            hint='lower optimizer.lr, set train.clip_norm = 1.0, or use compute.precision = "fp32"',
        )

    def values(self) -> dict[str, float]:
        """Loss and accuracy of the whole epoch."""
        self.check()
        counts = torch.stack([self._correct, torch.full_like(self._correct, self.images)])
        if self.team is not None:
            counts = self.team.total(counts)
        correct, self.images = counts.tolist()
        loss = torch.stack(self.losses).double().mean().item()
        return {"train_loss": loss, "train_accuracy": correct / self.images}
