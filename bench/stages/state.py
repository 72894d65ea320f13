"""Everything that training changes, as tensors and plain values for a checkpoint, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from bench.stages import checkpoint

if TYPE_CHECKING:
    from bench.stages.ema import Average
    from bench.stages.optim import Schedule
    from bench.stages.seeding import Generators

__all__ = ["Counters", "Outcome", "Parts", "capture", "restore"]


@dataclass(slots=True)
class Counters:
    """How far training has come. `best` ranks the best epoch: the monitor, larger is better, then the lower loss."""

    epoch: int = 0
    best: tuple[float, float] = (-math.inf, -math.inf)
    best_epoch: int = 0
    seconds: float = 0.0
    images: int = 0

    @classmethod
    def of(cls, state: dict[str, Any]) -> Counters:
        """The counters among a checkpoint's values."""
        values = {field.name: state[field.name] for field in fields(cls)}
        return cls(**{**values, "best": tuple(values["best"])})


@dataclass(frozen=True, slots=True)
class Outcome:
    """How training ended. `seconds` and `images_per_second` count training steps only."""

    epochs: int
    best_epoch: int
    stopped_early: bool
    seconds: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class Parts:
    """The things whose state makes a resumed run end like one that was never stopped."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    generators: Generators
    average: Average | None


def capture(parts: Parts) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors by name and JSON values."""
    optimizer = parts.optimizer.state_dict()
    tensors = {
        **checkpoint.flatten("model", parts.model.state_dict()),
        **checkpoint.flatten("optimizer", {str(k): v for k, v in optimizer["state"].items()}),
        **checkpoint.flatten("rng", parts.generators.state()),
        **(checkpoint.flatten("average", parts.average.module.state_dict()) if parts.average else {}),
    }
    state = {
        "param_groups": optimizer["param_groups"],
        "schedule": parts.schedule.state_dict(),
        "scaler": parts.scaler.state_dict(),
        "average_steps": parts.average.steps if parts.average else 0,
    }
    return tensors, state


def restore(parts: Parts, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Put everything back where `capture` took it."""
    parts.model.load_state_dict(checkpoint.unflatten("model", tensors))
    moments = checkpoint.unflatten("optimizer", tensors, depth=2)
    parts.optimizer.load_state_dict(
        {"state": {int(key): value for key, value in moments.items()}, "param_groups": state["param_groups"]}
    )
    for parameter, moment in parts.optimizer.state.items():  # in the weights' memory layout, where it is faster
        for name, value in moment.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                moment[name] = torch.empty_like(parameter).copy_(value)
    if parts.average:
        parts.average.module.load_state_dict(checkpoint.unflatten("average", tensors))
        parts.average.steps = state["average_steps"]
    parts.schedule.load_state_dict(state["schedule"])
    parts.scaler.load_state_dict(state["scaler"])
    parts.generators.restore(checkpoint.unflatten("rng", tensors))
