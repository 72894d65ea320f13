"""Errors that a person can act on. The command line turns each into one red line, a hint and its exit code."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "BenchError",
    "DataError",
    "GateError",
    "Interrupted",
    "PluginError",
    "RecipeError",
    "Unsupported",
]


class BenchError(Exception):
    """The run failed. `hint` says what to do about it; exit code 1."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class DataError(BenchError):
    """A dataset is missing, incomplete or holds what cannot be used; exit code 1."""


class RecipeError(BenchError):
    """A recipe or a command was used wrongly; carries every problem that was found. Exit code 2."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None, problems: Sequence[str] = ()) -> None:
        super().__init__("\n  ".join([message, *problems]), hint=hint)
        self.problems = tuple(problems)


class PluginError(BenchError):
    """A plugin cannot be imported, breaks its contract, or shares its name with another; exit code 3."""

    exit_code = 3


class Unsupported(PluginError):
    """Raised by a plugin that declines a configuration. The message is the reason that is shown."""


class GateError(BenchError):
    """A gate on accuracy, parity or latency was missed; exit code 4."""

    exit_code = 4


class Interrupted(BenchError):
    """A person or the system asked the run to stop; exit code 130."""

    exit_code = 130
