"""bench serve in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["running"]

_PROGRAM = """
import sys
from pathlib import Path
from bench_export.commands.serve import serve
from bench.errors import BenchError
try:
    serve(sys.argv[1:], standalone_mode=False)
except BenchError as error:
    sys.exit(f"{error} / {error.hint}")
"""


@contextmanager
def running(model: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server's port and process; what it writes to stderr must be nothing but what the test expects."""
    command = [sys.executable, "-W", "error", "-c", _PROGRAM, str(model), "--port", "0", *options]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        assert program.stderr is not None
        line = next((line for line in program.stdout if " is at http" in line), None)
        assert line is not None, program.stderr.read()
        yield int(line.partition(" (")[0].rpartition(":")[2]), program
    finally:
        if program.poll() is None:
            program.send_signal(signal.SIGINT)
        output, errors = program.communicate(timeout=30)
    assert program.returncode == 0, output + errors
    assert "Traceback" not in errors, errors
