"""What a result depends on besides the recipe: versions, hardware, git."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Machine", "describe", "detect", "git_state", "load", "peak_memory_gb", "processor", "versions"]

#: Distributions whose versions can change a result.
_RECORDED = ("visionbench", "torch", "torchvision", "timm", "numpy", "pillow", "onnx", "onnxruntime-gpu", "onnxruntime",
             "optuna", "mlflow", "scikit-learn", "torchmetrics")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan needs to know of the hardware."""

    cores: int
    cpu: str
    cpu_flags: tuple[str, ...]
    gpu: str
    memory_gb: float


def detect() -> Machine:
    """Look at this machine. `cores` counts the physical ones that this process may use; imports torch for the GPU."""
    import psutil
    import torch

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(allowed, psutil.cpu_count(logical=False) or allowed)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    name, flags = processor()
    return Machine(cores, name, flags, gpu, round(psutil.virtual_memory().total / 2**30, 1))


def describe(machine: Machine) -> dict[str, Any]:
    """Everything that is recorded of the environment, as plain values."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "machine": {**asdict(machine), "cpu_flags": list(machine.cpu_flags)},
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def versions() -> dict[str, str]:
    """Distribution -> version of everything installed that can change a result."""
    found = {}
    for name in _RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any]:
    """Commit and cleanliness of the repository that holds `folder`; {} where there is none or no git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "dirty": dirty}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()  # noqa: S603  # fixed words


def processor() -> tuple[str, tuple[str, ...]]:
    """The processor's name and those of its instruction sets that decide about precision."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), ()
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(values.get("flags", values.get("Features", "")).split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16")
    return values.get("model name", platform.machine()), tuple(flag for flag in wanted if flag in flags)


def load(device: str) -> dict[str, float]:
    """How busy the machine is now, under the names of MLflow's system metrics (percent, MiB)."""
    import psutil

    values = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": psutil.Process().memory_info().rss / 2**20,
    }
    if device.startswith("cuda"):
        import torch

        values["system/gpu_0_memory_usage_megabytes"] = torch.cuda.max_memory_allocated(device) / 2**20
    return values


def peak_memory_gb(device: str) -> float:
    """The most memory in 10^9 bytes that this process has held: the GPU's where it trains there, otherwise its own.

    Several seeds of one process share the figure. NaN where the system does not tell.
    """
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.max_memory_allocated(device)) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
