"""Face verification from hand-crafted descriptors, fitted to the training images in closed form."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from bench.errors import Unsupported
from bench.kinds import DataSpec
from bench_plugins.models._dense_descriptors import CELL, SIFT_CELLS, CosineCodes, Gabor, LocalBinaryPatterns, Sift
from bench_plugins.models._layers import Width
from bench_plugins.models._pairs import PairNet, require_verification
from bench_plugins.models._whitening import cross_fitted_cosines, folds_of, logistic, whitened_pca, within

__all__ = ["face_descriptor"]

DescriptorName: TypeAlias = Literal["lbp", "codes", "sift", "gabor"]
Size: TypeAlias = tuple[Width, Width]

#: In pixels: radii of the local binary patterns, sides of the cosine filters, blur (sigma), cell and step of the dense
#: SIFT descriptors, wavelengths of the Gabor filters.
RADII = (1, 2, 3, 5)
FILTER_SIDES = (5, 9, 13)
SIFT_SCALES = ((1.0, 6, 8), (1.4, 10, 10))
WAVELENGTHS = (4.0, 5.7, 8.0, 11.3, 16.0)

#: The parts of each descriptor, and the smallest side of a face that it can describe.
PARTS: Mapping[DescriptorName, tuple[int, Callable[[Size], list[nn.Module]]]] = {
    "lbp": (CELL, lambda face: [LocalBinaryPatterns(face, radius) for radius in RADII]),
    "codes": (CELL, lambda face: [CosineCodes(face, side) for side in FILTER_SIDES]),
    "sift": ((SIFT_CELLS + 1) * max(cell for _, cell, _ in SIFT_SCALES), lambda _: [Sift(*s) for s in SIFT_SCALES]),
    "gabor": (1, lambda _: [Gabor(wavelength) for wavelength in WAVELENGTHS]),
}

#: In LFW's images the middle of the face lies a little below the image's.
BELOW_CENTRE = 3
NUM_FOLDS = 5
#: Before it is fitted, the logit is 0 where the cosines are 0.5 on average.
START_WEIGHT, START_BIAS = 4.0, -2.0
#: ITU-R 601, as Pillow turns colours grey.
LUMA = (0.299, 0.587, 0.114)


class Piece(nn.Module):
    """One descriptor, projected, whitened and of unit length: faces N,1,H,W -> N,dims."""

    mean: torch.Tensor
    projection: torch.Tensor
    within: torch.Tensor

    def __init__(self, name: DescriptorName, face: Size, dims: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(_parts(name, face))
        num_features = self.raw(torch.zeros(1, 1, *face)).shape[1]
        random = torch.randn(num_features, dims, generator=torch.Generator().manual_seed(0))
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("projection", random / num_features**0.5)
        self.register_buffer("within", torch.eye(dims))

    def raw(self, faces: torch.Tensor) -> torch.Tensor:
        """The descriptor N,F, averaged over the face and its mirror image."""
        mirrored = faces.flip(3)
        return torch.cat([(part(faces) + part(mirrored)) / 2 for part in self.parts], 1)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces N,1,H,W -> unit vectors N,dims."""
        projected = functional.normalize((self.raw(faces) - self.mean) @ self.projection, dim=1)
        return functional.normalize(projected @ self.within, dim=1)

    def fit(self, raw: torch.Tensor, matched: torch.Tensor, *, shrink: float) -> torch.Tensor:
        """Take the projections from descriptors N,F and matched pairs M,2; returns the unit projections N,dims."""
        pca = whitened_pca(raw, self.within.shape[0])
        units = functional.normalize(pca.projected, dim=1)
        self.mean.copy_(pca.mean)
        self.projection.copy_(pca.matrix)
        self.within.copy_(within(units, matched, shrink=shrink))
        return units


class FaceDescriptor(PairNet):
    """`pieces` describe a face, `head` weighs the cosines between those of two faces."""

    luma: torch.Tensor

    def __init__(self, pieces: dict[str, nn.Module], *, top_left: tuple[int, int], face: Size, shrink: float) -> None:
        super().__init__()
        self.top_left, self.face, self.shrink = top_left, face, shrink
        self.pieces = nn.ModuleDict(pieces)
        self.register_buffer("luma", torch.tensor(LUMA).reshape(1, -1, 1, 1), persistent=False)
        self.head = nn.Linear(len(pieces), 1)
        nn.init.constant_(self.head.weight, START_WEIGHT)
        nn.init.constant_(self.head.bias, START_BIAS)

    def faces(self, images: torch.Tensor) -> torch.Tensor:
        """Images N,C,H,W -> their faces, grey, N,1,height,width."""
        (top, left), (height, width) = self.top_left, self.face
        faces = images[:, :, top : top + height, left : left + width].float()
        return faces if faces.shape[1] == 1 else (faces * self.luma).sum(1, keepdim=True)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Images N,C,H,W -> N, blocks * dims: a unit vector from each descriptor, one behind the other."""
        with _full_precision(images):
            faces = self.faces(images)
            return torch.cat([piece(faces) for piece in self.pieces.values()], 1)

    def forward_head(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Features N, blocks * dims of both sides -> logits N,1."""
        with _full_precision(first):
            cosines = (first * second).reshape(first.shape[0], len(self.pieces), -1).sum(2)
            return self.head(cosines)  # type: ignore[no-any-return]  # torch types a module's call as Any

    @torch.no_grad()
    def fit_features(self, batches: Iterable[torch.Tensor], *, pairs: torch.Tensor, labels: torch.Tensor) -> None:
        """Compute all projections and the head from the training images and pairs (see bench/kinds.py).

        Holds the descriptors of all images as float16, with the default options 180 KB an image. Uses no random
        numbers. Raises BenchError where there are too few images for `dims`, or too few pairs.
        """
        folds = folds_of(pairs, labels, num_folds=NUM_FOLDS)  # first, as it is quick to fail
        raws = self._raws(batches)
        pairs, labels, folds = (samples.to(self.head.weight.device) for samples in (pairs, labels, folds))
        units = [
            piece.fit(raws.pop(name), pairs[labels > 0], shrink=self.shrink)  # type: ignore[operator]  # a Piece
            for name, piece in self.pieces.items()
        ]
        weight, bias = logistic(cross_fitted_cosines(units, pairs, labels, folds=folds, shrink=self.shrink), labels)
        self.head.weight.copy_(weight)
        self.head.bias.copy_(bias)

    def _raws(self, batches: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The descriptors N,F of all images, for each piece."""
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in self.pieces}
        for images in batches:
            faces = self.faces(images)
            for name, piece in self.pieces.items():
                parts[name].append(piece.raw(faces).half())  # type: ignore[operator]  # a Piece
        return {name: torch.cat(parts.pop(name)) for name in self.pieces}


def face_descriptor(
    spec: DataSpec,
    *,
    face: Size = (130, 100),
    centre: Size | None = None,
    dims: Width = 200,
    shrink: Annotated[float, Field(gt=0, lt=1)] = 0.02,
    descriptors: Annotated[tuple[DescriptorName, ...], Field(min_length=1)] = ("lbp", "codes", "sift", "gabor"),
) -> nn.Module:
    """Pairs of faces, compared by hand-crafted descriptors that are whitened in closed form.

    Images N,C,H,W in 0..1 (`data.normalize = "none"`) twice -> the logit of "same", N,1, for the loss bce. `face` is
    (height, width) of the face in pixels, `centre` (row, column) of its middle, by default 3 pixels below the image's;
    colours become grey. Each of `descriptors` (local binary patterns, signs of cosine filters, dense SIFT, Gabor
    magnitudes), averaged over the face and its mirror image, is projected to its `dims` whitened principal components
    and whitened by the differences between images of one person, whose covariance is shrunk by `shrink`. The logit is a
    weighted sum of the pieces' cosines. `fit_features` computes all of it from the training images; its cosines are of
    persons that the whitening has not seen, so that the logit 0 is a fair threshold. No more epochs are needed.

    Raises Unsupported for data that are no pairs, for a face that is not inside the image, and for one that is too
    small for a descriptor. Fitting raises BenchError for fewer training images than `dims` + 1. Sources: Ahonen,
    Hadid, Pietikäinen 2006 (local binary patterns); Lowe 2004 (SIFT); Kannala, Rahtu 2012 (codes); Hussain, Napoléon,
    Jurie 2012 (whitened PCA); Hatch, Kajarekar, Stolcke 2006 (within-class covariance).
    """
    require_verification("face_descriptor", spec)
    if len(set(descriptors)) < len(descriptors):
        raise Unsupported(f"face_descriptor: descriptors names one twice: {', '.join(descriptors)}")
    top_left = _top_left(spec.image_size, face, centre)
    pieces: dict[str, nn.Module] = {name: Piece(name, face, dims) for name in descriptors}
    return FaceDescriptor(pieces, top_left=top_left, face=face, shrink=shrink)


def _parts(name: DescriptorName, face: Size) -> list[nn.Module]:
    smallest, parts = PARTS[name]
    if min(face) < smallest:
        message = (
            f"face_descriptor: {name!r} describes faces of at least {smallest} x {smallest} pixels, not of "
            f"{face[0]} x {face[1]}"
        )
        raise Unsupported(message, hint=f"a larger model.face, or model.descriptors without {name!r}")
    return parts(face)


def _top_left(image_size: tuple[int, int], face: Size, centre: Size | None) -> tuple[int, int]:
    """Where the face starts; by default moved as far as the image allows."""
    room = image_size[0] - face[0], image_size[1] - face[1]
    if centre is None:
        top_left = min(image_size[0] // 2 + BELOW_CENTRE - face[0] // 2, room[0]), image_size[1] // 2 - face[1] // 2
    else:
        top_left = centre[0] - face[0] // 2, centre[1] - face[1] // 2
    if not all(0 <= start <= most for start, most in zip(top_left, room, strict=True)):
        place = "" if centre is None else f" around row {centre[0]}, column {centre[1]}"
        message = (
            f"face_descriptor: a face of {face[0]} x {face[1]} pixels{place} is not inside images of "
            f"{image_size[0]} x {image_size[1]}"
        )
        raise Unsupported(message, hint="larger images (data.size), a smaller model.face, or another model.centre")
    return top_left


def _full_precision(tensor: torch.Tensor) -> torch.autocast | nullcontext[None]:
    """No autocast: its rounding would flip the codes of flat regions."""
    kind = tensor.device.type
    # Only where it is on, as an exporter cannot translate the context.
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _example(_: Path) -> dict[str, object]:
    """The checks have small images."""
    return {"face": [56, 50], "dims": 8}


face_descriptor.example = _example  # type: ignore[attr-defined]  # the conformance checks look for this attribute
