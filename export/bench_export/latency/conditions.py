"""The conditions of a measurement: the machine, its load before and during, clocks, throttling and energy.

All of it is read from counters of the kernel; what a container hides is None, and nothing here ever raises for it.
Shares of the processor are percent of the whole machine: 100 is every core busy.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from typing import Any, Self

from bench_export.latency import counters
from bench_export.latency.counters import Counters, clocks_mhz, shares
from bench_export.latency.hardware import gpu, machine

__all__ = ["Watch", "energy", "energy_source", "machine", "now"]

#: How long `now` looks, and how often the watch does: a look costs well below a millisecond.
_LOOK_S, _EVERY_S = 0.5, 1.0

#: From here on, what others take or the hypervisor steals can move a percentile.
_DISTURBING_PERCENT = 3.0
_MOST_NAMED = 3
_CLOCK_DROP = 0.1


def now() -> dict[str, Any]:
    """The load and the clocks at this moment, from half a second's look; temperatures in degrees Celsius."""
    import psutil

    watched = {process.pid: process for process in psutil.process_iter()}
    tree = counters.tree()
    before_each = {pid: used for pid, process in watched.items() if (used := _used(process)) is not None}
    before, start = counters.read(), time.perf_counter()
    time.sleep(_LOOK_S)
    after, passed_s = counters.read(), time.perf_counter() - start
    busiest: list[dict[str, Any]] = []
    for pid, earlier in before_each.items():
        used = _used(watched[pid])
        percent = 100 * ((used or earlier) - earlier) / passed_s
        if pid not in tree and percent >= _DISTURBING_PERCENT:
            busiest.append({"name": _name(watched[pid]), "percent_of_a_core": round(percent, 1)})
    busiest.sort(key=lambda entry: entry["percent_of_a_core"], reverse=True)
    return {
        **shares(before, after),
        "load_average": counters.load_average(),
        "busiest": busiest[:_MOST_NAMED],
        "clock_mhz": counters.middle(clocks_mhz()),
        "temperature_c": counters.temperature_c(),
        "memory_free_gb": round(psutil.virtual_memory().available / 2**30, 1),
        "gpu": gpu(),
    }


class Watch:
    """Follows the machine while something is timed: counters at both ends, and one light look a second.

    Its own process and all its descendants count as the measurement; everything else is "others".
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._looks: list[tuple[Counters, list[float]]] = []
        self._seconds = 0.0
        self._ends: tuple[Counters, Counters] | None = None

    def __enter__(self) -> Self:
        self._began, self._first = time.perf_counter(), counters.read()
        self._thread = threading.Thread(target=self._look, name="conditions", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = (self._first, counters.read())
        self._seconds = time.perf_counter() - self._began
        self._stop.set()
        self._thread.join()

    def summary(self) -> dict[str, Any]:
        """Shares, clocks (MHz, of the fastest core), counts, and `disturbances`: sentences, none where it was quiet."""
        first, last = self._ends or (self._first, counters.read())
        clocks = sorted(max(found) for _, found in self._looks if found)  # of the fastest core: the others may idle
        states = [first, *(state for state, _ in self._looks)]  # the rest is too short for a share
        worst = [shares(a, b)["others_percent"] for a, b in itertools.pairwise(states)]
        values: dict[str, Any] = {
            "seconds": round(self._seconds or time.perf_counter() - self._began, 2),
            **shares(first, last),
            "others_percent_worst_second": max((share for share in worst if share is not None), default=None),
            "clock_mhz": _spread(clocks) if clocks else None,
            "context_switches": _less(last.switches, first.switches),
            "throttled_periods": _less(last.throttled, first.throttled),
            "throttled_s": _less(last.throttled_s, first.throttled_s),
            "temperature_c": counters.temperature_c(),
        }
        return {**values, "disturbances": _disturbances(values)}

    def _look(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._looks.append((counters.read(), clocks_mhz()))


def energy() -> float | None:
    """Joules that the processor's packages (or, where these are hidden, the GPU) have used since some moment.

    Only differences mean anything. A counter that wraps is followed as long as it is read every few minutes.
    """
    found = counters.rapl_joules()
    return counters.gpu_joules() if found is None else found


def energy_source() -> tuple[str | None, str]:
    """("rapl", "nvml" or None, why): where `energy` reads, or why it cannot."""
    packages = counters.rapl()
    if packages and all(os.access(path, os.R_OK) for path in packages):
        return "rapl", f"{len(packages)} processor packages, by RAPL"
    if counters.gpu_joules() is not None:
        return "nvml", "the GPU's own counter"
    if packages:
        return None, "the system lets only root read RAPL's counters"
    return None, "the system shows no energy counter (no RAPL in /sys/class/powercap, no GPU that counts)"


def _disturbances(values: dict[str, Any]) -> list[str]:
    found = []
    if (values["others_percent"] or 0) >= _DISTURBING_PERCENT:
        found.append(f"other processes took {values['others_percent']:.0f} % of the CPU")
    elif (values["others_percent_worst_second"] or 0) >= 10 * _DISTURBING_PERCENT:
        found.append(f"other processes took {values['others_percent_worst_second']:.0f} % of the CPU for a second")
    if (values["steal_percent"] or 0) >= 1:
        found.append(f"the hypervisor took away {values['steal_percent']:.1f} % of the CPU (steal)")
    if values["throttled_periods"]:
        found.append(f"the control group's CPU quota stopped the processes {values['throttled_periods']:,} times")
    clock = values["clock_mhz"]
    if clock and clock["tenth"] < (1 - _CLOCK_DROP) * clock["median"]:
        found.append(f"the clock fell from {clock['median']:,.0f} to {clock['tenth']:,.0f} MHz for a tenth of the time")
    return found


def _used(process: Any) -> float | None:
    import psutil

    try:
        times = process.cpu_times()
    except (psutil.Error, OSError):
        return None
    return float(times.user + times.system)


def _name(process: Any) -> str:
    import psutil

    try:
        return str(process.name())
    except (psutil.Error, OSError):
        return "?"


def _spread(clocks: list[float]) -> dict[str, float | None]:
    """Of ordered clocks: the lowest, the one that a tenth stays below, the median and the highest."""
    return {"min": clocks[0], "tenth": clocks[len(clocks) // 10], "median": counters.middle(clocks), "max": clocks[-1]}


def _less(last: float | None, first: float | None) -> float | None:
    return None if last is None or first is None else last - first
