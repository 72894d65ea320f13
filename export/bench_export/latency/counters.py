"""The kernel's counters that a watch compares: processor time, clocks, throttling, temperature, energy."""

from __future__ import annotations

import ctypes
import functools
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_export.latency.hardware import cgroup_file, read_text, usable_cores

__all__ = [
    "Counters",
    "clocks_mhz",
    "gpu_joules",
    "load_average",
    "middle",
    "rapl",
    "rapl_joules",
    "read",
    "shares",
    "temperature_c",
    "tree",
]

_CPU = Path("/sys/devices/system/cpu")
_RAPL = Path("/sys/class/powercap")
_MOST_CLOCKS = 32

#: Path -> (microjoules, what its counter has lost by wrapping).
_last_readings: dict[Path, tuple[int, int]] = {}


@dataclass(frozen=True, slots=True)
class Counters:
    """Seconds of the processor since the machine started, and counts."""

    total: float
    busy: float
    steal: float
    own: float
    switches: int | None
    throttled: int | None
    throttled_s: float | None


def read() -> Counters:
    """All of them, now; about a millisecond."""
    import psutil

    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # The kernel counts a guest's time as user time too.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    steal = getattr(times, "steal", 0.0)
    throttled, throttled_s = _throttling()
    return Counters(total, total - idle - steal, steal, _own(), _switches(), throttled, throttled_s)


def shares(before: Counters, after: Counters) -> dict[str, float | None]:
    """How much of the machine was busy, and for whom, in percent; None where no time has passed."""
    passed = after.total - before.total
    if passed <= 0:
        return dict.fromkeys(("busy_percent", "own_percent", "others_percent", "steal_percent"))
    busy, own = after.busy - before.busy, after.own - before.own
    shares = {"busy": busy, "own": own, "others": max(0.0, busy - own), "steal": after.steal - before.steal}
    return {f"{name}_percent": round(min(100.0, 100 * value / passed), 1) for name, value in shares.items()}


def tree() -> set[int]:
    """The ids of this process and all its descendants."""
    found, pending = set(), [os.getpid()]
    while pending:
        pid = pending.pop()
        found.add(pid)
        pending += [child for child in _children(pid) if child not in found]
    return found


def _children(pid: int) -> list[int]:
    """Of all of a process's threads; to ask the kernel for them is far cheaper than to search every process."""
    tasks = list(Path(f"/proc/{pid}/task").glob("*/children"))
    if tasks:
        return [int(child) for task in tasks for child in (read_text(task) or "").split()]
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def _own() -> float:
    """Seconds of the processor that this process, its descendants and those it has waited for have used."""
    import psutil

    used = 0.0
    for pid in tree():
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        used += times.user + times.system + times.children_user + times.children_system
    return used


def _switches() -> int | None:
    for line in (read_text(Path("/proc/stat")) or "").splitlines():
        if line.startswith("ctxt "):
            return int(line.split()[1])
    return None


def _throttling() -> tuple[int | None, float | None]:
    """(periods, seconds) in which the control group's quota held its processes back; the innermost group counts."""
    for path in cgroup_file("cpu.stat")[:1]:
        pairs = (line.split() for line in (read_text(path) or "").splitlines())
        values = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}  # noqa: PLR2004  # a name and a count
        seconds = values["throttled_usec"] / 1e6 if "throttled_usec" in values else None
        if "throttled_time" in values:  # the first version of control groups, in ns
            seconds = values["throttled_time"] / 1e9
        return values.get("nr_throttled"), seconds
    return None, None


def clocks_mhz() -> list[float]:
    """The clocks of up to 32 cores that this process may use, now, in MHz; empty where they are hidden."""
    found = []
    for core in usable_cores()[:_MOST_CLOCKS]:
        reading = read_text(_CPU / f"cpu{core}/cpufreq/scaling_cur_freq")
        if reading and reading.isdigit():
            found.append(int(reading) / 1000)
    return found or _clocks_of_cpuinfo()


def _clocks_of_cpuinfo() -> list[float]:
    wanted, core, found = set(usable_cores()[:_MOST_CLOCKS]), -1, []
    for line in (read_text(Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "processor":
            core = int(value)
        elif name.strip() == "cpu MHz" and core in wanted:
            found.append(float(value))
    return found


def temperature_c() -> float | None:
    """The hottest sensor of the processor, in degrees Celsius."""
    import psutil

    try:
        sensors = psutil.sensors_temperatures()
    except (AttributeError, OSError):  # not on this system
        return None
    named = [entries for name, entries in sensors.items() if name in {"coretemp", "k10temp", "zenpower", "cpu_thermal"}]
    readings = [entry.current for entries in named or sensors.values() for entry in entries if entry.current]
    return float(max(readings)) if readings else None


def load_average() -> list[float] | None:
    """Processes that ran or waited, over 1, 5 and 15 minutes."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return None


def rapl() -> list[Path]:
    """The energy counters of the processor's packages, microjoules; the zones within a package are part of it."""
    return sorted(path / "energy_uj" for path in _RAPL.glob("*-rapl:?") if (path / "energy_uj").exists())


def rapl_joules() -> float | None:
    """The packages' counters together, in joules, also over their wrapping; None where one of them cannot be read."""
    paths, total = rapl(), 0
    for path in paths:
        reading = read_text(path)
        if reading is None or not reading.isdigit():
            return None
        earlier, wrapped = _last_readings.get(path, (0, 0))
        if int(reading) < earlier:
            wrapped += int(read_text(path.with_name("max_energy_range_uj")) or 0)
        _last_readings[path] = (int(reading), wrapped)
        total += int(reading) + wrapped
    return total / 1e6 if paths else None


def gpu_joules() -> float | None:
    """What the first GPU has used since its driver was loaded (NVML, from Volta on); None where it does not count."""
    library = _nvml()
    if library is None:
        return None
    device, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    if library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)):
        return None
    if library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules)):
        return None
    return millijoules.value / 1000


@functools.cache
def _nvml() -> ctypes.CDLL | None:
    """NVIDIA's management library, opened once; it comes with the driver."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        return None if library.nvmlInit_v2() else library
    except (OSError, AttributeError):
        return None


def middle(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return statistics.median(values) if values else None
