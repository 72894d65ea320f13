"""Answers of a model, one image or pair at a time, in the order in which they were asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.parallel import Report
    from bench_export.predictor import Predictor

__all__ = ["Answer", "answers", "printable", "shown_path"]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What became of one image or pair: probabilities K and a guess, or the reason why there are none."""

    paths: tuple[Path, ...]
    probabilities: NDArray[np.float32]
    guess: int
    reason: str | None = None

    def best(self, count: int) -> list[int]:
        """The classes of the highest probabilities, best first; the guess always leads."""
        order = np.argsort(-self.probabilities, kind="stable").tolist()
        return [self.guess, *(label for label in order if label != self.guess)][:count]


def answers(
    predictor: Predictor, items: Sequence[Any], *, batch_size: int, report: Report | None = None
) -> Iterator[Answer]:
    """The answers to paths, of pairs to tuples of two paths; decoding goes on while the session runs."""
    done = 0
    for part in predictor.stream(items, batch_size=batch_size):
        for position, probabilities in enumerate(part.probabilities):
            item = items[done + position]
            paths = item if isinstance(item, tuple) else (item,)
            yield Answer(paths, probabilities, int(part.guesses[position]), part.errors.get(position))
        done += len(part.guesses)
        if report is not None:
            report(done, len(items))


def shown_path(path: Path) -> str:
    """A path that can be printed, whatever bytes are in it."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def printable(path: Path) -> str:
    """The same on one line of a terminal: what would end the line, or steer the terminal, is written as an escape."""
    shown = shown_path(path)
    return shown if shown.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
