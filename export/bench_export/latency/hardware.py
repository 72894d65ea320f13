"""What a latency was measured on: processor, cores, quota, memory, GPU, versions. What is hidden is None."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from bench.environment import processor

__all__ = ["cgroup_file", "gpu", "machine", "read_text", "usable_cores"]

_CPU = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")

#: Instruction sets that decide how fast a network runs.
_SETS = ("avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8",
         "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve")  # fmt: skip

#: Distributions whose versions can change a latency.
_RECORDED = ("visionbench", "onnxruntime-gpu", "onnxruntime", "mlcommons-loadgen", "numpy", "pillow", "torch")

_GPU_FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "memory_mb": "memory.total",
    "power_w": "power.draw",
    "power_limit_w": "power.limit",
    "clock_mhz": "clocks.current.sm",
    "clock_max_mhz": "clocks.max.sm",
    "memory_clock_mhz": "clocks.current.memory",
    "temperature_c": "temperature.gpu",
    "busy_percent": "utilization.gpu",
    "persistence": "persistence_mode",
}


def machine() -> dict[str, Any]:
    """The machine and the versions, as plain values; memory in GiB, clocks in MHz, the quota in cores."""
    import psutil

    usable = usable_cores()
    return {
        "host": platform.node() or None,
        "cpu": processor()[0],
        "instruction_sets": _instruction_sets(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(),
        "cores_usable": len(usable),
        "cores": usable,
        "cpu_quota": _cpu_quota(),
        "threads_per_core": _threads_per_core(),
        "virtual": "hypervisor" in _cpu_info("flags").split() if _cpu_info("flags") else None,
        "governor": read_text(_CPU / "cpu0/cpufreq/scaling_governor"),
        "turbo": _turbo(),
        "clock_max_mhz": _clock_max(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "os": _os_name(),
        "kernel": platform.release(),
        "gpu": gpu(),
        "versions": _versions(),
    }


def read_text(path: Path) -> str | None:
    """A small file of /proc or /sys; None where it is absent, empty or not ours to read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def usable_cores() -> list[int]:
    """The logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cgroup_file(*names: str) -> list[Path]:
    """The first of `names` that exists in this process's control group and in each one above it, innermost first."""
    places: list[Path] = []
    for line in (read_text(Path("/proc/self/cgroup")) or "").splitlines():
        _, controllers, inner = line.split(":", 2)
        root = _CGROUP / controllers if controllers else _CGROUP
        if controllers and "cpu" not in controllers.split(","):
            continue
        folder = root / inner.strip("/")
        places += [folder, *(parent for parent in folder.parents if parent == root or root in parent.parents)]
    found = ([folder / name for name in names if (folder / name).is_file()] for folder in places)
    return [paths[0] for paths in found if paths]


def gpu() -> dict[str, Any] | None:
    """The first GPU that nvidia-smi sees, with its clocks now (MHz), power (W) and temperature; None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = f"--query-gpu={','.join(_GPU_FIELDS.values())}"
    command = [program, query, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603  # fixed words
    except (OSError, subprocess.SubprocessError):
        return None
    cells = [cell.strip() for cell in answer.stdout.partition("\n")[0].split(",")]
    if len(cells) != len(_GPU_FIELDS):
        return None
    return {name: _number(cell) for name, cell in zip(_GPU_FIELDS, cells, strict=True)}


def _number(cell: str) -> float | str | None:
    if not cell or cell.startswith("["):  # [N/A], [Not Supported]
        return None
    try:
        return float(cell)
    except ValueError:
        return cell


def _cpu_info(key: str) -> str:
    for line in (read_text(Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _instruction_sets() -> list[str]:
    flags = set((_cpu_info("flags") or _cpu_info("Features")).split())
    return [name for name in _SETS if name in flags]


def _cpu_quota() -> float | None:
    """How many cores' worth of time the control groups allow; None where there is no limit."""
    quotas = []
    for path in cgroup_file("cpu.max", "cpu.cfs_quota_us"):
        text = read_text(path) or ""
        if path.name == "cpu.cfs_quota_us":
            text += f" {read_text(path.with_name('cpu.cfs_period_us')) or 100_000}"
        quota, _, period = text.partition(" ")
        if re.fullmatch(r"\d+", quota) and re.fullmatch(r"\d+", period) and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _threads_per_core() -> int | None:
    """2 where hyper-threading is on; read from the core's siblings, as "0,64" or "0-1"."""
    siblings = read_text(_CPU / "cpu0/topology/thread_siblings_list")
    if siblings is None:
        return None
    bounds = [[int(end) for end in part.split("-")] for part in siblings.split(",")]
    return sum(part[-1] - part[0] + 1 for part in bounds)


def _turbo() -> bool | None:
    """Whether the clock may rise above its base; Intel's and the generic driver say it in opposite ways."""
    if (off := read_text(_CPU / "intel_pstate/no_turbo")) is not None:
        return off == "0"
    boost = read_text(_CPU / "cpufreq/boost")
    return None if boost is None else boost == "1"


def _clock_max() -> float | None:
    highest = read_text(_CPU / "cpu0/cpufreq/cpuinfo_max_freq")
    return float(highest) / 1000 if highest and highest.isdigit() else None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return f"{platform.system()} {platform.release()}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
