"""A seeded library of real samples: encoded images in host memory, the same bytes for every candidate."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError, DataError
from bench.images import BadImage, Decoding, decode, no_size_warnings
from bench.run_info import readable
from bench_export.gate.recorded import recorded_names

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.recipe import Recipe
    from bench.record import Run
    from bench_export.card import Card

__all__ = ["COUNT", "Samples", "collect", "decoding_of", "read", "write"]

#: How many samples the library holds: more than a processor's caches, few enough to decode in a second.
COUNT = 64

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_MOST_LISTED = 100_000
#: Timed as a user's photograph would be, so that boxes of the dataset, which no user has, are not cut out.
_WHOLE = ", each file as a whole"


@dataclass(frozen=True, slots=True)
class Samples:
    """Encoded samples, each of one image or (of pairs) two, and where they come from.

    `source` is a sentence; `real` is false for made-up photographs, with which nothing can be published.
    """

    encoded: tuple[tuple[bytes, ...], ...]
    source: str
    real: bool = True

    def described(self) -> dict[str, Any]:
        """The record's entry: source, count, and the median size in bytes and in pixels of the first hundred."""
        from PIL import Image

        sizes = []
        for sample in self.encoded[:100]:
            with Image.open(io.BytesIO(sample[0])) as image:
                sizes.append(image.size)
        width, height = np.median(np.array(sizes), axis=0)
        size = {"kilobytes": float(np.median([len(part) for one in self.encoded for part in one])) / 1e3}
        return {
            "source": self.source,
            "count": len(self.encoded),
            "images": len(self.encoded[0]),
            "real": self.real,
            "size": size | {"width": float(width), "height": float(height)},
        }


def collect(
    how: Decoding, *, pairs: bool, run: Run | None, card: Card | None, data: Path | None, seed: int, count: int = COUNT
) -> Samples:
    """Up to `count` samples, drawn with the seed.

    From the files that a card's gate names, or those of a run's held-out split, below `data` or where the dataset was
    found; else from any images below `data`; else made-up photographs. Images that cannot be decoded are
    passed over. Raises DataError where `data` holds no image.
    """
    parts = 2 if pairs else 1
    random = np.random.default_rng(seed)
    for names, root, what in _named(run, card, data):
        chosen = _draw([found for name in names if (found := _files(root, name, parts))], how, count, random)
        if chosen:
            return Samples(chosen, what)
    if data is not None:
        listed = sorted(_images_below(data))
        if not listed:
            raise DataError(f"{data}: no images in it", hint="--data takes a dataset's folder or any folder of images")
        groups = [list(group) for group in zip(*[iter(_shuffled(listed, random))] * parts, strict=False)]
        chosen = _draw(groups, how, count, random)
        if len(listed) < parts:
            raise DataError(f"{data}: only one image in it, and this model compares two", hint="add another one")
        if not chosen:
            raise DataError(
                f"{data}: none of its {len(listed)} images can be used", hint=f"bench data looks into {data}"
            )
        return Samples(chosen, f"images below {data}")
    if run is not None and (decoded := _of_arrays(run, count, random)):
        return decoded
    return Samples(tuple(_made_up(random, parts) for _ in range(count)), "made-up photographs", real=False)


def decoding_of(card: Card | None, run: Run | None) -> tuple[Decoding, bool]:
    """(how samples are decoded, whether they are pairs): of a file's card, else of the run's recipe and plan."""
    if card is not None:
        return card.preprocessing.decoding(), card.task == "verification"
    assert run is not None  # noqa: S101  # a candidate is a file with a card or a run
    recipe, plan = _recipe_and_plan(run)
    how = recipe.data
    decoding = Decoding(plan.image_size, plan.channels or 3, how.resize, how.filter, how.max_megapixels)
    return decoding, plan.task == "verification"


def write(samples: Samples, folder: Path) -> None:
    """The library as two files, for the candidates' processes."""
    lengths = [[len(part) for part in sample] for sample in samples.encoded]
    (folder / "samples.bin").write_bytes(b"".join(part for sample in samples.encoded for part in sample))
    (folder / "samples.json").write_text(json.dumps(lengths), encoding="utf-8")


def read(folder: Path) -> list[tuple[bytes, ...]]:
    """What `write` has written."""
    stream = io.BytesIO((folder / "samples.bin").read_bytes())
    lengths = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    return [tuple(stream.read(length) for length in sample) for sample in lengths]


def _named(
    run: Run | None, card: Card | None, data: Path | None
) -> Iterable[tuple[Sequence[Sequence[str]], Path, str]]:
    """(names of files, their folder, what they are) of the places where the model's own images may lie."""
    # A damaged run.json is no reason not to time a file that stands by itself.
    root_of_run = next((info.get("dataset", {}).get("root") for _, info in readable([run] if run else [])), None)
    of_run = [Path(root_of_run)] if root_of_run else []
    if card is not None and (judged := recorded_names(card.gate)):
        for place in [data] if data else [*_dataset_folders(card), *of_run]:
            yield judged, place, f"images that the export was judged by{_WHOLE}"
    if run is None or not (data or of_run):
        return
    root = data or of_run[0]
    for split in ("validation", "test"):
        path = run.folder / "predictions" / f"{split}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as saved:
                names = [[str(name)] for name in saved["ids"]]
            # Archives often hold one folder more than the names know.
            for place in (root, *sorted(path for path in root.glob("*") if path.is_dir())):
                yield names, place, f"{split} images of run {run.name}{_WHOLE}"


def _files(root: Path, names: Sequence[str], parts: int) -> list[Path]:
    """The files of a sample; [] where one is missing, or lies elsewhere: a file's metadata may say anything."""
    files = [root / name for name in names]
    inside = all(not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts for name in names)
    return files if len(files) == parts and inside and all(path.is_file() for path in files) else []


def _dataset_folders(card: Card) -> list[Path]:
    from bench.places import find_root

    named = [card.dataset.get("root"), card.dataset.get("name")]
    return [Path(find_root(str(name))[0]) for name in named if name]


def _draw(
    files: Sequence[Sequence[Path]], how: Decoding, count: int, random: np.random.Generator
) -> tuple[tuple[bytes, ...], ...]:
    chosen: list[tuple[bytes, ...]] = []
    with no_size_warnings():
        for paths in _shuffled(files, random):
            try:
                encoded = tuple(path.read_bytes() for path in paths)
                for part in encoded:
                    decode(part, how)
            except (BadImage, OSError):
                continue
            chosen.append(encoded)
            if len(chosen) == count:
                break
    return tuple(chosen)


def _shuffled(items: Sequence[Any], random: np.random.Generator) -> list[Any]:
    return [items[position] for position in random.permutation(len(items))]


def _images_below(folder: Path) -> Iterable[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    return itertools.islice(found, _MOST_LISTED)


def _of_arrays(run: Run, count: int, random: np.random.Generator) -> Samples | None:
    """Samples of a dataset that is no folder of files, or whose names are not paths: its images as PNG."""
    from bench.progress import Progress

    try:
        from bench_export.gate.samples import open_material

        found = open_material(run, *_recipe_and_plan(run), Progress()).gate()
    except (ImportError, BenchError):  # no training libraries here, or no dataset: then there are no real samples
        return None
    positions = random.permutation(len(found))[:count]
    encoded = tuple(tuple(map(_png, found.originals(int(position)))) for position in positions)
    return Samples(encoded, f"{found.name} images of run {run.name}, as PNG")


def _recipe_and_plan(run: Run) -> tuple[Recipe, Plan]:
    from bench.plan import from_json
    from bench.recipe import parse

    path = run.folder / "recipe.toml"
    recipe = parse(path.read_text(encoding="utf-8"), path=path)
    return recipe, from_json(json.loads((run.folder / "plan.json").read_text(encoding="utf-8")))


def _png(pixels: Any) -> bytes:
    from PIL import Image

    array = np.asarray(pixels)
    stream = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(stream, "PNG")
    return stream.getvalue()


def _made_up(random: np.random.Generator, parts: int) -> tuple[bytes, ...]:
    """JPEGs of 250 pixels with a photograph's spectrum: soft shapes and a little noise."""
    from PIL import Image

    encoded = []
    for _ in range(parts):
        soft = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((250, 250), 3)
        noisy = np.asarray(soft, dtype=np.int16) + random.integers(-8, 9, (250, 250, 3), dtype=np.int16)
        stream = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        encoded.append(stream.getvalue())
    return tuple(encoded)
