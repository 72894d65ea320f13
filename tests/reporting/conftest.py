"""Real runs of toy sets: classes whose names are HTML, and pairs of persons, both trained in seconds."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import run
from bench.progress import Progress
from bench.recipe import parse
from bench.record import Run
from bench.reporting.report import Written, write_report

#: What a page must not take for its own.
CLASSES = ("</script><script>alert(1)</script>", "<b>bold</b> & \"quoted\" 'name'", "plain")

CLASSES_RECIPE = """
experiment = "toys"
{seeds}
[dataset]
name = "image_csv"
root = "toys"
group_column = "track"
[data]
size = 12
test = 0.35
validation = 0.2
[model]
name = "linear"
[[augment]]
name = "horizontal_flip"
[train]
epochs = 2
batch_size = 32
[optimizer]
name = "adam"
lr = 1e-3
[compute]
precision = "fp32"
memory_format = "contiguous"
threads = 1
"""

PAIRS_RECIPE = """
experiment = "persons"
[dataset]
name = "lfw_pairs"
root = "persons"
[data]
size = 16
channels = 1
validation = 0.0
[model]
name = "siamese"
embedding = [8]
[[model.blocks]]
channels = 4
kernel = 3
pool = 2
batch_norm = true
[train]
epochs = 1
batch_size = 8
loss = "bce"
monitor = "train_loss"
keep = "last"
[compute]
precision = "fp32"
memory_format = "contiguous"
threads = 1
"""


def _draw_classes(folder: Path) -> None:
    """Noisy patches in the hue of their class, every fifth in that of the next; sizes and brightness vary."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = [("path", "label", "track")]
    for number in range(240):
        label = number % 3
        hue = (label + (number % 5 == 0)) % 3
        side = (14, 20, 33)[number % 7 % 3]
        pixels = random.integers(0, 90, (side, side + 4, 3))
        pixels[..., hue] += 30 + 100 * (number % 4) // 3
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")
        rows.append((f"{number:03d}.png", CLASSES[label], f"track {number // 6}"))
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def _draw_persons(folder: Path) -> None:
    """Photographs of persons who differ in brightness, with LFW's lists of pairs."""
    random = np.random.default_rng(1)
    for name, persons in (("pairsDevTrain.txt", range(12)), ("pairsDevTest.txt", range(12, 24))):
        for person in persons:
            place = folder / "lfw" / f"Person_{person}"
            place.mkdir(parents=True)
            for number in (1, 2, 3):
                pixels = (10 * person + random.integers(0, 25, size=(16, 16))).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"Person_{person}_{number:04d}.jpg")
        same = [f"Person_{person}\t1\t2" for person in persons]
        different = [f"Person_{person}\t1\tPerson_{persons[at - 1]}\t3" for at, person in enumerate(persons)]
        (folder / name).write_text("\n".join([str(len(persons)), *same, *different]), encoding="utf-8")


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data in `data`, and two finished runs in `runs`: toys and persons."""
    home = tmp_path_factory.mktemp("reporting")
    _draw_classes(home / "data" / "toys")
    _draw_persons(home / "data" / "persons")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_DATA", str(home / "data"))
        patch.setenv("BENCH_RUNS", str(home / "runs"))
        patch.setenv("BENCH_CACHE", str(home / "cache"))
        patch.setenv("BENCH_TRACKING", "off")
        for text in (CLASSES_RECIPE.format(seeds="seeds = [0, 1]"), PAIRS_RECIPE):
            run.run(parse(text, path=Path("toy_recipe.toml")), progress=Progress())
    return home


@pytest.fixture(scope="session")
def toy_report(toys: Path) -> tuple[Run, Written, str]:
    """The first run of the toy classes, what was written of it, and the page; not to be changed."""
    run = Run(min(path for path in (toys / "runs" / "toys").iterdir() if path.is_dir()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_DATA", str(toys / "data"))
        patch.setenv("BENCH_CACHE", str(toys / "cache"))
        written = write_report(str(run.folder), output=toys / "report.html", progress=Progress())
    return run, written, written.path.read_text(encoding="utf-8")


@pytest.fixture
def here(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data are to be found, and a copy of all runs, which a test may change, is the folder of runs."""
    shutil.copytree(toys / "runs", tmp_path / "runs")
    monkeypatch.setenv("BENCH_DATA", str(toys / "data"))
    monkeypatch.setenv("BENCH_CACHE", str(toys / "cache"))
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def class_names() -> tuple[str, ...]:
    """The toy classes, in label order."""
    return tuple(sorted(CLASSES))


@pytest.fixture
def runs(here: Path) -> list[Run]:
    """The runs of the toy classes, seed 0 and seed 1."""
    return [Run(path) for path in sorted((here / "runs" / "toys").iterdir()) if path.is_dir()]


@pytest.fixture
def pairs_run(here: Path) -> Run:
    """The run of the pairs."""
    [folder] = [path for path in (here / "runs" / "persons").iterdir() if path.is_dir()]
    return Run(folder)


@pytest.fixture
def report(here: Path) -> Callable[..., tuple[Written, str]]:
    """Called with a name (and `split`), gives what was written and the page."""

    def make(name: str, **options: str) -> tuple[Written, str]:
        written = write_report(name, output=here / "report.html", progress=Progress(), **options)  # type: ignore[arg-type]
        return written, written.path.read_text(encoding="utf-8")

    return make
