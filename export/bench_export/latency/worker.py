"""A candidate's own process: `python -m bench_export.latency.worker ort|torch`. It answers one JSON line with another.

It imports only its own runtime, and between requests it waits for a line, without using the processor.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from bench_export.latency.loadgen import System

__all__ = ["main"]


def main() -> None:
    """Serve until standard input ends, which is also how a killed parent takes its candidates along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    out = _own_output()
    try:
        _import_runtime(sys.argv[1])
    except ImportError as cause:
        _send(
            out,
            {"error": f"its runtime cannot be imported: {cause}", "hint": "install it, or leave it out of --against"},
        )
        return
    _send(out, {"ready": True})
    subject: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] == "open":
                subject = _Subject(request)
                _send(out, subject.opened)
            else:
                _send(out, subject.answer(request))
        except Exception as error:  # noqa: BLE001  # whatever it is, the parent says it
            from bench.errors import BenchError

            if not isinstance(error, BenchError):
                import traceback

                traceback.print_exc()
            _send(out, {"error": str(error) or repr(error), "hint": getattr(error, "hint", None)})


class _Subject:
    """The opened candidate: its systems by measure."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        from bench_export.latency import samples
        from bench_export.latency.subjects import open_subject

        encoded = samples.read(Path(request["samples"]))
        tempfile.tempdir = request["samples"]  # LoadGen's logs go with the samples, also where this process is killed
        self._opened = open_subject(request["candidate"], encoded)
        self.systems: dict[str, System] = self._opened.systems
        self.opened = self._opened.facts

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if request["op"] == "block":
            return self._block(request)
        if request["op"] == "warm":
            return _warm(self.systems, request["seconds"], request["many"])
        assert request["op"] == "usage"  # noqa: S101  # the parent knows no other
        return {"cpu_s": time.process_time(), "peak_memory_mb": _peak_memory_mb()}

    def _block(self, request: Mapping[str, Any]) -> dict[str, Any]:
        import numpy as np

        from bench_export.latency import loadgen

        started = time.perf_counter()
        block = loadgen.run(self.systems[request["measure"]], loadgen.Demand(**request["demand"]))
        np.save(request["path"], block.latencies_ns)
        return {
            "num_samples": block.num_samples,
            "samples_per_second": block.samples_per_second,
            "results": block.results,
            "summary": block.summary,
            "seconds": time.perf_counter() - started,
        }


def _warm(systems: Mapping[str, System], seconds: float, many: int) -> dict[str, dict[str, float]]:
    """Run each system for a while; the median and the shortest time of an answer to `many` samples in ns, by measure."""
    times_of: dict[str, dict[str, float]] = {"median": {}, "shortest": {}}
    for measure, system in systems.items():
        call = _caller(system, many)
        system.one(0)  # both ways into the model: what compiles or allocates does so now
        system.many([0] * min(2, many))
        times: list[int] = []
        end = time.perf_counter() + seconds
        while len(times) < 5 or time.perf_counter() < end:  # noqa: PLR2004  # a median of fewer says little
            start = time.perf_counter_ns()
            call(len(times))
            times.append(time.perf_counter_ns() - start)
        times_of["median"][measure] = float(sorted(times)[len(times) // 2])
        times_of["shortest"][measure] = float(min(times))
    return times_of


def _caller(system: System, many: int) -> Callable[[int], object]:
    if many == 1:
        return lambda number: system.one(number % system.num_samples)
    several: list[Sequence[int]] = [
        [(start + step) % system.num_samples for step in range(many)] for start in range(system.num_samples)
    ]
    return lambda number: system.many(several[number % system.num_samples])


def _import_runtime(runtime: str) -> None:
    """The import is part of the process's start, and is timed with it."""
    import numpy as np  # noqa: F401

    if runtime == "ort":
        import onnxruntime  # noqa: F401
    else:
        import torch  # noqa: F401


def _own_output() -> TextIO:
    """Standard output for the answers alone: whatever else is printed goes to standard error."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def _send(out: TextIO, values: Mapping[str, Any]) -> None:
    out.write(json.dumps(values) + "\n")
    out.flush()


def _peak_memory_mb() -> float:
    """The most memory that the process ever had resident, in MB (10^6 bytes)."""
    status = Path("/proc/self/status")  # getrusage's figure begins with the parent's, from before the exec
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


if __name__ == "__main__":
    main()
