"""Choose precision, memory layout and threads by timing a few real training steps."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from bench.stages.model import forward_of

if TYPE_CHECKING:
    from bench.kinds import Task
    from bench.plan import Plan
    from bench.stages.batches import Batches
    from bench.stages.optim import Loss

__all__ = ["MEMORY_FORMATS", "PRECISIONS", "autocast", "calibrate"]

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

#: Each candidate gets one untimed step, then up to 3 timed ones within half a second, on at most 32 images.
_STEPS = 3
_ENOUGH_S = 0.5
_IMAGES = 32

#: A candidate that changes the numbers must be this much faster than fp32; one that costs a core, than fewer threads.
_WORTH = 1.05


def calibrate(plan: Plan, model: torch.nn.Module, batches: Batches, loss: Loss) -> Plan:
    """The plan with every "auto" settled. Steps are taken on a copy of the model; the fastest median wins."""
    device = torch.device(plan.device)
    images, targets = next(batches.resized(min(_IMAGES, batches.batch_size)).ordered())

    def seconds(precision: str, memory_format: str) -> float:
        return _time_steps(model, plan.task, loss, images, targets, precision, memory_format)

    precisions = ["fp32", "bf16"] if plan.precision == "auto" else [plan.precision]
    formats = list(MEMORY_FORMATS) if plan.memory_format == "auto" else [plan.memory_format]
    if plan.threads is None:
        plan = _choose_threads(plan, seconds, precisions[0], formats[0])
    torch.set_num_threads(plan.threads or 1)
    if len(precisions) * len(formats) == 1:
        return plan
    times = {pair: seconds(*pair) for pair in itertools.product(precisions, formats)}
    rates = ", ".join(f"{p} {f} {len(images) / s:.0f}" for (p, f), s in times.items())
    best_plain = min((pair for pair in times if pair[0] == precisions[0]), key=times.__getitem__)
    best = min(times, key=times.__getitem__)
    chosen = best if times[best] * _WORTH < times[best_plain] else best_plain
    reason = f"fastest of a few steps on {device.type} (img/s: {rates})"
    choices: dict[str, Any] = {}
    if plan.precision == "auto":
        choices["precision"] = (chosen[0], reason)
    if plan.memory_format == "auto":
        choices["memory_format"] = (chosen[1], reason)
    return plan.decided(**choices)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A precision as a context."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def _choose_threads(plan: Plan, seconds: Callable[[str, str], float], precision: str, memory_format: str) -> Plan:
    """Fewer threads are often faster where other processes use the cores too."""
    cores = torch.get_num_threads()
    candidates = sorted({1, max(1, cores // 2), cores})
    times = {}
    for threads in candidates:
        torch.set_num_threads(threads)
        times[threads] = seconds(precision, memory_format)
    best = min(candidates, key=lambda threads: times[threads] * _WORTH ** candidates.index(threads))
    shown = ", ".join(f"{threads}: {value * 1000:.0f} ms" for threads, value in times.items())
    return plan.decided(threads=(best, f"fastest of a few steps ({shown})"))


def _time_steps(
    model: torch.nn.Module,
    task: Task,
    loss: Loss,
    images: torch.Tensor,
    targets: torch.Tensor,
    precision: str,
    memory_format: str,
) -> float:
    """Median seconds of a forward and backward pass, warm-up excluded."""
    trial = copy.deepcopy(model).to(images.device).to(memory_format=MEMORY_FORMATS[memory_format])
    trial.train()
    forward = forward_of(trial, task=task)
    images = images.contiguous(memory_format=MEMORY_FORMATS[memory_format])
    durations: list[float] = []
    for step in range(_STEPS + 1):
        _synchronize(images.device)
        start = time.perf_counter()
        with autocast(images.device, precision):
            outputs = forward(images)
        value = loss(outputs, targets).mean()
        if value.requires_grad:  # a model that is computed instead of trained has no gradient
            torch.autograd.backward(value)
        trial.zero_grad(set_to_none=True)
        _synchronize(images.device)
        durations.append(time.perf_counter() - start)
        if step and sum(durations[1:]) > _ENOUGH_S:
            break
    return sorted(durations[1:])[len(durations[1:]) // 2]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
