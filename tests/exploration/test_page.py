"""The page and the terminal: self-contained, escaped, small enough, and within 80 columns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.errors import DataError
from bench.exploration.command import show
from bench.exploration.doctor import examine
from bench.exploration.page import render
from bench.exploration.summary import summarise
from bench.exploration.survey import survey
from bench.kinds import PAIR_CLASSES, Dataset, Split
from bench.progress import Progress
from bench.recipe import Recipe

Texture = Callable[[int], Image.Image]
Recipes = Callable[..., Recipe]

AUGMENTED = '[[augment]]\nname = "horizontal_flip"\n[[augment]]\nname = "affine"\n'
NASTY = "<script>alert('x')</script> & \"co\" [bold]"


class Reader(HTMLParser):
    """Collects sources, checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


@pytest.fixture
def photos(tmp_path: Path, texture: Texture) -> Path:
    """Two classes with names of spaces and signs, a leak, an unreadable file."""
    for split in ("train", "test"):
        for offset, name in enumerate(("not a cat & more", "[red]<b>cat")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(6):
                texture(number + 10 * offset + 100 * (split == "test")).save(folder / f"a photo {number}.jpg")
    texture(0).save(tmp_path / "photos" / "test" / "not a cat & more" / f"{'long ' * 15}name.jpg")
    (tmp_path / "photos" / "train" / "[red]<b>cat" / "broken.jpg").write_bytes(b"")
    return tmp_path / "photos"


def test_the_page_needs_nothing_but_itself(tmp_path: Path, photos: Path, folder_recipe: Recipes) -> None:
    target = tmp_path / "page.html"
    show(folder_recipe(photos, rest=AUGMENTED), html=target, as_json=False, progress=Progress())
    page = target.read_text(encoding="utf-8")
    reader = read(page)
    assert reader.sources
    assert all(source.startswith("data:image/webp;base64,") for source in reader.sources)
    assert not {"script", "link", "iframe"} & reader.tags
    assert "url(" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("Augmentations") == 1


def test_names_are_escaped(tmp_path: Path, photos: Path, folder_recipe: Recipes) -> None:
    target = tmp_path / "page.html"
    show(folder_recipe(photos), html=target, as_json=False, progress=Progress())
    page = target.read_text(encoding="utf-8")
    assert "[red]&lt;b&gt;cat" in page
    assert "<b>cat" not in page
    assert "not a cat &amp; more" in page


def test_nothing_that_is_printed_is_wider_than_80_columns_but_file_names(
    photos: Path,
    folder_recipe: Recipes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show(folder_recipe(photos), html=tmp_path / "page.html", as_json=False, progress=Progress())
    printed = capsys.readouterr().out
    wide = [line for line in printed.splitlines() if len(line.rstrip()) > 80]
    assert all(".jpg" in line or line.startswith("page: ") for line in wide)
    assert "[red]<b>cat" in printed
    assert "error: 1 image that stands in more than one split" in printed
    assert "train/[red]<b>cat/broken.jpg: empty file" in printed


def test_json_holds_everything(
    photos: Path, folder_recipe: Recipes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(folder_recipe(photos), html=tmp_path / "page.html", as_json=True, progress=Progress())
    values = json.loads(capsys.readouterr().out)
    assert values["schema"] == 1
    assert values["splits"]["test"]["classes"] == {"[red]<b>cat": 6, "not a cat & more": 7}
    assert values["images"]["readable"] == values["images"]["count"] - 1
    assert [finding["key"] for finding in values["findings"]] == ["exact_leaks", "unreadable"]
    assert Path(values["page"]).is_file()


def test_the_page_goes_into_the_current_folder_unless_named(
    photos: Path, folder_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    show(folder_recipe(photos), html=None, as_json=True, progress=Progress())
    assert (tmp_path / "data_toy.html").is_file()


def test_a_page_that_cannot_be_written_is_an_error_with_a_hint(
    photos: Path, folder_recipe: Recipes, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written") as caught:
        show(folder_recipe(photos), html=tmp_path / "file" / "page.html", as_json=True, progress=Progress())
    assert caught.value.hint is not None
    assert "--html" in caught.value.hint


def test_pairs_stand_side_by_side(texture: Texture, folder_recipe: Recipes, tmp_path: Path) -> None:
    images = np.stack([np.asarray(texture(seed)) for seed in range(8)])
    groups = ["ann", "ann", NASTY, NASTY, "cleo", "cleo", "dan", "dan"]
    pairs = np.array([[0, 1], [2, 3], [4, 6], [5, 7], [4, 5]])
    split = Split(images, [1, 1, 0, 0, 1], groups=groups, pairs=pairs)
    seen = survey(Dataset(PAIR_CLASSES, {"train": split}, task="verification"), tmp_path)
    summary = summarise(seen, None)
    page = render(folder_recipe(tmp_path), seen, summary, examine(seen, (32, 32), Progress()))
    reader = read(page)
    assert page.count("<figure>") == 5
    assert "script" not in reader.tags
    assert "Images per identity, train" in page
    assert summary["splits"]["train"]["classes"] == {"different": 2, "same": 3}


def test_a_page_of_many_classes_stays_small(folder_recipe: Recipes, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (43 * 12, 96, 96, 3), dtype=np.uint8)  # noise: nothing compresses worse
    labels = np.arange(len(images)) % 43
    seen = survey(Dataset(tuple(f"class {n}" for n in range(43)), {"train": Split(images, labels)}), tmp_path)
    page = render(folder_recipe(tmp_path), seen, summarise(seen, None), ())
    assert len(page.encode()) < 5_000_000
    assert len(re.findall(r"<h3>class \d+</h3>", page)) == 43
