"""MobileNetV2 as the twin of a Siamese network, with torchvision's parameter names."""

from collections import OrderedDict

import torch
from torch import nn
from torchvision import models

from bench.errors import Unsupported
from bench.kinds import DataSpec
from bench_plugins.models._imagenet import load_imagenet, require_size
from bench_plugins.models._layers import Rate, Width, head
from bench_plugins.models._pairs import DistanceName, PairNet, distance_between, require_verification
from bench_plugins.models.mobilenet_v2 import MobileNetV2

__all__ = ["siamese_mobilenet_v2"]

NUM_FEATURES = 1280


class SiameseMobileNetV2(PairNet):
    """torchvision's `features`, average pooling, and a `classifier` made of an embedding and a distance."""

    def __init__(self, backbone: MobileNetV2, embedding: nn.Module, distance: nn.Module) -> None:
        super().__init__(distance)
        self.features = backbone.features
        self.classifier = nn.ModuleDict(OrderedDict(embedding=embedding, distance=distance))
        self.pretrained_cfg = backbone.pretrained_cfg

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Images N,C,H,W -> pooled features N,1280."""
        return self.features(images).mean(dim=(2, 3))  # type: ignore[no-any-return]  # torchvision is untyped

    def forward_head(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Pooled features N,1280 of both sides -> logits or distances N,1."""
        embed, distance = self.classifier["embedding"], self.classifier["distance"]
        return distance(embed(first), embed(second))  # type: ignore[no-any-return]  # torch types a module's call as Any


def siamese_mobilenet_v2(
    spec: DataSpec,
    *,
    pretrained: bool = False,
    embedding: tuple[Width, ...] = (),
    dropout: Rate | tuple[Rate, ...] = 0.0,
    distance: DistanceName = "weighted_l1",
) -> nn.Module:
    """Two images through one MobileNetV2, compared by a distance of their pooled features.

    Images N,C,H,W twice -> N,1; 32 pixels and more. `embedding` are fully connected layers on the 1280 pooled
    features, with ReLU between them; `dropout` acts in front of each of them. `distance` weighted_l1 and cosine (with
    a learned scale and bias) give the logit of "same", for the loss bce, euclidean a distance for the loss
    contrastive. Both sides go through the network as one batch. `pretrained` fetches torchvision's ImageNet weights
    (IMAGENET1K_V2). Names in the state dict are torchvision's, `features.*`, beside `classifier.*`.

    Raises Unsupported for data that are no pairs and for a dropout without an embedding, DataError where the weights cannot be fetched. Source: Sandler et al.
    2018, arXiv:1801.04381.
    """
    require_verification("siamese_mobilenet_v2", spec)
    require_size("siamese_mobilenet_v2", spec.image_size)
    if dropout and not embedding:
        message = "siamese_mobilenet_v2: dropout is in front of the embedding's layers, but there are none"
        raise Unsupported(message, hint="give embedding, or leave dropout out")
    backbone = MobileNetV2(spec.channels, nn.Sequential())
    if pretrained:
        load_imagenet(backbone, models.MobileNet_V2_Weights.IMAGENET1K_V2, head="classifier.")
    *hidden, num_features = embedding or (NUM_FEATURES,)
    embed = head(NUM_FEATURES, num_features, hidden=hidden, dropout=dropout) if embedding else nn.Identity()
    return SiameseMobileNetV2(backbone, embed, distance_between(distance, num_features))
