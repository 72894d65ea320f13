"""Results of runs as tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from bench.console import duration, print_table, stdout
from bench.group import summarise

if TYPE_CHECKING:
    from bench.record import Run

__all__ = ["print_result", "print_runs"]

_WORTH_A_LINE_S = 0.1

_METRIC_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "eer": "equal error rate",
    "tar_at_far_0.01": "TAR at FAR 1e-2",
    "tar_at_far_0.001": "TAR at FAR 1e-3",
    "log_loss": "log loss",
    "ece": "calibration error",
}

_STATUS_STYLES = {"finished": "green", "running": "cyan", "interrupted": "yellow", "failed": "red"}


def print_result(runs: Sequence[Run], tracking: str) -> None:
    """The final metrics of each run with intervals, and where they are recorded."""
    infos = [run.info() for run in runs]
    metrics = [info.get("metrics", {}) for info in infos]
    console = stdout()
    if len(runs) == 1:
        _print_splits(metrics[0])
    else:
        _print_group(infos, metrics)
    seconds = sum(values["train_seconds"] for values in metrics)
    fitted = sum(values.get("fit_seconds", 0.0) for values in metrics)
    epochs = ", ".join(f"{values['epochs']:.0f}" for values in metrics)
    speed = metrics[0]["images_per_second"]
    if seconds:
        console.print(f"trained {epochs} epochs in {duration(seconds)} ({speed:,.0f} img/s)", highlight=False)
    if peak := max(values.get("peak_memory_gb", 0.0) for values in metrics):
        console.print(f"peak memory {peak:.2f} GB", highlight=False)
    if fitted >= _WORTH_A_LINE_S:
        console.print(f"computed from the training images in {duration(fitted)}", highlight=False)
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


def _print_splits(metrics: Mapping[str, float]) -> None:
    splits = [
        (prefix, name) for prefix, name in (("test", "test"), ("val", "validation")) if f"{prefix}_loss" in metrics
    ]
    rows = [("accuracy [95 %]", *(_with_interval(metrics, prefix) for prefix, _ in splits))]
    for key, name in _METRIC_NAMES.items():
        cells = [_number(metrics, f"{prefix}_{key}") for prefix, _ in splits]
        if any(cells):
            rows.append((name, *cells))
    print_table(("", *(name for _, name in splits)), rows)
    if "threshold" in metrics:
        line = f"same from a score of {metrics['threshold']:.4f} on, chosen without the test pairs"
        stdout().print(line, highlight=False)


def _print_group(infos: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, float]]) -> None:
    """A line a seed or fold, and their mean."""
    prefixes = [prefix for prefix in ("test", "val") if f"{prefix}_accuracy" in metrics[0]]
    folds = "fold" in infos[0]
    rows: list[list[str]] = []
    for info, values in zip(infos, metrics, strict=True):
        name = f"{info['fold']}, seed {info['seed']}" if folds else str(info["seed"])
        rows.append([name, *(_with_interval(values, p) for p in prefixes), f"{values['epochs']:.0f}"])
    rows.append(["mean", *map(_mean, summarise(infos).values()), ""])
    heads = ("fold" if folds else "seed", *(f"{prefix} accuracy [95 %]" for prefix in prefixes), "epochs")
    print_table(heads, rows)
    if folds:
        stdout().print("mean ± standard error over the folds", highlight=False)


def _mean(summary: Mapping[str, float]) -> str:
    if "standard_error" in summary:
        return f"{summary['mean']:.2%} ± {summary['standard_error']:.2%}"
    return f"{summary['mean']:.2%} [{summary['low']:.2%}, {summary['high']:.2%}]"


def _with_interval(metrics: Mapping[str, float], prefix: str) -> str:
    low, high = metrics[f"{prefix}_accuracy_low"], metrics[f"{prefix}_accuracy_high"]
    return f"{metrics[f'{prefix}_accuracy']:.2%} [{low:.2%}, {high:.2%}]"


def _number(metrics: Mapping[str, float], key: str) -> str:
    """A metric, with its interval where there is one."""
    if key not in metrics:
        return ""
    low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
    return f"{metrics[key]:.4f}" + ("" if low is None or high is None else f" [{low:.4f}, {high:.4f}]")
