"""MobileNetV2 with torchvision's parameter names."""

import torch
from torch import nn
from torchvision import models

from bench.kinds import DataSpec
from bench_plugins.models._imagenet import expected_input, grey_stem, load_imagenet, require_size
from bench_plugins.models._layers import Rate, Width, head

__all__ = ["mobilenet_v2"]


class MobileNetV2(nn.Module):
    """torchvision's `features`, average pooling and a `classifier` of our own."""

    def __init__(self, channels: int, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = models.mobilenet_v2(weights=None).features
        if channels == 1:
            self.features[0][0] = grey_stem(self.features[0][0])
        self.classifier = classifier
        self.pretrained_cfg = expected_input(channels)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Images N,C,H,W -> pooled features N,1280."""
        return self.features(images).mean(dim=(2, 3))  # type: ignore[no-any-return]  # torchvision is untyped

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        """Pooled features N,1280 -> logits N,num_classes."""
        return self.classifier(features)  # type: ignore[no-any-return]  # torch types a module's call as Any

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images N,C,H,W -> logits N,num_classes."""
        return self.forward_head(self.forward_features(images))


def mobilenet_v2(
    spec: DataSpec,
    *,
    pretrained: bool = False,
    hidden: tuple[Width, ...] = (),
    dropout: Rate | tuple[Rate, ...] = 0.2,
) -> nn.Module:
    """MobileNetV2, 2.2 million parameters, for 32 pixels and more.

    Images N,C,H,W -> logits N,num_classes; any size, the features are 1/32 of it. `hidden` are fully connected layers
    with ReLU between the 1280 pooled features and the classifier; `dropout` acts in front of each of them and of the
    classifier. `pretrained` fetches torchvision's ImageNet weights (IMAGENET1K_V2); on grey images their first layer
    is summed over the colours. Names in the state dict are torchvision's: `features.*`, `classifier.*`.

    Raises DataError where the weights cannot be fetched, Unsupported for smaller images. Source: Sandler et al. 2018, arXiv:1801.04381.
    """
    require_size("mobilenet_v2", spec.image_size)
    network = MobileNetV2(spec.channels, head(1280, spec.num_classes, hidden=hidden, dropout=dropout))
    if pretrained:
        load_imagenet(network, models.MobileNet_V2_Weights.IMAGENET1K_V2, head="classifier.")
    return network
