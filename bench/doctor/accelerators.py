"""CUDA as PyTorch and ONNX Runtime see it, and why not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.doctor.finding import Finding, ok, problem, warning
from bench.doctor.probe import Probe, probe

__all__ = ["check_accelerators", "judge_providers", "judge_torch", "nvidia_device", "nvidia_driver"]

_TORCH = """
import json, torch
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}))
try:
    import torchvision
except Exception as error:
    print(json.dumps({"torchvision": f"{type(error).__name__}: {error}"[:300]}))
reason = ""
if torch.version.cuda:
    try:
        torch.cuda.init()
    except Exception as error:
        reason = str(error)
print(json.dumps({"available": torch.cuda.is_available(), "reason": reason}))
if torch.cuda.is_available():
    torch.ones(1, device="cuda").add(1).item()
    free, total = torch.cuda.mem_get_info(0)
    print(json.dumps({"device": torch.cuda.get_device_name(0), "count": torch.cuda.device_count(),
                      "capability": "sm_%d%d" % torch.cuda.get_device_capability(0), "free": free, "total": total}))
print(json.dumps({"done": True}))
"""

_PROVIDERS = """
import json, onnxruntime as ort
found = ort.get_available_providers()
print(json.dumps({"version": ort.__version__, "providers": found}))
if "CUDAExecutionProvider" in found and "cuda" in __import__("sys").argv[1:]:
    from onnx import TensorProto, helper
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
    print(json.dumps({"loaded": "CUDAExecutionProvider" in session.get_providers()}))
"""

_REINSTALL = "pip install --force-reinstall torch torchvision"


def check_accelerators(*, timeout_s: float = 60.0) -> list[Finding]:
    """PyTorch's view and ONNX Runtime's, each from a process of its own."""
    device, driver = nvidia_device(), nvidia_driver()
    seen = probe(_TORCH, timeout_s=timeout_s)
    arguments = ["cuda"] if device or driver else []
    return [
        *judge_torch(seen, device=device, driver=driver, environment=os.environ),
        *judge_providers(probe(_PROVIDERS, *arguments, timeout_s=timeout_s), device=device or bool(driver)),
    ]


def nvidia_device(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether an NVIDIA display or compute device stands on the PCI bus, with a driver or without."""
    for folder in devices.glob("*"):
        try:
            vendor, kind = ((folder / name).read_text(encoding="ascii").strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == "0x10de" and kind.startswith("0x03"):
            return True
    return False


def nvidia_driver(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The kernel driver's version; "" where none is loaded."""
    try:
        words = file.read_text(encoding="utf-8").partition("\n")[0].split()
    except OSError:
        return ""
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")


def judge_torch(seen: Probe, *, device: bool, driver: str, environment: Mapping[str, str]) -> list[Finding]:
    """From what a process saw that imported torch and torchvision; `device` and `driver` are the machine's."""
    values, findings = seen.values, []
    if "version" not in values:
        missing = "No module named 'torch'" in seen.failure
        remedy = "pip install torch torchvision" if missing else _REINSTALL
        state = warning if missing else problem
        return [state("torch", f"cannot be imported: {seen.failure}", f"{remedy} (predicting and serving need none)")]
    if broken := values.get("torchvision"):
        mixed = "torchvision::nms" in broken
        text = "torch and torchvision do not fit each other" if mixed else f"torchvision cannot be imported: {broken}"
        findings.append(problem("torchvision", text, _REINSTALL))
    elif "available" not in values:
        text = f"importing torch or torchvision ends badly: {seen.failure}"
        return [*findings, problem("torch", text, _REINSTALL)]
    return [*findings, _cuda(values, seen.failure, device=device, driver=driver, environment=environment)]


def _cuda(
    values: Mapping[str, Any], failure: str, *, device: bool, driver: str, environment: Mapping[str, str]
) -> Finding:
    built = f"torch {values['version']}"
    if "device" in values:
        memory = f"{values['free'] / 2**30:.0f} of {values['total'] / 2**30:.0f} GiB free"
        many = f" and {values['count'] - 1} more" if values["count"] > 1 else ""
        return ok("CUDA", f"{values['device']}{many}, {memory}; {built}, CUDA {values['cuda']}, driver {driver}")
    if not device and not driver:
        return ok("CUDA", f"no NVIDIA GPU in this machine; {built} computes on the CPU")
    if values["cuda"] is None:
        remedy = "pip install --force-reinstall torch torchvision (wheels with CUDA)"
        return problem("CUDA", f"there is an NVIDIA GPU, but {built} is built for the CPU", remedy)
    if not driver:
        text = "there is an NVIDIA GPU, but its driver is not loaded"
        return problem("CUDA", text, "install NVIDIA's driver, then look at nvidia-smi")
    if environment.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return warning("CUDA", "the GPU is hidden by CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES")
    return _unusable(values, failure, driver)


def _unusable(values: Mapping[str, Any], failure: str, driver: str) -> Finding:
    """A GPU and a driver, and still no CUDA."""
    reason = str(values.get("reason") or failure)
    built = f"torch {values['version']} for CUDA {values['cuda']}"
    if "too old" in reason or "insufficient" in reason:
        text = f"the driver {driver} is too old for {built}"
        return problem("CUDA", text, "update NVIDIA's driver, or install a torch for an older CUDA")
    if "no kernel image" in reason:
        return problem("CUDA", f"{built} has no kernels for this GPU", "install another torch: pytorch.org lists them")
    if "no CUDA-capable device" in reason or "No CUDA GPUs" in reason:
        text = f"the driver {driver} is loaded, but shows no device to this process"
        return problem("CUDA", text, "in a container, start it with --gpus all; else look at nvidia-smi")
    return problem("CUDA", f"{built} cannot use the GPU: {reason or 'no reason given'}", "look at nvidia-smi")


def judge_providers(seen: Probe, *, device: bool) -> list[Finding]:
    """From what a process saw that imported onnxruntime and, where there is a GPU, opened a session on it."""
    values = seen.values
    if "providers" not in values:
        text = f"cannot be imported: {seen.failure or 'it has no providers'}"
        return [problem("onnxruntime", text, "pip install --force-reinstall onnxruntime-gpu")]
    names = ", ".join(name.removesuffix("ExecutionProvider") for name in values["providers"])
    text = f"{values['version']}, providers: {names}"
    if not device:
        return [ok("onnxruntime", text)]
    if "CUDAExecutionProvider" not in values["providers"]:
        remedy = "pip uninstall -y onnxruntime, then pip install onnxruntime-gpu"
        return [warning("onnxruntime", f"{text}: it cannot use the GPU", remedy)]
    if not values.get("loaded"):
        errors = [line for line in seen.stderr.splitlines() if "rror" in line]
        why = (errors[-1] if errors else seen.failure)[-200:]
        remedy = "install the CUDA and cuDNN that it needs: pip install 'onnxruntime-gpu[cuda,cudnn]'"
        return [warning("onnxruntime", f"{text}; the CUDA provider does not load: {why}", remedy)]
    return [ok("onnxruntime", f"{text}; CUDA loads")]
