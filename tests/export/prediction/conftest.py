"""Pictures of one colour, models that know colours, and the program as a person runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from bench.cli import main

COLOURS = {"red": (220, 20, 20), "green": (10, 200, 30), "blue": (0, 0, 255)}


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str


@pytest.fixture
def run_bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    def run(*arguments: object) -> Told:
        monkeypatch.setattr("sys.argv", ["bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Told(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """red.png and green.jpg in a folder, blue.png in a folder below, and a text that is no image."""
    folder = tmp_path / "photos"
    paint(folder / "red.png", COLOURS["red"])
    paint(folder / "green.jpg", COLOURS["green"])
    paint(folder / "below" / "blue.png", COLOURS["blue"])
    (folder / "notes.md").write_text("no image", encoding="utf-8")
    return folder


@pytest.fixture
def bad_photos(photos: Path) -> Path:
    """The same with what goes wrong: an empty file, a torn JPEG, a web page."""
    (photos / "empty.png").touch()
    whole = (photos / "green.jpg").read_bytes()
    (photos / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "page.gif").write_text("<html>404</html>", encoding="utf-8")
    return photos


@pytest.fixture
def colours(tmp_path: Path, toy_models: ModuleType) -> Path:
    made: Path = toy_models.classifier(tmp_path / "colours.onnx")
    return made


@pytest.fixture
def pairs(tmp_path: Path, toy_models: ModuleType) -> Path:
    made: Path = toy_models.verifier(tmp_path / "pairs.onnx")
    return made


def paint(path: Path, colour: Sequence[int], *, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(colour)).save(path)
    return path
