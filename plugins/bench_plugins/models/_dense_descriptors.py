"""Hand-crafted descriptors of faces: grey crops N,1,H,W in 0..1 become N,F, with no parameter to train.

Every value is the square root of a histogram's, so that Euclidean distances become Hellinger distances.
"""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional

__all__ = ["CELL", "SIFT_CELLS", "CosineCodes", "Gabor", "LocalBinaryPatterns", "Sift"]

#: Side of a histogram's cell and the step to the next one, in pixels.
CELL, CELL_STRIDE = 20, 10

#: A response of a cosine filter (images in 0..1) that is no rounding error of 0, as flat and symmetric places have it.
ABOVE_ZERO = 1e-5

#: A neighbour must be brighter by more than half a grey level, or the noise of flat regions decides.
BRIGHTER = 0.0025
NUM_NEIGHBOURS, NUM_UNIFORM = 8, 58

#: How many half waves the cosine filters have down and across.
FREQUENCIES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 1))

SIFT_CELLS, SIFT_DIRECTIONS = 4, 8
#: Sizes of gradients and of Gabor responses below which a region is flat. They are lower bounds and not addends, as
#: exporters to ONNX drop an addend that is this near to 0.
FLAT, FLAT_WAVE = 1e-5, 1e-4

#: The number of orientations, and the step of the grid in pixels.
ORIENTATIONS, GABOR_STRIDE = 8, 5


class CellHistograms(nn.Module):
    """Histograms of a map of codes in overlapping cells; a pixel counts the more, the nearer it is to their centre."""

    rows: torch.Tensor
    columns: torch.Tensor
    codes: torch.Tensor

    def __init__(self, face: tuple[int, int], num_codes: int) -> None:
        super().__init__()
        self.register_buffer("rows", _cells(face[0]).T.contiguous(), persistent=False)
        self.register_buffer("columns", _cells(face[1]), persistent=False)
        self.register_buffer("codes", torch.arange(float(num_codes)).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes N,1,H,W -> N, num_codes * cells: the square roots of each cell's shares."""
        histograms = self.rows @ ((codes == self.codes).float() @ self.columns)
        return (histograms / histograms.sum(1, keepdim=True)).sqrt().flatten(1)


class LocalBinaryPatterns(nn.Module):
    """Histograms of uniform local binary patterns: which of eight neighbours on a circle are brighter.

    Bit i of a code is the neighbour at i * 45 degrees, counted counter-clockwise from the right. Codes with at most two
    changes around the circle have a bin each, the others share one. Source: Ahonen, Hadid, Pietikäinen 2006, Face
    description with local binary patterns.
    """

    neighbours: torch.Tensor
    powers: torch.Tensor
    bins: torch.Tensor

    def __init__(self, face: tuple[int, int], radius: int) -> None:
        super().__init__()
        self.register_buffer("neighbours", _neighbours(radius), persistent=False)
        self.register_buffer("powers", _powers(NUM_NEIGHBOURS), persistent=False)
        self.register_buffer("bins", _uniform_bins(), persistent=False)
        self.histograms = CellHistograms(face, NUM_UNIFORM + 1)

    def codes(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces N,1,H,W -> codes N,1,H,W, whole numbers of 0..255 as floats."""
        return ((_filtered(faces, self.neighbours) >= BRIGHTER).float() * self.powers).sum(1, keepdim=True)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces N,1,H,W -> N,F."""
        return self.histograms(self.bins[self.codes(faces).long()])  # type: ignore[no-any-return]  # untyped


class CosineCodes(nn.Module):
    """Histograms of 6-bit codes: the signs of six low-frequency cosine filters.

    Close to local phase quantisation and to BSIF, with a fixed basis in place of a learned one. Source: Kannala, Rahtu
    2012, BSIF: binarized statistical image features.
    """

    filters: torch.Tensor
    powers: torch.Tensor

    def __init__(self, face: tuple[int, int], side: int) -> None:
        super().__init__()
        phase = (torch.arange(side) + 0.5) * math.pi / side
        waves = [(down * phase).cos()[:, None] * (across * phase).cos()[None] for down, across in FREQUENCIES]
        waves = [wave - wave.mean() for wave in waves]
        filters = torch.stack([wave / wave.norm() for wave in waves])[:, None]
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("powers", _powers(len(FREQUENCIES)), persistent=False)
        self.histograms = CellHistograms(face, 2 ** len(FREQUENCIES))

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces N,1,H,W -> N,F."""
        codes = ((_filtered(faces, self.filters) > ABOVE_ZERO).float() * self.powers).sum(1, keepdim=True)
        return self.histograms(codes)  # type: ignore[no-any-return]  # torch types a module's call as Any


class Sift(nn.Module):
    """SIFT descriptors on a grid: eight gradient directions in 4 x 4 cells, normalised to shares (RootSIFT).

    Sources: Lowe 2004, Distinctive image features from scale-invariant keypoints; Arandjelović, Zisserman 2012.
    """

    blur: torch.Tensor
    tent: torch.Tensor
    directions: torch.Tensor

    def __init__(self, sigma: float, cell: int, stride: int) -> None:
        super().__init__()
        self.cell, self.stride = cell, stride
        reach = int(3 * sigma + 0.5)
        blur = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / 2 / sigma**2)
        tent = 1 - torch.arange(-cell + 0.5, cell).abs() / cell
        angles = 2 * math.pi * torch.arange(SIFT_DIRECTIONS) / SIFT_DIRECTIONS
        self.register_buffer("blur", blur / blur.sum(), persistent=False)
        self.register_buffer("tent", tent / tent.sum(), persistent=False)
        directions = torch.stack((angles.cos(), angles.sin()))[:, :, None, None]
        self.register_buffer("directions", directions, persistent=False)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces N,1,H,W -> N,F."""
        blurred = _separable(_extended(faces, self.blur.shape[0] // 2), self.blur)
        maps = _separable(self._directions(_extended(blurred, 1)), self.tent)
        span = (SIFT_CELLS - 1) * self.cell
        rows, columns = maps.shape[2] - span, maps.shape[3] - span
        corners = itertools.product(range(0, span + 1, self.cell), repeat=2)
        cells = [maps[:, :, y : y + rows : self.stride, x : x + columns : self.stride] for y, x in corners]
        grid = torch.cat(cells, 1)
        return (grid / (grid.sum(1, keepdim=True) + 1e-3)).sqrt().flatten(1)

    def _directions(self, images: torch.Tensor) -> torch.Tensor:
        """The gradient's size, shared out to the directions that it is near."""
        across = images[:, :, 1:-1, 2:] - images[:, :, 1:-1, :-2]
        down = images[:, :, 2:, 1:-1] - images[:, :, :-2, 1:-1]
        size = (across * across + down * down).clamp(min=FLAT**2).sqrt()
        along = across * self.directions[:1] + down * self.directions[1:]
        return torch.relu(along / size) ** 4 * size


class Gabor(nn.Module):
    """Square roots of Gabor magnitudes on a grid: 8 orientations of one wavelength, scaled to unit energy.

    Source: Liu, Wechsler 2002, Gabor feature based classification using the enhanced Fisher linear discriminant model.
    """

    waves: torch.Tensor

    def __init__(self, wavelength: float) -> None:
        super().__init__()
        sigma = wavelength / 2
        reach = int(2.5 * sigma + 0.5)
        axis = torch.arange(-reach, reach + 1.0)
        rows, columns = axis[:, None], axis[None]
        envelope = torch.exp(-(columns**2 + rows**2) / 2 / sigma**2)
        waves: list[torch.Tensor] = []
        for angle in (math.pi * number / ORIENTATIONS for number in range(ORIENTATIONS)):
            phase = 2 * math.pi * (columns * math.cos(angle) + rows * math.sin(angle)) / wavelength
            even = phase.cos() * envelope
            even = even - envelope * even.sum() / envelope.sum()  # flat regions give nothing
            waves += [even / even.norm(), phase.sin() * envelope / even.norm()]
        self.register_buffer("waves", torch.stack(waves)[:, None], persistent=False)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces N,1,H,W -> N,F."""
        responses = _filtered(faces, self.waves, stride=GABOR_STRIDE)
        energies = (responses[:, 0::2] ** 2 + responses[:, 1::2] ** 2).clamp(min=FLAT_WAVE**2).flatten(1)
        return (energies / energies.mean(1, keepdim=True)) ** 0.25


def _extended(images: torch.Tensor, border: int) -> torch.Tensor:
    """With the outermost pixels repeated, so that a filter leaves the size as it is."""
    return functional.pad(images, (border,) * 4, mode="replicate")


def _filtered(images: torch.Tensor, filters: torch.Tensor, *, stride: int = 1) -> torch.Tensor:
    return functional.conv2d(_extended(images, filters.shape[-1] // 2), filters, stride=stride)


def _separable(images: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Each channel filtered across, then down, without a border."""
    count = images.shape[1]
    across = functional.conv2d(images, kernel.reshape(1, 1, 1, -1).expand(count, 1, 1, -1), groups=count)
    return functional.conv2d(across, kernel.reshape(1, 1, -1, 1).expand(count, 1, -1, 1), groups=count)


def _cells(length: int) -> torch.Tensor:
    """Weights length,cells: a triangle for each cell, all of them centred in the length."""
    count = (length - CELL) // CELL_STRIDE + 1
    start = (length - CELL - (count - 1) * CELL_STRIDE) / 2
    centres = start + CELL / 2 + CELL_STRIDE * torch.arange(count)
    return torch.relu(1 - (torch.arange(length)[:, None] + 0.5 - centres).abs() / (CELL / 2))


def _powers(num_bits: int) -> torch.Tensor:
    return (2.0 ** torch.arange(num_bits)).reshape(1, -1, 1, 1)


def _neighbours(radius: int) -> torch.Tensor:
    """Filters 8,1,side,side: a bilinearly interpolated neighbour on the circle, less the centre."""
    axis = torch.arange(-radius, radius + 1, dtype=torch.float64)
    angles = 2 * math.pi * torch.arange(NUM_NEIGHBOURS, dtype=torch.float64)[:, None] / NUM_NEIGHBOURS
    down = torch.relu(1 - (axis + radius * angles.sin()).abs())
    across = torch.relu(1 - (axis - radius * angles.cos()).abs())
    filters = down[:, :, None] * across[:, None, :]
    filters[:, radius, radius] -= 1
    return filters[:, None].float()


def _uniform_bins() -> torch.Tensor:
    """The bin of each of the 256 codes: their own for codes that differ in at most two bits from themselves rotated."""
    rotated = [code >> 1 | (code & 1) << 7 for code in range(256)]
    uniform = [code for code in range(256) if (code ^ rotated[code]).bit_count() <= 2]  # noqa: PLR2004 -- two changes
    bins = torch.full((256,), float(NUM_UNIFORM))
    bins[uniform] = torch.arange(float(NUM_UNIFORM))
    return bins
