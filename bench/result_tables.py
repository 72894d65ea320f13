"""Results of runs as tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from bench.console import TerminalProgress, duration, print_json, print_table, stdout
from bench.errors import RecipeError
from bench.group import summarise
from bench.record import list_runs, runs_folder, status_of
from bench.registry import near_miss
from bench.run_info import left_out, readable

if TYPE_CHECKING:
    from bench.record import Run

__all__ = ["as_values", "print_result", "show_runs"]

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


def show_runs(experiment: str | None, *, as_json: bool) -> None:
    """A line a run, or one JSON object, of all runs or those of an experiment; damaged ones are named.

    Raises RecipeError where there are only runs of other experiments.
    """
    damaged: list[Run] = []
    found = list(readable(list_runs(experiment), damaged))
    if experiment and not (found or damaged):
        _refuse_unknown(experiment)
    if as_json:
        places = [{"name": run.name, "folder": str(run.folder)} for run in damaged]
        print_json({"runs": [as_values(run, info) for run, info in found], "damaged": places})
    elif found:
        _print_runs(found)
    elif not damaged:
        click.echo(f"no runs in {runs_folder()}; start with: bench run recipes/quickstart.toml", err=True)
    if damaged:
        TerminalProgress().warn(left_out(damaged))


def as_values(run: Run, info: Mapping[str, Any]) -> dict[str, Any]:
    """A run for --json: what its run.json says, and where it is."""
    return {"name": run.name, "folder": str(run.folder), **info}


def _refuse_unknown(experiment: str) -> None:
    """Raise RecipeError, unless there is no run at all."""
    known = sorted({run.folder.parent.name for run in list_runs()})
    if known:
        raise RecipeError(
            f"no runs of an experiment {experiment!r} in {runs_folder()}{near_miss(experiment, known)}",
            hint="bench runs lists those of all experiments",
        )


def _print_runs(found: Iterable[tuple[Run, Mapping[str, Any]]]) -> None:
    rows = []
    for run, info in found:
        values = info.get("metrics") or {}
        split = "test" if "test_accuracy" in values else "val"
        accuracy = _with_interval(values, split) if f"{split}_accuracy" in values else ""
        state = status_of(info)
        seconds = [values[name] for name in ("train_seconds", "fit_seconds") if name in values]
        time = duration(sum(seconds)) if seconds else ""
        rows.append((info["experiment"], run.name, Text(state, style=_STATUS_STYLES.get(state, "")), accuracy, time))
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
    low, high = metrics.get(f"{prefix}_accuracy_low"), metrics.get(f"{prefix}_accuracy_high")
    interval = "" if low is None or high is None else f" [{low:.2%}, {high:.2%}]"
    return f"{metrics[f'{prefix}_accuracy']:.2%}{interval}"


def _number(metrics: Mapping[str, float], key: str) -> str:
    """A metric, with its interval where there is one."""
    if key not in metrics:
        return ""
    low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
    return f"{metrics[key]:.4f}" + ("" if low is None or high is None else f" [{low:.4f}, {high:.4f}]")
