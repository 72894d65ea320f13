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
from bench.statistics import mean_interval

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.record import Run

__all__ = ["TerminalProgress", "duration", "print_json", "print_plan", "print_result", "print_runs", "print_table"]

#: The version of every --json object.
JSON_SCHEMA = 1

_STATUS_STYLES = {"finished": "green", "running": "cyan", "interrupted": "yellow", "failed": "red"}


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
    """One JSON object on stdout, with the schema's version."""
    sys.stdout.write(json.dumps({"schema": JSON_SCHEMA, **value}, indent=2, ensure_ascii=False) + "\n")


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Iterable[int] = ()) -> None:
    """A plain table on stdout: no frame, columns aligned; the columns `right` are flush right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    flush = set(right)
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index in flush else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    _stdout().print(table)


def print_plan(plan: Plan, open_reason: str) -> None:
    """Each derived value with its reason; values that the data decide are marked as open."""
    values = plan.as_json()
    reasons = values.pop("reasons")
    rows = []
    for name, value in values.items():
        known = value is not None and name in reasons
        rows.append((name, Text(_shown(value)) if known else Text("open", style="dim"), reasons.get(name, open_reason)))
    print_table(("key", "value", "reason"), rows)


def print_result(runs: Sequence[Run], tracking: str) -> None:
    """The final metrics of each run with intervals, and where they are recorded."""
    infos = [run.info() for run in runs]
    metrics = [info.get("metrics", {}) for info in infos]
    console = _stdout()
    if len(runs) == 1:
        _print_splits(metrics[0])
    else:
        _print_seeds(infos, metrics)
    seconds = sum(values["train_seconds"] for values in metrics)
    epochs = ", ".join(f"{values['epochs']:.0f}" for values in metrics)
    speed = metrics[0]["images_per_second"]
    console.print(f"trained {epochs} epochs in {duration(seconds)} ({speed:,.0f} img/s)", highlight=False)
    for run in runs:
        console.print(Text(f"recorded in {run.folder}"), soft_wrap=True)
    shown = "off" if tracking == "off" else f"{tracking} (bench ui opens it)"
    console.print(Text(f"MLflow: {shown}"), soft_wrap=True)


def print_runs(runs: Iterable[Run]) -> None:
    """A line a run."""
    rows = []
    for run in runs:
        info = run.info()
        values = info.get("metrics", {})
        split = "test" if "test_accuracy" in values else "val"
        accuracy = _with_interval(values, split) if f"{split}_accuracy" in values else ""
        status = Text(run.status(), style=_STATUS_STYLES.get(run.status(), ""))
        time = duration(values["train_seconds"]) if "train_seconds" in values else ""
        rows.append((info["experiment"], run.name, status, accuracy, time))
    print_table(("experiment", "run", "status", "accuracy [95 %]", "train"), rows, right=(4,))


def duration(seconds: float) -> str:
    """Seconds for people: 0.52 s, 41 s, 3:07, 1:02:45."""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.2f} s"
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _print_splits(metrics: Mapping[str, float]) -> None:
    splits = [
        (prefix, name) for prefix, name in (("test", "test"), ("val", "validation")) if f"{prefix}_loss" in metrics
    ]
    names = {
        "balanced_accuracy": "balanced accuracy",
        "macro_f1": "macro F1",
        "auroc": "AUROC",
        "log_loss": "log loss",
        "ece": "calibration error",
    }
    rows = [("accuracy [95 %]", *(_with_interval(metrics, prefix) for prefix, _ in splits))]
    for key, name in names.items():
        rows.append((name, *(_number(metrics.get(f"{prefix}_{key}")) for prefix, _ in splits)))
    print_table(("", *(name for _, name in splits)), rows)


def _print_seeds(infos: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, float]]) -> None:
    prefixes = [prefix for prefix in ("test", "val") if f"{prefix}_accuracy" in metrics[0]]
    rows: list[list[str]] = []
    for info, values in zip(infos, metrics, strict=True):
        rows.append([str(info["seed"]), *(_with_interval(values, p) for p in prefixes), f"{values['epochs']:.0f}"])
    summary = ["mean"]
    for prefix in prefixes:
        mean, low, high = mean_interval([values[f"{prefix}_accuracy"] for values in metrics])
        summary.append(f"{mean:.2%} [{low:.2%}, {min(high, 1):.2%}]")
    rows.append([*summary, ""])
    print_table(("seed", *(f"{prefix} accuracy [95 %]" for prefix in prefixes), "epochs"), rows)


def _with_interval(metrics: Mapping[str, float], prefix: str) -> str:
    low, high = metrics[f"{prefix}_accuracy_low"], metrics[f"{prefix}_accuracy_high"]
    return f"{metrics[f'{prefix}_accuracy']:.2%} [{low:.2%}, {high:.2%}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        shown = ", ".join(f"{item:.4g}" if isinstance(item, float) else str(item) for item in value)
        return shown if len(value) <= 6 else f"{len(value)} values"  # noqa: PLR2004
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value != "" else "-"


def _stdout() -> Console:
    """Stdout as it is now; without a terminal, lines are not wrapped at 80 columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, 160))
