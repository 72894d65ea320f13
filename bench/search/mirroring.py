"""MLflow kept up to date by a process of its own: beside a trial of a second, a thread would take a tenth of it.

`python -m bench.search.mirroring` reads the folders of runs from its standard input, a line each, and ends with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench.progress import Progress
from bench.record import Run
from bench.tracking import OFF, Mirror, tracking_uri

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["MirrorProcess"]

#: Training goes first where there are no more cores than workers.
_NICENESS = 10


class MirrorProcess:
    """Does for a search what `bench.tracking.Mirror` does for a run; training shares no interpreter with it.

    The process starts with the first run. It outlives a kill of this one, finishes what it was told, and ends.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._process: subprocess.Popen[str] | None = None
        self._warned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def watch(self, run: Run) -> None:
        """A run has changed. Returns at once."""
        if tracking_uri() == OFF:
            return
        if self._process is None:
            self._process = _start()
        assert self._process.stdin is not None  # noqa: S101  # it was made with a pipe
        try:
            self._process.stdin.write(f"{run.folder}\n")
            self._process.stdin.flush()
        except OSError:
            self._warn("its process has ended")

    def close(self, *, run_done_timeout_s: float = 120.0) -> None:
        """Wait until MLflow has everything, but no longer than this."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            said, _ = process.communicate(timeout=run_done_timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self._warn(f"it has not taken everything within {run_done_timeout_s:g} s")
            return
        for line in said.splitlines():
            self._progress.warn(line)
        if process.returncode:
            self._warn("its process has ended")

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self._progress.warn(f"MLflow is not up to date ({why}). Nothing is lost: bench sync fills it in later")


class _Said(Progress):
    """Hands warnings to the process that asked."""

    def warn(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")


def _start() -> subprocess.Popen[str]:
    """A session of its own: Ctrl-C is for the search, which then closes the pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.search.mirroring"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _main() -> None:
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    with Mirror(_Said()) as mirror:
        for line in sys.stdin:
            mirror.watch(Run(Path(line.rstrip("\n"))))


if __name__ == "__main__":
    _main()
