"""The processor, memory, and the clock."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from bench.doctor.finding import Finding, ok, warning

__all__ = ["check_clock", "check_machine", "cpu_quota"]

_LEAST_MEMORY_GB = 2.0
_MOST_SKEW_S = 5.0

#: No run was recorded before this program was written.
_EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)

_GIB = 2**30


def check_machine(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Cores and instruction sets, threads, memory, and how busy the machine is."""
    import psutil

    from bench.environment import processor

    name, flags = processor()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or allowed
    sets = ", ".join(flag for flag in flags) or "neither AVX2 nor better"
    findings = [ok("processor", f"{name}: {allowed} usable threads of {physical} cores; {sets}")]
    findings += [*_threads(allowed, environment), *_quota(allowed), *_load(allowed)]
    memory = psutil.virtual_memory()
    free, total = memory.available / _GIB, memory.total / _GIB
    text = f"{free:.1f} of {total:.1f} GiB free"
    if free < _LEAST_MEMORY_GB:
        remedy = "end other programs, or set data.memory_gb lower"
        return [*findings, warning("memory", text, remedy)]
    return [*findings, ok("memory", text)]


def _threads(allowed: int, environment: Mapping[str, str]) -> Iterator[Finding]:
    given = environment.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given) > allowed:
        text = f"OMP_NUM_THREADS={given}, but only {allowed} are usable: they wait for each other"
        yield warning("threads", text, "unset OMP_NUM_THREADS; compute.threads in a recipe says how many")


def _quota(allowed: int) -> Iterator[Finding]:
    quota = cpu_quota()
    if quota is not None and quota < allowed:
        text = f"the container may use {quota:g} of {allowed} cores' time"
        yield warning("threads", text, f"set compute.threads = {max(1, int(quota))}, or raise the container's limit")


def cpu_quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """How many cores' time a control group allows; None where there is no limit."""
    try:
        quota, period = file.read_text(encoding="ascii").split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _load(allowed: int) -> Iterator[Finding]:
    if hasattr(os, "getloadavg") and (busy := os.getloadavg()[0]) > allowed:
        text = f"{busy:.1f} processes compete for {allowed} threads: times measured now say little"
        yield warning("load", text, "wait, or end other programs, before bench latency")


def check_clock(folder: Path, *, now: datetime | None = None, least: datetime | None = None) -> list[Finding]:
    """Whether the clock can be right, and the file system's agrees; runs are sorted and mirrored by both.

    `folder` is where runs are recorded, `least` the time of the latest one.
    """
    now = now or datetime.now(UTC)
    least = max(_EARLIEST, least or _EARLIEST)
    if now < least:
        text = f"it says {now:%Y-%m-%d %H:%M} UTC, but there is a run of {least:%Y-%m-%d %H:%M}"
        return [warning("clock", text, "set the clock: timedatectl set-ntp true")]
    skew = _skew_s(folder)
    if skew is not None and abs(skew) > _MOST_SKEW_S:
        text = f"the file system of {folder} is {skew:+.0f} s away from this machine"
        return [warning("clock", text, "set both clocks, or record runs on a local disk (BENCH_RUNS)")]
    return [ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")]


def _skew_s(folder: Path) -> float | None:
    """The file system's time less this machine's, in seconds; None where nothing can be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder if folder.is_dir() else None, prefix=".doctor-") as file:
            file.write(b"1")
            file.flush()
            return Path(file.name).stat().st_mtime - time.time()
    except OSError:
        return None
