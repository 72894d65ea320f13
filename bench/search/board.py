"""What a search shows while it runs, on stderr: a live table on a terminal, a line a trial elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.console import duration
from bench.progress import Progress
from bench.search.pruning import curve_of
from bench.search.summary import state_of
from bench.words import shorten

if TYPE_CHECKING:
    from types import TracebackType

    from optuna.trial import FrozenTrial

    from bench.search.objectives import Objective

__all__ = ["Board", "BoardProgress"]

_LATEST = 6
_MAX_WIDTH = 100
_COLOURS = {"complete": "green", "pruned": "dim", "infeasible": "yellow", "failed": "red", "running": "cyan"}


class Board:
    """The state of a study in a few lines. Enter it, and hand it the trials whenever they have changed."""

    def __init__(
        self,
        name: str,
        objectives: Sequence[Objective],
        *,
        total: int,
        console: Console | None = None,
        silent: bool = False,
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False, quiet=silent)
        self._name, self._objectives, self._total = name, tuple(objectives), total
        self._trials: list[FrozenTrial] = []
        self._begun = time.monotonic()
        self._before: int | None = None
        self._told: set[int] = set()
        self._live = Live(get_renderable=self._draw, console=self.console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if self.console.is_terminal and self._trials:
            self.console.print(self._heading(), soft_wrap=True)

    def show(self, trials: Sequence[FrozenTrial]) -> None:
        """The trials that count, as they are now."""
        self._trials = list(trials)
        finished = {trial.number for trial in trials if trial.state.is_finished()}
        if self._before is None:
            self._before, self._told = len(finished), finished
            if finished and not self.console.is_terminal:
                self.console.print(self._heading(), soft_wrap=True)
        if not self.console.is_terminal:
            for trial in self._trials:
                if trial.number in finished - self._told:
                    self._told.add(trial.number)
                    self.console.print(self._line(trial), soft_wrap=True)

    def note(self, text: str) -> None:
        """A sentence above the table, dimmed."""
        self.console.print(Text(text, style="dim"))

    def warn(self, text: str) -> None:
        """A sentence above the table, yellow."""
        self.console.print(Text(f"warning: {text}", style="yellow"))

    def _draw(self) -> Group:
        """Heading, best, and the latest trials; never wider than the terminal."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for head, side in (("trial", "right"), ("state", "left"), *((o.metric, "right") for o in self._objectives)):
            table.add_column(head, justify="right" if side == "right" else "left", no_wrap=True)
        table.add_column("epochs", justify="right", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        table.add_column("parameters", no_wrap=True, overflow="ellipsis", ratio=1)
        begun = [trial for trial in self._trials if trial.state.name != "WAITING"]
        for trial in sorted(begun, key=_latest_last)[-_LATEST:]:
            table.add_row(*self._cells(trial))
        lines = [self._heading()]
        lines += [_cut(best, self.console.width)] if (best := self._best()) else []
        table.width = min(self.console.width, _MAX_WIDTH)
        return Group(*lines, table)

    def _heading(self) -> Text:
        counts = Counter(state_of(trial) for trial in self._trials)
        finished = sum(trial.state.is_finished() for trial in self._trials)
        parts = [f"{finished}/{self._total} trials"]
        parts += [
            f"{counts[state]} {state}" for state in ("pruned", "infeasible", "failed", "running") if counts[state]
        ]
        parts += [f"ETA {eta}"] if (eta := self._eta(finished)) else []
        return Text.assemble((shorten(self._name, 20), "bold"), "  ", ", ".join(parts))

    def _eta(self, finished: int) -> str:
        """From the rate of this call, as machines and trials differ from those of an earlier one."""
        done = finished - (self._before or 0)
        if done <= 0 or finished >= self._total:
            return ""
        return duration((time.monotonic() - self._begun) / done * (self._total - finished))

    def _best(self) -> Text | None:
        usable = [trial for trial in self._trials if state_of(trial) == "complete" and trial.values]
        if not usable:
            return None
        if len(self._objectives) > 1:
            points = [self._losses(trial) for trial in usable]
            size = len({p for p in points if not any(_dominates(q, p) for q in points)})
            ends = ", ".join(
                f"{objective.metric} {_number(best.values[place])}"
                for place, objective in enumerate(self._objectives)
                for best in [min(usable, key=lambda trial, place=place: self._losses(trial)[place])]  # type: ignore[misc]
            )
            return Text(f"front of {size}: best {ends}")
        best = min(usable, key=self._losses)
        value = _number(best.values[0])
        return Text(f"best {self._objectives[0].metric} {value} (trial {best.number}): {_parameters(best.params)}")

    def _losses(self, trial: FrozenTrial) -> tuple[float, ...]:
        pairs = zip(trial.values, self._objectives, strict=True)
        return tuple(-value if objective.direction == "maximize" else value for value, objective in pairs)

    def _cells(self, trial: FrozenTrial) -> list[Text]:
        state = state_of(trial)
        curve = curve_of(trial)
        values = [_number(value) for value in trial.values or ()] or [
            _number(curve[max(curve)]) if curve and not place else "" for place in range(len(self._objectives))
        ]
        values += [""] * (len(self._objectives) - len(values))
        cells = [str(trial.number), state, *values, str(max(curve)) if curve else "", _seconds(trial)]
        return [Text(cell, style=_COLOURS[state] if place == 1 else "") for place, cell in enumerate(cells)] + [
            Text(_parameters(trial.params), style="dim")
        ]

    def _line(self, trial: FrozenTrial) -> Text:
        """One finished trial, for a log."""
        values = ", ".join(
            f"{objective.metric} {_number(value)}"
            for objective, value in zip(self._objectives, trial.values or (), strict=False)
        )
        parts = [f"{len(self._told)}/{self._total}", f"trial {trial.number} {state_of(trial)}", values, _seconds(trial)]
        text = "  ".join(part for part in [*parts, _parameters(trial.params)] if part)
        error = trial.user_attrs.get("error")
        return Text(f"{text}\n    {error}" if error else text)


class BoardProgress(Progress):
    """What a trial reports goes to the board: warnings only, and each of them once for all trials."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._said: set[str] = set()

    def warn(self, text: str) -> None:
        """Something that a person should know."""
        if text not in self._said:
            self._said.add(text)
            self._board.warn(text)


def _latest_last(trial: FrozenTrial) -> tuple[bool, float, int]:
    ended = trial.datetime_complete
    return ended is None, ended.timestamp() if ended else 0.0, trial.number


def _seconds(trial: FrozenTrial) -> str:
    return duration(trial.duration.total_seconds()) if trial.duration else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"  # noqa: PLR2004


def _parameters(params: Mapping[str, Any]) -> str:
    """Values by the last part of their keys, which is what tells them apart for a person."""
    return " ".join(f"{name.rpartition('.')[2]}={_value(value)}" for name, value in params.items())


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else shorten(str(value), 24)


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text
