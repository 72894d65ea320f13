"""Batch normalisation over the whole batch where each process has a part of it.

On GPUs it is torch's SyncBatchNorm, which does not run on CPUs; there it is the same with one collective each way.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

__all__ = ["WholeBatchNorm", "over_processes"]

_Norm = nn.modules.batchnorm._BatchNorm  # noqa: SLF001  # the class that torch's own conversion looks for
_PLAIN = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d}

#: Timm's normalisations have these parts, and apply them at their end in this order.
_ENDS = ("drop", "act")


def over_processes(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with every batch normalisation taken over all processes. Parameters and names stay as they are.

    Of classes that were derived from torch's, only those that end with a dropout and an activation (timm's) are known;
    others keep to their own process.
    """
    for name, module in list(model.named_children()):
        setattr(model, name, over_processes(module, device))
    if type(model) in _PLAIN and device.type == "cuda":
        plain: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch's own
        return plain
    if isinstance(model, _Norm) and (type(model) in _PLAIN or {*_ENDS} <= dict(model.named_children()).keys()):
        return WholeBatchNorm.of(model)
    return model


class WholeBatchNorm(_Norm):
    """Batch normalisation, in training over the batches of all processes, in evaluation as ever."""

    @classmethod
    def of(cls, norm: nn.modules.batchnorm._BatchNorm) -> WholeBatchNorm:
        """One that has the parameters, buffers and parts of another."""
        made = cls(norm.num_features, norm.eps, norm.momentum, affine=False, track_running_stats=False)
        made.affine, made.track_running_stats = norm.affine, norm.track_running_stats
        for name, parameter in norm.named_parameters(recurse=False):
            made.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            made.register_buffer(name, buffer)
        for name, part in norm.named_children():
            made.add_module(name, part)
        made.training = norm.training
        return made

    def _check_input_dim(self, input: torch.Tensor) -> None:  # noqa: A002  # torch's name
        """Any number of dimensions from 2 on, as the class that it stands for has checked."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's own
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name
        """N,C,... -> the same shape."""
        if self.training:
            output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps)
            if self.track_running_stats and self.running_mean is not None:
                self._follow(mean, variance * (count / (count - 1).clamp_min(1)))
        else:
            output = super().forward(input)
        for name in _ENDS:
            output = self._modules[name](output) if name in self._modules else output  # type: ignore[misc]  # a module
        return output  # type: ignore[no-any-return]  # torch types apply as Any

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None  # noqa: S101, PT018
        assert self.num_batches_tracked is not None  # noqa: S101  # they come together
        self.num_batches_tracked.add_(1)
        share = 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - share).add_(mean, alpha=share)
        self.running_var.mul_(1 - share).add_(variance, alpha=share)


class _Normalise(torch.autograd.Function):
    """Normalise by the mean and the variance of all processes' batches; also returns them and the count.

    The statistics are merged by Chan et al.'s formula, so that large means cost no precision.
    """

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: Any, bias: Any, eps: float) -> tuple[torch.Tensor, ...]:
        count, mean, squares = _statistics(inputs)
        variance = squares / count
        normal = functional.batch_norm(inputs, mean, variance, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(inputs, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return normal, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight, mean, variance, count = ctx.saved_tensors
        gradient, shape = gradients[0], (1, -1, *[1] * (inputs.ndim - 2))
        axes = _axes(inputs)
        spread = (variance + ctx.eps).rsqrt()
        gradient = gradient.to(mean.dtype)
        normal = (inputs.to(mean.dtype) - mean.view(shape)) * spread.view(shape)
        own_bias = gradient.sum(axes)
        own_weight = (gradient * normal).sum(axes)
        whole = torch.stack([own_bias, own_weight])
        dist.all_reduce(whole)
        by_bias, by_weight = whole / count
        scale = spread if weight is None else spread * weight
        correction = torch.addcmul(by_bias.view(shape), normal, by_weight.view(shape))
        to_input = (gradient - correction).mul_(scale.view(shape)).to(inputs.dtype)
        return to_input, None if weight is None else own_weight, None if weight is None else own_bias, None


def _axes(inputs: torch.Tensor) -> list[int]:
    return [axis for axis in range(inputs.ndim) if axis != 1]


def _statistics(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Count, mean and sum of squared differences (C each) over all processes."""
    channels, size = inputs.shape[1], dist.get_world_size()
    exact = torch.promote_types(inputs.dtype, torch.float32)
    everyone = torch.zeros(size, 3, channels, dtype=exact, device=inputs.device)
    own = everyone[dist.get_rank()]
    if inputs.numel():
        variance, mean = torch.var_mean(inputs.to(exact), _axes(inputs), correction=0)
        number = inputs.numel() // channels
        own[0], own[1], own[2] = number, mean, variance * number
    dist.all_reduce(everyone)
    counts, means, squares = everyone.unbind(1)
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count
    return count, mean, (squares + counts * (means - mean).square()).sum(0)
