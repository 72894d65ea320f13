"""The parent's end of a candidate's process: start it, ask it, end it."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.progress import Progress
    from bench_export.latency.candidates import Candidate

__all__ = ["Process", "cold_start"]

_LAST_LINES = 8
_PATIENCE_S = 2.0


class Process:
    """A running worker. `start_ms` is the time from its start until its runtime was imported."""

    def __init__(self, name: str, runtime: str) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        command = [sys.executable, "-m", "bench_export.latency.worker", "ort" if runtime == "ort" else "torch"]
        started = time.perf_counter()
        self._process = subprocess.Popen(  # noqa: S603  # our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True, encoding="utf-8"
        )
        try:
            self._receive()
        except BaseException:
            self.close()
            raise
        self.start_ms = 1e3 * (time.perf_counter() - started)

    @property
    def identity(self) -> int:
        """The operating system's number of the process."""
        return self._process.pid

    def ask(self, op: str, **values: Any) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises BenchError with the worker's words, or its last lines."""
        assert self._process.stdin is not None  # noqa: S101  # Popen was given a pipe
        try:
            self._process.stdin.write(json.dumps({"op": op, **values}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        return self._receive()

    def close(self) -> None:
        """End it, by force where it does not end itself."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        self._process.kill()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close() if kind is None else self.kill()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101  # Popen was given a pipe
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.name}: {answer['error']}", hint=answer.get("hint"))
        return answer

    def _died(self) -> BenchError:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()[-_LAST_LINES:]
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return BenchError("\n  ".join([f"{self.name}: its process died ({how})", *lines]))


def cold_start(candidate: Candidate, samples: Path, count: int, progress: Progress) -> dict[str, float]:
    """Medians over fresh processes: until the runtime is imported, the session is open, the first answer is there."""
    times: dict[str, list[float]] = {"process_ms": [], "session_ms": [], "first_run_ms": []}
    for number in range(count):
        progress.advance(f"cold starts of {candidate.name}", number, count)
        with Process(candidate.name, candidate.runtime) as process:
            facts = process.ask("open", candidate=candidate.as_json(), samples=str(samples))
            for name, value in {"process_ms": process.start_ms, **facts}.items():
                if name in times:
                    times[name].append(value)
    progress.advance(f"cold starts of {candidate.name}", count, count)
    return {name: statistics.median(values) for name, values in times.items()}
