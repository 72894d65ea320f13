"""What is said about each way in which CUDA can be missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.doctor.accelerators import check_accelerators, judge_providers, judge_torch, nvidia_device, nvidia_driver
from bench.doctor.finding import Finding
from bench.doctor.probe import Probe, probe

_SEEN = {"version": "2.14.1", "cuda": "13.0", "available": False, "reason": "", "done": True}


def _judged(*, device: bool = True, driver: str = "580.1", failure: str = "", **values: Any) -> Finding:
    environment = {"CUDA_VISIBLE_DEVICES": values.pop("visible")} if "visible" in values else {}
    seen = Probe(({**_SEEN, **values},), failure)
    (found,) = judge_torch(seen, device=device, driver=driver, environment=environment)
    return found


@pytest.mark.parametrize(
    ("values", "state", "words"),
    [
        ({"device": False, "driver": ""}, "ok", "no NVIDIA GPU in this machine"),
        ({"version": "2.14.1+cpu", "cuda": None}, "problem", "built for the CPU"),
        ({"driver": ""}, "problem", "its driver is not loaded"),
        ({"visible": ""}, "warning", "CUDA_VISIBLE_DEVICES"),
        ({"reason": "The NVIDIA driver on your system is too old (found version 11040)"}, "problem", "is too old for"),
        ({"reason": "no CUDA-capable device is detected"}, "problem", "shows no device"),
        ({"failure": "RuntimeError: no kernel image is available"}, "problem", "no kernels for this GPU"),
        ({"reason": "something else"}, "problem", "something else"),
    ],
)
def test_why_there_is_no_cuda(values: dict[str, Any], state: str, words: str) -> None:
    found = _judged(**values)
    assert found.state == state
    assert words in found.text
    assert bool(found.remedy) == (state != "ok")


def test_a_gpu_that_works_is_named() -> None:
    seen = {**_SEEN, "available": True, "count": 2, "capability": "sm_90", "free": 70 * 2**30, "total": 80 * 2**30}
    (found,) = judge_torch(Probe(({**seen, "device": "NVIDIA H100"},), ""), device=True, driver="580.1", environment={})
    assert (found.state, found.text[:11]) == ("ok", "NVIDIA H100")
    assert "70 of 80 GiB free" in found.text
    assert "and 1 more" in found.text


def test_torch_and_torchvision_that_do_not_fit_are_one_line_and_a_remedy() -> None:
    broken = "RuntimeError: operator torchvision::nms does not exist"
    seen = Probe(({**_SEEN, "torchvision": broken},), "")
    found = judge_torch(seen, device=False, driver="", environment={})
    assert [one.state for one in found] == ["problem", "ok"]
    assert found[0].text == "torch and torchvision do not fit each other"
    assert found[0].remedy == "pip install --force-reinstall torch torchvision"


def test_a_torch_that_is_missing_is_a_warning_as_predicting_needs_none() -> None:
    seen = Probe((), "ModuleNotFoundError: No module named 'torch'")
    (found,) = judge_torch(seen, device=False, driver="", environment={})
    assert found.state == "warning"
    assert "pip install torch" in found.remedy


@pytest.mark.parametrize("lines", [(), ({"version": "2.14.1", "cuda": None},)])
def test_an_import_that_crashes_is_a_finding(lines: tuple[dict[str, Any], ...]) -> None:
    (found,) = judge_torch(Probe(lines, "the process crashed (SIGSEGV)"), device=False, driver="", environment={})
    assert found.state == "problem"
    assert "SIGSEGV" in found.text


@pytest.mark.parametrize(
    ("values", "device", "state", "words"),
    [
        ({"providers": ["CPUExecutionProvider"]}, False, "ok", "providers: CPU"),
        ({"providers": ["CPUExecutionProvider"]}, True, "warning", "cannot use the GPU"),
        ({"providers": ["CUDAExecutionProvider"], "loaded": True}, True, "ok", "CUDA loads"),
        ({"providers": ["CUDAExecutionProvider"], "loaded": False}, True, "warning", "libcudnn.so.9"),
    ],
)
def test_providers(values: dict[str, Any], device: bool, state: str, words: str) -> None:
    stderr = "[E:onnxruntime] Error: Failed to load: libcudnn.so.9: cannot open shared object file\n"
    (found,) = judge_providers(Probe(({"version": "1.31.1", **values},), "", stderr), device=device)
    assert found.state == state
    assert words in found.text


def test_an_onnxruntime_that_cannot_be_imported() -> None:
    (found,) = judge_providers(probe("import onnxruntime_of_nobody"), device=False)
    assert found.state == "problem"
    assert "onnxruntime_of_nobody" in found.text


def test_devices_and_drivers_are_read_from_the_system(tmp_path: Path) -> None:
    for name, vendor, kind in (("a", "0x8086", "0x030000"), ("b", "0x10de", "0x040300")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(vendor + "\n")
        (tmp_path / name / "class").write_text(kind + "\n")
    (tmp_path / "c").mkdir()
    assert not nvidia_device(tmp_path)
    (tmp_path / "b" / "class").write_text("0x030200\n")
    assert nvidia_device(tmp_path)
    assert nvidia_driver(tmp_path / "none") == ""
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.105.08  Release\n")
    assert nvidia_driver(tmp_path / "version") == "580.105.08"


@pytest.mark.slow
def test_here_torch_and_onnxruntime_can_be_imported() -> None:
    found = {one.name: one for one in check_accelerators(timeout_s=300)}
    assert "problem" not in {one.state for one in found.values()}, json.dumps([one.as_json() for one in found.values()])
    assert {"CUDA", "onnxruntime"} <= set(found)
