"""What the terminal shows: progress on stderr, results on stdout. Colours and width are rich's affair."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from bench.progress import Progress

if TYPE_CHECKING:
    from bench.plan import Plan

__all__ = ["TerminalProgress", "duration", "print_json", "print_plan", "print_table", "stdout"]

#: The version of every --json object.
JSON_SCHEMA = 1


class TerminalProgress(Progress):
    """Bars on a terminal, plain lines elsewhere; all of it on stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._tenth = -1
        self._losses: list[float] = []

    def note(self, text: str) -> None:
        """A sentence, dimmed."""
        self._close()
        self.console.print(Text(text, style="dim"))

    def warn(self, text: str) -> None:
        """A sentence, yellow; above the bar where there is one."""
        (self._bars.console if self._bars else self.console).print(Text(f"warning: {text}", style="yellow"))

    def advance(self, what: str, done: int, total: int) -> None:
        """A bar for each task; elsewhere a line at every quarter."""
        if not self.console.is_terminal:
            if what != self._what or done * 4 // total != self._tenth:
                self.console.print(f"{what}: {done:,} of {total:,}", markup=False)
            self._what, self._tenth = what, done * 4 // total
            return
        if self._bars is None or what != self._what:
            self._open(what, total, TextColumn("{task.description}"), MofNCompleteColumn())
        assert self._bars is not None and self._task is not None  # noqa: S101, PT018  # _open has set both
        self._bars.update(self._task, completed=done)
        if done >= total:
            self._close()

    def start_training(self, *, epochs: int, steps: int, done: int, title: str) -> None:
        """The heading of the epochs' lines, and a bar over all steps."""
        self._close()
        self._epochs, self._steps, self._losses = epochs, steps, []
        heading = f"{'epoch':>9}  {'loss':>8}  {'val loss':>8}  {'val acc':>8}  {'lr':>8}  {'img/s':>7}  {'time':>6}"
        self.console.print(Text(heading, style="bold"))
        if self.console.is_terminal:
            columns = (TextColumn("epoch {task.fields[epoch]}"), TextColumn("loss {task.fields[loss]}"))
            self._open(title, epochs * steps, *columns, loss="", epoch=f"{done + 1}/{epochs}", completed=done * steps)

    def step(self, *, loss: float | None) -> None:
        """Move the bar; the loss shown is the mean of the latest steps."""
        if self._bars is None or self._task is None:
            return
        if loss is not None:
            self._losses = [*self._losses[-19:], loss]
            shown = f"{sum(self._losses) / len(self._losses):.4f}"
            self._bars.update(self._task, advance=1, loss=shown)
        else:
            self._bars.update(self._task, advance=1)

    def epoch(self, number: int, values: Mapping[str, float], *, best: bool) -> None:
        """A line: epoch, losses, accuracy (* marks the best so far), learning rate, speed, time."""
        cells = [
            f"{number}/{self._epochs}".rjust(9),
            f"{values['train_loss']:8.4f}",
            f"{values['val_loss']:8.4f}" if "val_loss" in values else " " * 8,
            f"{values['val_accuracy']:8.2%}" if "val_accuracy" in values else " " * 8,
            f"{values['lr']:8.2g}",
            f"{values['images_per_second']:7,.0f}",
            duration(values["seconds"]).rjust(6),
        ]
        console = self._bars.console if self._bars else self.console
        console.print(Text("  ".join(cells) + (" *" if best else "")))
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, epoch=f"{min(number + 1, self._epochs)}/{self._epochs}")

    def end_training(self) -> None:
        """Take the bar away."""
        self._close()

    def _open(self, what: str, total: int, *columns: Any, completed: int = 0, **fields: Any) -> None:
        self._close()
        self._bars = Bars(
            *columns,
            BarColumn(bar_width=None),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            expand=True,
        )
        self._what = what
        self._task = self._bars.add_task(what, total=total, completed=completed, **fields)
        self._bars.start()

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._task, self._what = None, None, ""


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, with the schema's version. What is no number is null: JSON has no NaN."""
    text = json.dumps({"schema": JSON_SCHEMA, **value}, ensure_ascii=False)
    finite = json.loads(text, parse_constant=lambda _: None)
    sys.stdout.write(json.dumps(finite, indent=2, ensure_ascii=False) + "\n")


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Iterable[int] = ()) -> None:
    """A plain table on stdout: no frame, columns aligned; the columns `right` are flush right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    flush = set(right)
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index in flush else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    stdout().print(table)


def print_plan(plan: Plan, open_reason: str) -> None:
    """Each derived value with its reason; values that the data decide are marked as open."""
    values = plan.as_json()
    reasons = values.pop("reasons")
    rows = []
    for name, value in values.items():
        known = value is not None and name in reasons
        rows.append((name, Text(_shown(value)) if known else Text("open", style="dim"), reasons.get(name, open_reason)))
    print_table(("key", "value", "reason"), rows)


def duration(seconds: float) -> str:
    """Seconds for people: 0.52 s, 41 s, 3:07, 1:02:45."""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.2f} s"
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        shown = ", ".join(f"{item:.4g}" if isinstance(item, float) else str(item) for item in value)
        return shown if len(value) <= 6 else f"{len(value)} values"  # noqa: PLR2004
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value != "" else "-"


def stdout() -> Console:
    """Stdout as it is now; without a terminal, lines are not wrapped at 80 columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, 160))
