"""Any model of the timm library, by its name there."""

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import nn

from bench.errors import DataError, Unsupported
from bench.kinds import DataSpec
from bench.registry import near_miss
from bench_plugins.models._layers import Rate

__all__ = ["timm_model"]

CONNECT_TIMEOUT_S = 5


def timm_model(
    spec: DataSpec,
    *,
    model: str,
    pretrained: bool = False,
    drop_rate: Rate | None = None,
    drop_path_rate: Rate | None = None,
) -> nn.Module:
    """Any model of timm by its name, such as "convnext_atto".

    Images N,C,H,W -> logits N,num_classes. The model is built for the channels, classes and, where its architecture
    takes it, the image size of the data. `drop_rate` (dropout in front of the classifier) and `drop_path_rate`
    (stochastic depth) are timm's own defaults unless set. `pretrained` fetches the weights that timm lists for the
    name; "resnet18.a1_in1k" names a particular set.

    Raises Unsupported for a name that timm does not have, a model that takes no drop_path_rate, or one that cannot
    take images of this size; DataError where the weights cannot be fetched. Source: github.com/huggingface/pytorch-image-models
    """
    _check_name(model)
    options = {
        "num_classes": spec.num_classes,
        "in_chans": spec.channels,
        "drop_rate": drop_rate,
        "drop_path_rate": drop_path_rate,
    }
    if pretrained:
        options |= {"pretrained": True, **_weights_source(model)}
    network = _create(model, spec, options)
    _check_size(model, network, spec)
    return network


def _check_name(model: str) -> None:
    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        message = f"timm {timm.__version__} has no model {model!r}{near_miss(architecture, timm.list_models())}"
        raise Unsupported(message, hint="python -c 'import timm; print(*timm.list_models())' lists them")
    known = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and model not in known:
        message = f"timm {timm.__version__} has no weights {tag!r} for {architecture}{near_miss(model, known)}"
        raise Unsupported(message, hint=f"it has {', '.join(known) or 'none'}")


def _create(model: str, spec: DataSpec, options: dict[str, Any]) -> nn.Module:
    """Build with the image size where the architecture takes one. timm says so only by refusing the keyword."""
    try:
        try:
            return timm.create_model(model, img_size=spec.image_size, **options)
        except TypeError as cause:
            if "'img_size'" not in str(cause):
                raise
            return timm.create_model(model, **options)
    except OSError as cause:
        raise _unreachable(model, str(cause)) from cause
    except (TypeError, ValueError, AssertionError, RuntimeError) as cause:
        raise Unsupported(f"timm model {model!r} cannot be built: {cause}") from cause


def _check_size(model: str, network: nn.Module, spec: DataSpec) -> None:
    """Some architectures fail on small images only once they see one."""
    height, width = spec.image_size
    network.eval()
    try:
        with torch.inference_mode():
            network(torch.zeros(1, spec.channels, height, width))
    except (ValueError, AssertionError, RuntimeError) as cause:
        message = f"timm model {model!r} takes no images of {height} x {width} pixels: {cause}"
        raise Unsupported(message, hint="set a larger image size or choose another model") from cause
    network.train()


def _weights_source(model: str) -> dict[str, Any]:
    """Where timm finds the weights: a file in the cache, used as it is, or the network, which must answer at once.

    Left alone, timm's downloader asks the network even for a cached file and retries for 50 seconds.
    """
    config = timm.get_pretrained_cfg(model)
    hub = config.hf_hub_id if config else None
    url = config.url if config and isinstance(config.url, str) else ""
    if config is None or not (hub or url):
        message = f"timm {timm.__version__} has no pretrained weights for {model!r}"
        raise Unsupported(message, hint="set pretrained = false, or weights of your own in [model]")
    cached = _cached(hub, url)
    if cached is not None:
        return {} if config.custom_load else {"pretrained_cfg_overlay": {"file": str(cached)}}
    address = f"{constants.ENDPOINT}/{hub}" if hub else url
    try:
        urllib.request.urlopen(address, timeout=CONNECT_TIMEOUT_S).close()  # noqa: S310 -- timm's own addresses
    except urllib.error.HTTPError:
        return {}  # something answered; timm reports what is wrong
    except OSError as cause:
        raise _unreachable(model, f"{address}: {cause}") from cause
    return {}


def _cached(hub: str | None, url: str) -> Path | None:
    """The file that an earlier download left, from the hub's repository or else from the address."""
    candidates = [Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])]
    if hub:
        found = [try_to_load_from_cache(hub, name) for name in ("model.safetensors", "pytorch_model.bin")]
        candidates = [Path(file) for file in found if isinstance(file, str)]
    return next((file for file in candidates if file.is_file()), None)


def _unreachable(model: str, cause: str) -> DataError:
    hint = 'set weights = "file.safetensors" in [model] in place of pretrained = true'
    return DataError(f"the pretrained weights of timm model {model!r} cannot be downloaded: {cause}", hint=hint)


timm_model.example = lambda _folder: {"model": "test_resnet"}  # type: ignore[attr-defined]  # for the conformance checks
