"""What a run tells a person while it goes on. The library reports here; the command line draws it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Progress"]


class Progress:
    """Reports nothing. The command line's subclass draws bars and lines; a library user may pass this one."""

    def note(self, text: str) -> None:
        """A sentence about what was decided or found."""

    def warn(self, text: str) -> None:
        """Something that a person should know, said once."""

    def advance(self, what: str, done: int, total: int) -> None:
        """A part of a longer task is done, such as decoded images."""

    def start_training(self, *, epochs: int, steps: int, done: int, title: str) -> None:
        """Training starts, or goes on after `done` epochs."""

    def step(self, *, loss: float | None) -> None:
        """One training step; the loss is given from time to time."""

    def epoch(self, number: int, values: Mapping[str, float], *, best: bool) -> None:
        """An epoch is over; `best` where the monitor has improved."""

    def end_training(self) -> None:
        """Training is over, for whatever reason."""
