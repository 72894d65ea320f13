"""A model's layers as one forward pass shows them: output shapes, parameters and multiply-accumulates (MACs)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.errors import PluginError

if TYPE_CHECKING:
    from bench.kinds import DataSpec

__all__ = ["Layer", "ModelTable", "examine"]

_BATCH = 2
_BYTES = 4  # of a fp32 value
_FLOPS_PER_MAC = 2


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: a module that computes, or that holds parameters of its own.

    `output` is the shape without the batch, None where the forward pass never calls the module; `parameters`, `frozen`
    and `buffers` count values that no earlier layer holds; `macs` are those of one image (a pair, for verification)
    over all `calls`; `activations` are the values of newly allocated outputs.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    frozen: int
    buffers: int
    macs: int
    activations: int
    calls: int


@dataclass(frozen=True, slots=True)
class ModelTable:
    """All layers in the order of the module tree. Sizes are of one image (or pair), values in fp32."""

    kind: str
    unit: str
    inputs: tuple[tuple[int, ...], ...]
    layers: tuple[Layer, ...]

    def totals(self) -> dict[str, int | float]:
        """Counts, and sizes in MB (10**6 bytes)."""
        parameters = sum(layer.parameters for layer in self.layers)
        frozen = sum(layer.frozen for layer in self.layers)
        buffers = sum(layer.buffers for layer in self.layers)
        sizes = {
            "input_mb": sum(torch.Size(shape).numel() for shape in self.inputs) * _BYTES / 1e6,
            "activations_mb": sum(layer.activations for layer in self.layers) * _BYTES / 1e6,
            "parameters_mb": (parameters + buffers) * _BYTES / 1e6,
        }
        return {
            "parameters": parameters,
            "trained": parameters - frozen,
            "frozen": frozen,
            "buffers": buffers,
            "macs": sum(layer.macs for layer in self.layers),
            **sizes,
            "total_mb": sum(sizes.values()),
        }


def examine(model: torch.nn.Module, spec: DataSpec) -> ModelTable:
    """Run one batch of two random images (or pairs) through the model, without gradients and in evaluation mode.

    MACs are exact for what torch counts, half the FLOPs of convolutions, matrix products and attention; a module gets
    those that none of its children has. Weights that several modules share count once. Raises PluginError where the
    model cannot take such images.
    """
    generator = torch.Generator().manual_seed(0)
    sides = 2 if spec.task == "verification" else 1
    shape = (spec.channels, *spec.image_size)
    images = [torch.rand(_BATCH, *shape, generator=generator) for _ in range(sides)]
    calls = _Calls(model, sides=sides)
    try:
        with torch.no_grad(), _evaluation(model), calls.watched():
            model(*images)
    except Exception as cause:
        given = " and ".join(["x".join(map(str, (_BATCH, *shape)))] * sides)
        raise PluginError(
            f"{type(model).__name__} fails on images of {given}: {type(cause).__name__}: {cause}",
            hint="is data.size large enough for this model?",
        ) from cause
    unit = "pair" if sides == 2 else "image"  # noqa: PLR2004  # two sides are a pair
    return ModelTable(type(model).__name__, unit, (shape,) * sides, tuple(_layers(model, calls)))


class _Calls:
    """What each module did in a forward pass: its own FLOPs, last output, allocated values and number of calls."""

    def __init__(self, model: torch.nn.Module, *, sides: int) -> None:
        self.model = model
        self.sides = sides
        self.flops: dict[torch.nn.Module, int] = {}
        self.outputs: dict[torch.nn.Module, torch.Tensor] = {}
        self.allocated: dict[torch.nn.Module, int] = {}
        self.counts: dict[torch.nn.Module, int] = {}
        self._stack: list[list[int]] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Hooks on every module while the context lasts; fused attention, whose FLOPs are not counted, is off."""
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # torch's signature
        handles = []
        try:
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as self._counter:
                for module in self.model.modules():
                    handles.append(module.register_forward_pre_hook(self._enter))
                    handles.append(module.register_forward_hook(self._leave))
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
            for handle in handles:
                handle.remove()

    def _enter(self, module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        del module, given
        self._stack.append([self._counter.get_total_flops(), 0])  # at the start, and in the modules below

    def _leave(self, module: torch.nn.Module, given: tuple[Any, ...], output: Any) -> None:
        before, below = self._stack.pop()
        inside = self._counter.get_total_flops() - before
        if self._stack:
            self._stack[-1][1] += inside
        self.flops[module] = self.flops.get(module, 0) + inside - below
        tensor = _first_tensor(output)
        if tensor is None:
            return
        self.outputs[module] = tensor
        held = {_storage(part) for part in given if isinstance(part, torch.Tensor)}
        fresh = 0 if _storage(tensor) in held else tensor.numel()  # a view, or done in place
        self.allocated[module] = self.allocated.get(module, 0) + fresh
        passes = self.sides if len(tensor) == self.sides * _BATCH else 1  # both sides of the pairs in one batch
        self.counts[module] = self.counts.get(module, 0) + passes


def _layers(model: torch.nn.Module, calls: _Calls) -> Iterator[Layer]:
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = _new(dict(module.named_parameters(recurse=False)), seen)
        buffers = _new(dict(module.named_buffers(recurse=False)), seen)
        leaf = not any(True for _ in module.children())
        flops = calls.flops.get(module, 0)
        empty = isinstance(module, torch.nn.Identity)
        if empty or not (leaf or own or buffers or flops):
            continue
        output = calls.outputs.get(module)
        yield Layer(
            name=name or "(model)",
            kind=type(module).__name__,
            output=None if output is None else tuple(output.shape[1:]),
            parameters=sum(value.numel() for value in own),
            frozen=sum(value.numel() for value in own if not value.requires_grad),
            buffers=sum(value.numel() for value in buffers),
            macs=round(flops / (_FLOPS_PER_MAC * _BATCH)),
            activations=round(calls.allocated.get(module, 0) / _BATCH),
            calls=calls.counts.get(module, 0),
        )


def _new(values: Mapping[str, torch.Tensor], seen: set[int]) -> list[torch.Tensor]:
    """The tensors that no earlier layer holds."""
    fresh = [value for value in values.values() if id(value) not in seen]
    seen.update(id(value) for value in fresh)
    return fresh


@contextmanager
def _evaluation(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, and each module's own mode again afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _first_tensor(output: Any) -> torch.Tensor | None:
    """The tensor among a module's outputs that a table can show."""
    if isinstance(output, torch.Tensor):
        return output if output.ndim else None
    values: Any = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return next((found for value in values if (found := _first_tensor(value)) is not None), None)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
