"""What models that compare two images are made of: one twin for both sides, and a distance between its outputs."""

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

import torch
from torch import nn

from bench.errors import Unsupported
from bench.kinds import DataSpec

__all__ = ["DistanceName", "PairNet", "distance_between", "require_verification"]

DistanceName: TypeAlias = Literal["weighted_l1", "euclidean", "cosine"]

#: Where the logit of the cosine starts: 0 at a similarity of one half.
COSINE_SCALE, COSINE_BIAS = 10.0, -5.0


class WeightedL1(nn.Module):
    """The logit of "same": a weight for the absolute difference of each feature, and a bias (Koch et al. 2015)."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, 1)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Features N,F twice -> logits N,1."""
        return self.linear((first - second).abs())  # type: ignore[no-any-return]  # torch types a module's call as Any


class Euclidean(nn.Module):
    """A distance of at least 0, for the loss "contrastive"."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Features N,F twice -> distances N,1."""
        # Unlike the root of a sum, its gradient is 0 where both sides are equal, not infinite.
        return torch.linalg.vector_norm(first - second, dim=1, keepdim=True)  # type: ignore[no-any-return]  # untyped


class Cosine(nn.Module):
    """The logit of "same": the cosine of the angle between the features, with a learned scale and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(COSINE_SCALE))
        self.bias = nn.Parameter(torch.tensor(COSINE_BIAS))

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Features N,F twice -> logits N,1."""
        similarity = nn.functional.cosine_similarity(first, second, dim=1).unsqueeze(1)
        return self.scale * similarity + self.bias


class PairNet(nn.Module, ABC):
    """Compares pairs of images. A subclass says what `forward_features` and `forward_head` are.

    `output` is what comes out, by the module that compares the features: the logit of "same" or a distance.
    """

    def __init__(self, distance: nn.Module | None = None) -> None:
        super().__init__()
        self.output = "distance" if isinstance(distance, Euclidean) else "logit"

    @abstractmethod
    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Images N,C,H,W -> features N,F."""

    @abstractmethod
    def forward_head(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Features N,F of both sides -> logits or distances N,1."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Images N,C,H,W twice -> logits or distances N,1."""
        # One batch of both sides: half the calls, and a BatchNorm sees the same statistics on both.
        features = self.forward_features(torch.cat((first, second)))
        num_pairs = first.shape[0]  # len() would be a constant of an exported graph
        return self.forward_head(features[:num_pairs], features[num_pairs:])


def distance_between(name: DistanceName, num_features: int) -> nn.Module:
    """The module that compares features N,num_features of both sides."""
    if name == "weighted_l1":
        return WeightedL1(num_features)
    return Euclidean() if name == "euclidean" else Cosine()


def require_verification(model: str, spec: DataSpec) -> None:
    """Raise Unsupported where the data are no pairs."""
    if spec.task != "verification":
        raise Unsupported(
            f"{model} compares pairs of images, but the data are for {spec.task}", hint="use a dataset of pairs"
        )
