"""ResNet-18 with torchvision's parameter names."""

import torch
from torch import nn
from torchvision import models

from bench.kinds import DataSpec
from bench_plugins.models._imagenet import expected_input, grey_stem, load_imagenet, require_size
from bench_plugins.models._layers import Rate, Width, head

__all__ = ["resnet18"]


class ResNet18(nn.Module):
    """torchvision's layers under their own names, dropout and an `fc` of our own."""

    def __init__(self, channels: int, classifier: nn.Sequential) -> None:
        super().__init__()
        for name, layer in models.resnet18(weights=None).named_children():
            if name != "fc":
                self.add_module(name, grey_stem(layer) if name == "conv1" and channels == 1 else layer)
        self.dropout = classifier[0]
        # Without hidden layers `fc` is the linear layer itself, as in torchvision.
        self.fc = classifier[1] if len(classifier) == 2 else classifier[1:]  # noqa: PLR2004 -- dropout and linear
        self.pretrained_cfg = expected_input(channels)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Images N,C,H,W -> pooled features N,512."""
        for name, layer in self.named_children():
            if name == "dropout":
                break
            images = layer(images)
        return images.flatten(1)

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        """Pooled features N,512 -> logits N,num_classes."""
        return self.fc(self.dropout(features))  # type: ignore[no-any-return]  # torch types a module's call as Any

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images N,C,H,W -> logits N,num_classes."""
        return self.forward_head(self.forward_features(images))


def resnet18(
    spec: DataSpec,
    *,
    pretrained: bool = False,
    hidden: tuple[Width, ...] = (),
    dropout: Rate | tuple[Rate, ...] = 0.0,
) -> nn.Module:
    """ResNet-18, 11 million parameters, for 32 pixels and more.

    Images N,C,H,W -> logits N,num_classes; any size, the features are 1/32 of it. `hidden` are fully connected layers
    with ReLU between the 512 pooled features and the classifier; `dropout` acts in front of each of them and of the
    classifier. `pretrained` fetches torchvision's ImageNet weights (IMAGENET1K_V1); on grey images their first layer
    is summed over the colours. Names in the state dict are torchvision's: `conv1`, `bn1`, `layer1` to `layer4`, `fc`.

    Raises DataError where the weights cannot be fetched, Unsupported for smaller images. Source: He et al. 2015, arXiv:1512.03385.
    """
    require_size("resnet18", spec.image_size)
    network = ResNet18(spec.channels, head(512, spec.num_classes, hidden=hidden, dropout=dropout))
    if pretrained:
        load_imagenet(network, models.ResNet18_Weights.IMAGENET1K_V1, head="fc.")
    return network
