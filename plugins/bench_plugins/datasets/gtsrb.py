"""German traffic signs of 43 classes, in the layout of the official archives or of torchvision."""

import re
from pathlib import Path

import numpy as np

from bench.errors import DataError
from bench.kinds import Dataset, Split
from bench_plugins.datasets import _gtsrb_tables as tables
from bench_plugins.datasets._files import folders_in, image_files
from bench_plugins.datasets._problems import Problems

__all__ = ["CLASSES", "gtsrb"]

#: What the signs mean, in the order of the official labels.
CLASSES = (
    "speed limit 20 km/h",
    "speed limit 30 km/h",
    "speed limit 50 km/h",
    "speed limit 60 km/h",
    "speed limit 70 km/h",
    "speed limit 80 km/h",
    "end of speed limit 80 km/h",
    "speed limit 100 km/h",
    "speed limit 120 km/h",
    "no passing",
    "no passing for vehicles over 3.5 t",
    "right of way at the next intersection",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no vehicles over 3.5 t",
    "no entry",
    "general caution",
    "dangerous curve to the left",
    "dangerous curve to the right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road works",
    "traffic signals",
    "pedestrians",
    "children crossing",
    "bicycles crossing",
    "ice or snow",
    "wild animals crossing",
    "end of all speed and passing limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "straight ahead or right",
    "straight ahead or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no passing",
    "end of no passing for vehicles over 3.5 t",
)

TRAINING = ("Training", "Final_Training/Images")
TEST = "Final_Test/Images"
TEST_TABLE = "GT-final_test.csv"
SOURCE = (
    "benchmark.ini.rub.de (GTSRB): the archives of training images, of test images, and GTSRB_Final_Test_GT.zip with "
    f"{TEST_TABLE}; or torchvision.datasets.GTSRB(root, download=True)"
)


def gtsrb(root: Path, *, roi: bool = False) -> Dataset:
    """GTSRB: photographs of German traffic signs, 43 classes.

    Splits "train" and "test". Training images are GTSRB/Training/000NN/TRACK_FRAME.ppm (torchvision's layout) or
    GTSRB/Final_Training/Images/000NN/TRACK_FRAME.ppm (the official one), test images GTSRB/Final_Test/Images/*.ppm with
    the table GT-final_test.csv beside GTSRB, in it, or with the images. `root` is the GTSRB folder or the one around it.
    The frames of one track show one sign, so the groups are "CLASS/TRACK".

    `roi` cuts each image to the region of interest of its table. X2 and Y2 are taken as excluded: so read, the margin is
    the same on both sides, and at least the 5 pixels that the official description promises. It opens each image to
    compare its size with the table's; without it no image is opened, and only the test images need a table.

    Raises DataError, with everything that is wrong counted and the first faults listed: a folder or table that is
    missing, images that are listed and not there or there and not listed, lines that cannot be read, labels outside
    0..42, regions of interest outside their image, and images that were resized. Source: Stallkamp et al. 2012, "Man
    vs. computer: Benchmarking machine learning algorithms for traffic sign recognition".
    """
    base, training = _layout(root)
    test = base / TEST
    if not test.is_dir():
        raise DataError(f"there is no folder {test} with the test images", hint=f"get it from {SOURCE}")
    places = (base, test, test.parent, base.parent)
    table = next((place / TEST_TABLE for place in places if (place / TEST_TABLE).is_file()), None)
    if table is None:
        message = f"there is no {TEST_TABLE} with the labels of the test images in {', '.join(map(str, places))}"
        raise DataError(message, hint=f"get it from {SOURCE}")
    problems = Problems(tables.REMEDIES)
    splits = {
        "train": _read_training(base, training, problems, roi=roi),
        "test": _read_test(test, table, problems, roi=roi),
    }
    problems.check(root)
    return Dataset(classes=CLASSES, splits=splits)


def _layout(root: Path) -> tuple[Path, str]:
    """The GTSRB folder, and the folder of the training images below it."""
    bases = (root, root / "GTSRB", root / "gtsrb" / "GTSRB", root / "gtsrb")
    for base in bases:
        found = [name for name in TRAINING if (base / name).is_dir()]
        if len(found) > 1:
            message = f"{base} holds two sets of training images, {' and '.join(found)}, which share images"
            raise DataError(message, hint="move one of them away")
        if found:
            return base, found[0]
    tried = ", ".join(str(Path("GTSRB", name)) for name in TRAINING)
    raise DataError(f"{root} holds no training images of GTSRB (looked for {tried})", hint=f"get them from {SOURCE}")


def _read_training(base: Path, training: str, problems: Problems, *, roi: bool) -> Split:
    ids: list[str] = []
    labels: list[int] = []
    groups: list[str] = []
    boxes = [np.zeros((0, 4), dtype=np.int64)]
    names = [f"{label:05d}" for label in range(len(CLASSES))]
    present = folders_in(base / training)
    for name in sorted(set(present) - set(names)):
        problems.add(tables.STRANGE_FOLDER, str(base / training / name))
    for label, name in enumerate(names):
        folder = base / training / name
        files = image_files(folder) if name in present else []
        if not files:
            problems.add(tables.NO_FOLDER, str(folder))
            continue
        ids += [f"{training}/{name}/{file}" for file in files]
        labels += [label] * len(files)
        groups += [f"{name}/{_track(folder, file, problems)}" for file in files]
        if roi:
            boxes.append(_regions(folder, files, label, problems))
    joined = np.concatenate(boxes) if roi else None
    return Split([base / one for one in ids], labels, ids, groups=groups, boxes=joined)


def _track(folder: Path, file: str, problems: Problems) -> str:
    match = re.fullmatch(r"(\d+)_\d+\.\w+", file)
    if match is None:
        problems.add(tables.BAD_NAME, str(folder / file))
        return ""
    return match[1]


def _regions(folder: Path, files: list[str], label: int, problems: Problems) -> np.ndarray:
    table = folder / f"GT-{folder.name}.csv"
    if not table.is_file():
        problems.add(tables.NO_TABLE, f"{table} is missing")
        return np.zeros((len(files), 4), dtype=np.int64)
    signs = tables.read_signs(table, problems, label=label)
    tables.compare(folder, files, signs, problems)
    return tables.boxes_of(folder, files, signs, problems)


def _read_test(folder: Path, table: Path, problems: Problems, *, roi: bool) -> Split:
    signs = tables.read_signs(table, problems)
    tables.compare(folder, image_files(folder), signs, problems)
    files = list(signs)
    boxes = tables.boxes_of(folder, files, signs, problems) if roi else None
    labels = [sign.label for sign in signs.values()]
    return Split([folder / name for name in files], labels, [f"{TEST}/{name}" for name in files], boxes=boxes)


def _example(folder: Path) -> dict[str, object]:
    generator = np.random.default_rng(0)
    test_lines = [tables.HEADER]
    (folder / "GTSRB" / TEST).mkdir(parents=True)
    for label in range(len(CLASSES)):
        name = f"{label:05d}"
        training = folder / "GTSRB" / "Training" / name
        training.mkdir(parents=True)
        frames = [training / f"{track:05d}_00000.ppm" for track in range(2)]
        for image in (*frames, folder / "GTSRB" / TEST / f"{name}.ppm"):
            noise = generator.integers(0, 60, size=(14, 16, 3)) + 4 * label
            image.write_bytes(b"P6 16 14 255\n" + noise.astype(np.uint8).tobytes())
        lines = [tables.HEADER, *(f"{image.name};16;14;5;5;11;9;{label}" for image in frames)]
        (training / f"GT-{name}.csv").write_text("\n".join(lines), encoding="utf-8")
        test_lines.append(f"{name}.ppm;16;14;5;5;11;9;{label}")
    (folder / TEST_TABLE).write_text("\n".join(test_lines), encoding="utf-8")
    return {"roi": True}


gtsrb.example = _example  # type: ignore[attr-defined]  # the conformance checks look for this attribute
