"""Servers of toy models, each in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from serving_process import running  # found beside this file
from wire import encoded


@pytest.fixture(scope="session")
def models(toy_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A classifier of red, green and blue, and a verifier of colours."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "classes": toy_models.classifier(folder / "colours.onnx"),
        "pairs": toy_models.verifier(folder / "pairs.onnx"),
    }


@pytest.fixture(scope="module")
def server(models: dict[str, Path]) -> Iterator[int]:
    """The port of a server of the classifier, with low limits."""
    with running(models["classes"], "--max-megabytes", "1", "--max-megapixels", "4") as (port, _program):
        yield port


@pytest.fixture(scope="module")
def pair_server(models: dict[str, Path]) -> Iterator[int]:
    """The port of a server of the verifier."""
    with running(models["pairs"]) as (port, _program):
        yield port


@pytest.fixture(scope="session")
def colours() -> dict[str, bytes]:
    """red, green and blue PNGs."""
    return {name: encoded(Image.new("RGB", (40, 30), name)) for name in ("red", "lime", "blue")}
