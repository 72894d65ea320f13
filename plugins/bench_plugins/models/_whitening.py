"""Verification in closed form: whitened descriptors, whitened differences within a person, and what cosines tell."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from bench.errors import BenchError

__all__ = ["WhitenedPca", "cross_fitted_cosines", "folds_of", "logistic", "whitened_pca", "within"]

#: Columns that are taken from float16 at once; of all of them in float32 there is no need.
_COLUMNS = 2048
#: Variance that is no more than rounding, as shares of the largest one and of the mean descriptor's square.
_ROUNDING, _ROUNDING_OF_MEAN = 1e-5, 1e-9
#: The penalty on the weights' squares for each training pair: only perfectly separable pairs are held back by it.
_RIDGE = 1e-4


@dataclass(frozen=True, slots=True)
class WhitenedPca:
    """A projection (raw - mean) @ matrix to components of variance 1, and the training images projected, N,dims."""

    mean: torch.Tensor
    matrix: torch.Tensor
    projected: torch.Tensor


@torch.no_grad()
def whitened_pca(raw: torch.Tensor, dims: int) -> WhitenedPca:
    """The principal components of descriptors N,F (float16 or float32) with the largest variance, scaled to variance 1.

    Found through the N x N matrix of inner products, as there are far fewer images than features. Raises BenchError
    where the images vary in fewer than `dims` directions. Source: Hussain, Napoléon, Jurie 2012, Face recognition using
    local quantized patterns.
    """
    count = raw.shape[0]
    means = [part.float().mean(0) for part in _parts(raw)]
    products = torch.zeros(count, count, device=raw.device)
    for part, mean in zip(_parts(raw), means, strict=True):
        centred = part.float() - mean
        products += centred @ centred.T
    values, vectors = torch.linalg.eigh(products)
    values, vectors = values.flip(0), vectors.flip(1)
    _require(dims, values, floor=_ROUNDING_OF_MEAN * count * float(torch.cat(means).square().sum()))
    scaled = vectors[:, :dims] / values[:dims] * count**0.5
    matrix = [(part.float() - mean).T @ scaled for part, mean in zip(_parts(raw), means, strict=True)]
    return WhitenedPca(torch.cat(means), torch.cat(matrix), products @ scaled)


def _parts(raw: torch.Tensor) -> list[torch.Tensor]:
    return [raw[:, start : start + _COLUMNS] for start in range(0, raw.shape[1], _COLUMNS)]


def _require(dims: int, values: torch.Tensor, *, floor: float) -> None:
    usable = int((values > max(_ROUNDING * float(values[0]), floor)).sum())
    if usable < dims:
        raise BenchError(
            f"the {len(values):,} training images vary in {usable:,} directions, fewer than model.dims = {dims:,}",
            hint=f"--set model.dims={usable}, or more training images" if usable else "the images are all alike",
        )


@torch.no_grad()
def within(units: torch.Tensor, matched: torch.Tensor, *, shrink: float) -> torch.Tensor:
    """The inverse square root dims,dims of the covariance of the differences between two images of one person.

    units N,dims; matched M,2, their positions. `shrink` of the covariance is replaced by a multiple of the identity.
    Source: Hatch, Kajarekar, Stolcke 2006, Within-class covariance normalization for SVM-based speaker recognition.
    """
    differences = (units[matched[:, 0]] - units[matched[:, 1]]).double() / 2**0.5
    covariance = differences.T @ differences / differences.shape[0]
    identity = torch.eye(covariance.shape[0], dtype=covariance.dtype, device=covariance.device)
    covariance = (1 - shrink) * covariance + shrink * covariance.diagonal().mean() * identity
    values, vectors = torch.linalg.eigh(covariance)
    root: torch.Tensor = (vectors / values.sqrt()) @ vectors.T
    return root.to(units.dtype)


def folds_of(pairs: torch.Tensor, labels: torch.Tensor, *, num_folds: int) -> torch.Tensor:
    """A fold 0..num_folds-1 for each of the pairs P,2, the same for all whose first image shows one person.

    Images are of one person where matched pairs (label 1) connect them. Raises BenchError where there are not pairs of
    both kinds, and matched ones of at least two persons.
    """
    matched = labels > 0
    person: dict[int, int] = {}
    for first, second in pairs[matched].tolist():
        person[_root(person, second)] = _root(person, first)
    numbers: dict[int, int] = {}
    for image in pairs[matched][:, 0].tolist():  # first, so that matched persons are spread evenly over the folds
        numbers.setdefault(_root(person, image), len(numbers))
    if len(numbers) < 2 or bool(matched.all()):  # noqa: PLR2004 -- two
        told = f"{len(numbers):,} persons with matched pairs and {int((~matched).sum()):,} pairs of different persons"
        raise BenchError(
            f"the training pairs hold {told}: too few to tell how alike two images of one person are",
            hint="at least two persons with two images each, and pairs of different persons, in the training split",
        )
    roots = [_root(person, image) for image in pairs[:, 0].tolist()]
    return torch.tensor([numbers.setdefault(root, len(numbers)) % num_folds for root in roots], device=pairs.device)


def _root(parents: dict[int, int], image: int) -> int:
    """The image that stands for all that are connected with this one."""
    while (parent := parents.setdefault(image, image)) != image:
        parents[image] = parents[parent]
        image = parent
    return image


@torch.no_grad()
def cross_fitted_cosines(
    units: Sequence[torch.Tensor], pairs: torch.Tensor, labels: torch.Tensor, *, folds: torch.Tensor, shrink: float
) -> torch.Tensor:
    """Cosines P,blocks of the pairs, each after a `within` that has not seen the pairs of its fold.

    units: N,dims for each block. Cosines of pairs that the whitening has seen would be too favourable, and so would be
    the threshold that is taken from them.
    """
    cosines = torch.zeros(pairs.shape[0], len(units), device=pairs.device)
    for fold in sorted(set(folds.tolist())):
        held_out, seen = folds == fold, (folds != fold) & (labels > 0)
        for block, unit in enumerate(units):
            whitened = functional.normalize(unit @ within(unit, pairs[seen], shrink=shrink), dim=1)
            cosines[held_out, block] = (whitened[pairs[held_out, 0]] * whitened[pairs[held_out, 1]]).sum(1)
    return cosines


def logistic(cosines: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights 1,blocks and bias 1 of the logit of "same", by logistic regression; both classes weigh the same."""
    from sklearn.linear_model import LogisticRegression

    strength = 1 / (_RIDGE * labels.shape[0])
    regression = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    regression.fit(cosines.double().cpu().numpy(), labels.cpu().numpy())
    return torch.from_numpy(regression.coef_), torch.from_numpy(regression.intercept_)
