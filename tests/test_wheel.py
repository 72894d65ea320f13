"""What is shipped: the wheel's contents, and a plugin of somebody else's, really installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from configparser import ConfigParser
from email import message_from_string
from pathlib import Path

import pytest

import bench

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "bench_plugins", "bench_export")
OFFLINE = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")


def run(*command: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    run("pip", "wheel", *OFFLINE, "--wheel-dir", str(folder), str(ROOT), folder=folder)
    [built] = folder.glob("*.whl")
    assert built.name == f"visionbench-{bench.__version__}-py3-none-any.whl"
    return zipfile.ZipFile(built)


def test_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {*PACKAGES, f"visionbench-{bench.__version__}.dist-info"}


def test_every_module_is_in_it(wheel: zipfile.ZipFile) -> None:
    homes = {"bench": ROOT, "bench_plugins": ROOT / "plugins", "bench_export": ROOT / "export"}
    for package, home in homes.items():
        modules = {file.relative_to(home).as_posix() for file in (home / package).rglob("*.py")}
        assert modules <= set(wheel.namelist())
        assert f"{package}/py.typed" in wheel.namelist()
    assert not [name for name in wheel.namelist() if "__pycache__" in name or name.endswith(".pyc")]


def test_metadata_entry_points_and_licence(wheel: zipfile.ZipFile) -> None:
    info = f"visionbench-{bench.__version__}.dist-info"
    metadata = message_from_string(wheel.read(f"{info}/METADATA").decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "# visionbench" in str(metadata.get_payload())
    points = ConfigParser()
    points.read_string(wheel.read(f"{info}/entry_points.txt").decode())
    assert points["console_scripts"]["bench"] == "bench.cli:main"
    assert {"bench.models", "bench.datasets", "bench.augmentations"} <= set(points.sections())
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


# Somebody else's plugin


@pytest.fixture(scope="module")
def toy_plugin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a program that sees tests/packages/toy_plugin installed."""
    folder = tmp_path_factory.mktemp("toy")
    source = ROOT / "tests" / "packages" / "toy_plugin"
    run("pip", "install", *OFFLINE, "--target", str(folder), str(source), folder=folder)
    return {"PYTHONPATH": str(folder)}


def test_an_installed_plugin_is_listed(toy_plugin: dict[str, str], tmp_path: Path) -> None:
    listing = run("bench", "plugins", folder=tmp_path, environment=toy_plugin)
    assert "toy " in listing
    assert "(toy-plugin 0.1.0)" in listing
    options = run("bench", "plugins", "models/toy", folder=tmp_path, environment=toy_plugin)
    assert "width" in options


def test_an_installed_plugin_passes_the_checks(toy_plugin: dict[str, str], tmp_path: Path) -> None:
    told = run("bench", "plugins", "models/toy", "--check", folder=tmp_path, environment=toy_plugin)
    assert told.startswith("passed  models/toy")


def test_its_author_tests_it_in_two_lines(toy_plugin: dict[str, str], tmp_path: Path) -> None:
    test = 'from bench.testing import conformance_test\n\ntest_conformance = conformance_test("toy-plugin")\n'
    (tmp_path / "test_toy_plugin.py").write_text(test, encoding="utf-8")
    told = run("pytest", "-q", "-p", "no:cacheprovider", folder=tmp_path, environment=toy_plugin)
    assert "passed" in told
    assert "failed" not in told


def test_a_recipe_trains_it(toy_plugin: dict[str, str], tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "quickstart.toml"
    changes = ("--set", "model.name=toy", "--set", "model.width=8", "--set", "train.epochs=1")
    told = run("bench", "run", str(recipe), *changes, folder=tmp_path, environment=toy_plugin)
    assert "recorded in" in told
