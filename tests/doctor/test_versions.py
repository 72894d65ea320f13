"""Versions that do not fit each other, as fake distributions in front of the real ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.doctor.finding import Finding
from bench.doctor.versions import built_for, check_versions

Plant = Callable[..., Path]


def _problems() -> dict[str, Finding]:
    return {one.name: one for one in check_versions() if one.state != "ok"}


def test_this_installation_fits_together() -> None:
    assert _problems() == {}
    shown = {one.name: one.text for one in check_versions()}
    assert shown["python"].startswith(".".join(map(str, sys.version_info[:2])))
    assert "torch" in shown["versions"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the ordinary wheels are for the CPU")
def test_torch_for_the_cpu_beside_torchvision_for_cuda(plant: Plant) -> None:
    plant("torch", "2.99.0+cpu")
    plant("torchvision", "0.99.0")
    found = _problems()["torch/torchvision"]
    assert found.state == "problem"
    assert "2.99.0+cpu (cpu)" in found.text
    assert found.remedy == "pip install --force-reinstall torch torchvision"


def test_two_versions_of_cuda(plant: Plant) -> None:
    plant("torch", "2.99.0+cu130")
    plant("torchvision", "0.99.0+cu126")
    assert "cu126" in _problems()["torch/torchvision"].text


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the ordinary wheels are for the CPU")
def test_a_tagged_torch_beside_an_ordinary_torchvision_may_fit(plant: Plant) -> None:
    plant("torch", "2.99.0+cu130")
    plant("torchvision", "0.99.0")
    assert "torch/torchvision" not in _problems()


def test_what_torchvision_asks_of_torch(plant: Plant) -> None:
    plant("torch", "2.99.0")
    plant("torchvision", "0.20.0", requires=("numpy", "torch==2.13.0"))
    found = _problems()["torch/torchvision"]
    assert found.text == "torchvision 0.20.0 needs torch ==2.13.0, but 2.99.0 is installed"


def test_both_onnxruntimes_at_once(plant: Plant) -> None:
    plant("onnxruntime", "1.30.0")
    found = _problems()["onnxruntime"]
    assert found.state == "problem"
    assert "uninstall -y onnxruntime onnxruntime-gpu" in found.remedy


def test_numpy_1_is_too_old(plant: Plant) -> None:
    plant("numpy", "1.26.4")
    found = _problems()["numpy"]
    assert (found.state, found.remedy) == ("problem", "pip install 'numpy>=2.0'")
    assert "1.26.4 is installed" in found.text


def test_a_version_above_the_upper_bound(plant: Plant) -> None:
    plant("mlflow", "4.0.0")
    assert "4.0.0 is installed, <4,>=3.13 is needed" in _problems()["mlflow"].text


def test_a_library_that_is_missing_and_a_python_that_is_too_old(plant: Plant) -> None:
    asked = ("a-library-that-nobody-has>=1", "another-one; extra == 'postgres'", "win; sys_platform == 'win33'")
    plant("visionbench", "0.1.0", requires=asked, python=">=3.99")
    found = _problems()
    assert set(found) == {"python", "a-library-that-nobody-has"}
    assert ">=3.99 is needed" in found["python"].text
    assert found["a-library-that-nobody-has"].remedy == "pip install a-library-that-nobody-has"


def test_one_onnxruntime_stands_for_the_other(plant: Plant) -> None:
    plant("visionbench", "0.1.0", requires=("onnxruntime>=1",))
    assert "onnxruntime" not in _problems()


def test_metadata_without_a_version_count_as_missing(plant: Plant) -> None:
    site = plant("visionbench", "0.1.0", requires=("torn>=1",))
    folder = site / "torn-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: torn\n")
    assert _problems()["torn"].text == "is not installed"


@pytest.mark.parametrize(
    ("version", "tag"), [("2.13.0+cpu", "cpu"), ("2.14.1+cu130", "cu130"), ("2.14.0+cu130.gitabc", "cu130")]
)
def test_what_a_wheel_is_built_for(version: str, tag: str) -> None:
    assert built_for(version) == tag
