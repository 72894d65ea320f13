"""What a report says of a run in words and numbers: summary, environment, plan, and how to run it again."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.console import duration
from bench.group import summarise
from bench.statistics import wilson_interval

if TYPE_CHECKING:
    from bench.reporting.judged import Judged
    from bench.reporting.reading import Recorded
    from bench.stages.layers import ModelTable

__all__ = [
    "about",
    "badge",
    "count",
    "environment",
    "layers",
    "mean_of_folds",
    "measures",
    "plan_rows",
    "result_epoch",
    "siblings",
    "tiles",
]

_BADGES = {"finished": "good", "running": "note", "interrupted": "warning", "pruned": "note", "failed": "error"}

_METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "eer": "equal error rate",
    "tar_at_far_0.01": "TAR at FAR 1e-2",
    "tar_at_far_0.001": "TAR at FAR 1e-3",
    "log_loss": "log loss",
    "ece": "calibration error",
}
_MOST_VALUES = 12


def tiles(recorded: Recorded, judged: Judged | None, table: ModelTable | None) -> list[tuple[str, str]]:
    """(figure, caption): what is to be known first."""
    found: list[tuple[str, str]] = []
    if judged is not None:
        low, high = wilson_interval(judged.num_right, judged.num_samples)
        what = "pairs" if judged.pairs else "images"
        caption = (
            f"{judged.split} accuracy [{low:.2%}, {high:.2%}]; {judged.num_right:,} of {judged.num_samples:,} {what}"
        )
        found.append((f"{judged.accuracy:.2%}", caption))
    totals: Mapping[str, Any] = {} if table is None else table.totals()
    parameters = recorded.metrics.get("parameters", totals.get("parameters"))
    if parameters is not None:
        found.append((count(parameters), "parameters"))
    if table is not None:
        found.append((count(totals["macs"]), f"MACs {'a pair' if table.unit == 'pair' else 'an image'}"))
    if "train_seconds" in recorded.metrics:
        epochs = recorded.metrics.get("epochs")
        caption = f"training, {epochs:.0f} epoch{'s' if epochs != 1 else ''}" if epochs else "training"
        found.append((duration(recorded.metrics["train_seconds"] + recorded.metrics.get("fit_seconds", 0.0)), caption))
    return found


def about(recorded: Recorded) -> list[tuple[str, str]]:
    """Where the run comes from: dataset, model, plugins, seed, times."""
    info = recorded.info
    data = info.get("dataset") or {}
    sizes = [(name, recorded.counts(name)) for name in ("train", "validation", "test")]
    shown = ", ".join(f"{name} {number:,}" for name, number in sizes if number)
    size = recorded.plan.get("image_size")
    rows = [
        ("experiment", info.get("experiment")),
        ("model", _model(recorded)),
        ("dataset", data.get("name")),
        ("pairs" if recorded.pairs else "images", shown),
        ("classes", len(recorded.classes()) or None),
        ("input", None if not size else f"{size[0]} x {size[1]} pixels, {_channels(recorded.plan.get('channels'))}"),
        ("left out", f"{len(data['skipped'])} bad images" if data.get("skipped") else None),
        ("fingerprint", str(data.get("fingerprint") or "")[:16]),
        ("seed", info.get("seed")),
        ("fold", info.get("fold")),
        ("begun", _time(info.get("created"))),
        ("ended", _time(info.get("ended"))),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "", [])]


def measures(recorded: Recorded, judged: Judged | None) -> list[tuple[str, str]]:
    """The metrics of the split shown, with intervals where the run has them."""
    if judged is None:
        return []
    rows = []
    for key, name in _METRICS.items():
        value = judged.metrics.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            ends = [judged.metrics.get(f"{key}_{end}") for end in ("low", "high")]
            known = all(isinstance(end, int | float) for end in ends)
            rows.append((name, f"{value:.4f}" + (f" [{ends[0]:.4f}, {ends[1]:.4f}]" if known else "")))
    if judged.threshold is not None:
        rows.append(("threshold", f"{judged.threshold:.4f}"))
    if peak := recorded.metrics.get("peak_memory_gb"):
        rows.append(("peak memory", f"{peak:.2f} GB"))
    if speed := recorded.metrics.get("images_per_second"):
        rows.append(("training speed", f"{speed:,.0f} images a second"))
    return rows


def layers(recorded: Recorded) -> ModelTable | str:
    """The model's layer table, or why there is none."""
    from bench.describe import model_table
    from bench.errors import BenchError
    from bench.kinds import DataSpec

    plan, classes = recorded.plan, recorded.classes()
    if recorded.recipe is None:
        return "the recipe cannot be used here"
    if not classes or not plan.get("image_size"):
        return "the run ended before its data were read"
    task: Any = "verification" if recorded.pairs else "classification"
    spec = DataSpec(task, classes, int(plan.get("channels") or 3), tuple(plan["image_size"]))
    try:
        return model_table(recorded.recipe, spec)
    except BenchError as cause:
        return str(cause)


def environment(recorded: Recorded) -> list[tuple[str, str]]:
    """Versions, hardware and the commit, as recorded."""
    found = recorded.info.get("environment") or {}
    machine, git = found.get("machine") or {}, recorded.info.get("git") or {}
    plugins = [entry for entry in recorded.info.get("plugins") or () if isinstance(entry, Mapping)]
    rows = [
        ("processor", machine.get("cpu")),
        ("cores", machine.get("cores")),
        ("instruction sets", ", ".join(machine.get("cpu_flags") or ())),
        ("GPU", machine.get("gpu")),
        ("memory", f"{machine['memory_gb']} GB" if machine.get("memory_gb") else ""),
        ("system", found.get("platform")),
        ("Python", found.get("python")),
        *(found.get("versions") or {}).items(),
        ("commit", f"{git['commit']}{', with changes' if git.get('dirty') else ''}" if git.get("commit") else ""),
        (
            "plugins",
            ", ".join(f"{one.get('name')} ({one.get('distribution')} {one.get('version')})" for one in plugins),
        ),
        ("command", " ".join(map(str, found.get("argv") or ()))),
    ]
    return [(str(name), str(value)) for name, value in rows if value not in (None, "")]


def plan_rows(recorded: Recorded) -> list[tuple[str, str, str]]:
    """(key, value, reason) of each derived value."""
    reasons = recorded.plan.get("reasons") or {}
    return [
        (key, _value(value), str(reasons.get(key, "")))
        for key, value in recorded.plan.items()
        if key != "reasons" and value is not None
    ]


def result_epoch(recorded: Recorded) -> int | None:
    """The epoch whose weights were judged: the best one, or the last where the recipe keeps that, or holds out nothing to
    choose by; None where it is not known.
    """
    best, last = (recorded.metrics.get(key) for key in ("best_epoch", "epochs"))
    if not best or not last or recorded.recipe is None:
        return None
    chosen = recorded.recipe.train.keep == "best" and any("val_loss" in line["values"] for line in recorded.epochs)
    return int(best if chosen else last)


def siblings(recorded: Recorded) -> list[dict[str, Any]]:
    """The finished runs of the same group, one a fold, where the run is one of several folds. Copies count once."""
    from bench.errors import BenchError
    from bench.record import Run

    if "fold" not in recorded.info:
        return []
    rows: dict[tuple[Any, Any], dict[str, Any]] = {}
    for path in sorted(recorded.run.folder.parent.glob(f"{recorded.info.get('group')}*/run.json")):
        try:
            info = Run(path.parent).info()
        except BenchError:
            continue
        metrics = info.get("metrics") or {}
        if info.get("group") == recorded.info.get("group") and "fold" in info and "test_accuracy" in metrics:
            own = path.parent == recorded.run.folder
            row = {"fold": info["fold"], "seed": info.get("seed"), "own": own, "metrics": metrics, "info": info}
            place = row["fold"], row["seed"]
            rows[place] = row if own else rows.get(place, row)
    return sorted(rows.values(), key=lambda row: (row["fold"], row["seed"]))


def mean_of_folds(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard error over the folds, as LFW's protocol asks; "" for fewer than two."""
    if len({row["fold"] for row in rows}) < 2:  # noqa: PLR2004
        return ""
    found = summarise([row["info"] for row in rows])["test"]
    return (
        f"Mean over {found['folds']:.0f} folds: {found['mean']:.2%} ± {found['standard_error']:.2%} (standard error)."
    )


def badge(status: str) -> str:
    """The colour of a status."""
    return _BADGES.get(status, "note")


def count(value: float) -> str:
    """Three digits with a unit: 12.3 M."""
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (limit if letter != 'k' else 1e3):.3g} {letter}"
    return f"{value:,.0f}"


def _model(recorded: Recorded) -> str:
    """The model with the options that the recipe gives."""
    try:
        table = tomllib.loads(recorded.recipe_text).get("model")
    except tomllib.TOMLDecodeError:
        return ""
    if not isinstance(table, dict) or "name" not in table:
        return ""
    chosen = ", ".join(f"{key}={_value(value)}" for key, value in table.items() if key != "name")
    return f"{table['name']}: {chosen}" if chosen else str(table["name"])


def _time(stamp: Any) -> str:
    """2026-11-26 04:21:19 UTC."""
    return str(stamp or "").replace("T", " ").replace("+00:00", " UTC")


def _channels(channels: Any) -> str:
    return {1: "grey", 3: "colour"}.get(channels, "channels unknown")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return f"{len(value)} values" if len(value) > _MOST_VALUES else ", ".join(map(_value, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
