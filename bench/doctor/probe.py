"""Imports that may crash or hang, in a process of their own: what becomes of it is a finding, not the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Probe", "probe"]

_ERROR_LENGTH = 300

#: Lines that frameworks write on loading, and that say nothing about the failure.
_NOISE = ("Traceback", "  ", "warnings.warn")


@dataclass(frozen=True, slots=True)
class Probe:
    """What a probe printed, a JSON object a line, and how it ended: `failure` is "" where it came to its end."""

    lines: tuple[dict[str, Any], ...]
    failure: str
    stderr: str = ""

    @property
    def values(self) -> dict[str, Any]:
        """All lines as one object."""
        return {key: value for line in self.lines for key, value in line.items()}


def probe(code: str, *arguments: str, timeout_s: float = 60.0) -> Probe:
    """Run Python code with this process's module path, apart from the current folder."""
    paths = [path for path in sys.path if path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1", "PYTHONFAULTHANDLER": "0"}
    command: Sequence[str] = [sys.executable, "-c", code, *arguments]
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter and code
            command, capture_output=True, timeout=timeout_s, env=environment, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired as late:
        return Probe(_lines(late.stdout), f"no end within {timeout_s:g} s", _text(late.stderr))
    except OSError as cause:
        return Probe((), f"cannot be started: {cause}")
    error = _text(done.stderr)
    return Probe(_lines(done.stdout), _failure(done.returncode, error), error)


def _failure(code: int, error: str) -> str:
    if code == 0:
        return ""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"the process crashed ({name})"
    lines = [line.strip() for line in error.splitlines() if line.strip() and not line.startswith(_NOISE)]
    return lines[-1][:_ERROR_LENGTH] if lines else f"exit code {code}"


def _lines(output: bytes | None) -> tuple[dict[str, Any], ...]:
    """The JSON objects among what was printed; libraries may print as well."""
    found = []
    for line in _text(output).splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return tuple(found)


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")
