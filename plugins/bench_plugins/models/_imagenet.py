"""ImageNet weights of torchvision's networks: the input they expect, how they are fetched and meet grey images."""

import contextlib
import sys
import urllib.request
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.errors import DataError, Unsupported

__all__ = ["expected_input", "grey_stem", "load_imagenet", "require_size"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SMALLEST = 32
CONNECT_TIMEOUT_S = 5


def expected_input(channels: int) -> dict[str, tuple[float, ...]]:
    """ImageNet's mean and standard deviation, one a channel; for grey images the average over red, green and blue."""
    if channels == len(MEAN):
        return {"mean": MEAN, "std": STD}
    return {"mean": (sum(MEAN) / len(MEAN),), "std": (sum(STD) / len(STD),)}


def require_size(model: str, image_size: tuple[int, int]) -> None:
    """Raise Unsupported for images that five halvings shrink to nothing."""
    if min(image_size) < SMALLEST:
        raise Unsupported(
            f"{model} halves its images five times; {image_size[0]} x {image_size[1]} pixels are too small",
            hint=f"--set data.size={SMALLEST} or more",
        )


def grey_stem(rgb: nn.Conv2d) -> nn.Conv2d:
    """A first convolution for one channel that loads the weights of the given one, made for three, too.

    Their sum over the channels answers to a grey image as the original does to three equal channels.
    """
    kernel, stride, padding = rgb.kernel_size, rgb.stride, rgb.padding
    grey = nn.Conv2d(1, rgb.out_channels, kernel, stride, padding, bias=rgb.bias is not None)  # type: ignore[arg-type]  # torch types kernel_size as tuple[int, ...]
    nn.init.kaiming_normal_(grey.weight, mode="fan_out", nonlinearity="relu")
    grey.register_load_state_dict_pre_hook(_sum_channels)  # type: ignore[no-untyped-call]  # torch left it untyped
    return grey


def load_imagenet(module: nn.Module, weights: Any, *, head: str) -> None:
    """Fill the module from a torchvision weights entry, all but the layers whose names start with `head`.

    Raises DataError where the file is neither in torch's cache nor can be downloaded.
    """
    backbone = {name: value for name, value in _fetch(weights).items() if not name.startswith(head)}
    missing = module.load_state_dict(backbone, strict=False)
    assert not missing.unexpected_keys  # noqa: S101 -- an invariant: the names are torchvision's own
    assert all(name.startswith(head) for name in missing.missing_keys)  # noqa: S101 -- the same


def _fetch(weights: Any) -> dict[str, torch.Tensor]:
    url: str = weights.url
    cached = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    try:
        if not cached.is_file():
            # torch would wait for minutes on a network that swallows packets.
            urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_S).close()  # noqa: S310 -- torchvision's https address
        with contextlib.redirect_stdout(sys.stderr):  # torch.hub announces the download on stdout
            state: dict[str, torch.Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as cause:
        message = f"pretrained weights {url} are not in {cached.parent} and cannot be downloaded: {cause}"
        hint = f'put the file at {cached}, or set weights = "file.safetensors" in [model] in place of pretrained = true'
        raise DataError(message, hint=hint) from cause
    return state


def _sum_channels(_module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    weight = state_dict.get(f"{prefix}weight")
    if weight is not None and weight.shape[1:2] == (3,):
        state_dict[f"{prefix}weight"] = weight.sum(dim=1, keepdim=True)
