"""A run's description in MLflow: the key figures, and what they were made with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.record import Run

__all__ = ["REPORT", "note"]

#: The page that `bench report` may have written into the run's folder.
REPORT = "report.html"

#: The most that MLflow takes, in characters.
_LENGTH = 8000

#: Heading -> metric in the table; for pairs others count than for classes.
_SHOWN = {
    False: {"macro F1": "macro_f1", "log loss": "log_loss", "ECE": "ece"},
    True: {"AUROC": "auroc", "EER": "eer", "TAR at FAR 1e-2": "tar_at_far_0.01"},
}
_SPLITS = {"test": "test", "val": "validation"}
_NOTICEABLE_S = 1.0


def note(run: Run, info: Mapping[str, Any], *, model: str) -> str:
    """Markdown: accuracy with its interval, then parameters, training, origin, report and the recipe itself."""
    lines = [*_table(info), *(f"- {fact}" for fact in _facts(run, info, model)), ""]
    if info.get("error"):
        lines = [f"> **{info['status']}**: {info['error']}", "", *lines]
    head = "\n".join(lines)
    recipe = (run.folder / "recipe.toml").read_text(encoding="utf-8").strip()
    room = _LENGTH - len(head) - 100
    shown = recipe if len(recipe) <= room else f"{recipe[:room]}\n# the rest stands in recipe.toml"
    return f"{head}\n```toml\n{shown}\n```"


def _table(info: Mapping[str, Any]) -> list[str]:
    """A line a split that has been evaluated."""
    metrics = info.get("metrics") or {}
    shown = [split for split in _SPLITS if f"{split}_accuracy" in metrics]
    if not shown:
        return []
    pairs = "threshold" in metrics
    heads = ["split", "pairs" if pairs else "images", "accuracy", "95 % interval", *_SHOWN[pairs]]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for split in shown:
        counts = ((info.get("dataset") or {}).get("counts") or {}).get(_SPLITS[split]) or {}
        low, high = (metrics.get(f"{split}_accuracy_{end}", math.nan) for end in ("low", "high"))
        cells = [_SPLITS[split], str(sum(counts.values()) or ""), f"**{metrics[f'{split}_accuracy']:.2%}**"]
        cells += [f"{low:.2%} to {high:.2%}" if math.isfinite(low + high) else ""]
        cells += [_number(metrics.get(f"{split}_{name}")) for name in _SHOWN[pairs].values()]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _facts(run: Run, info: Mapping[str, Any], model: str) -> Iterator[str]:
    metrics = info.get("metrics") or {}
    size = f", {metrics['parameters']:,.0f} parameters" if "parameters" in metrics else ""
    yield f"Model `{model}`{size}"
    if "train_seconds" in metrics:
        yield _training(info, metrics)
    fold = "" if info.get("fold") is None else f", fold {info['fold']}"
    recipe = f"recipe `{info['recipe']}`, " if info.get("recipe") else ""
    yield f"Run **{info['status']}**: {recipe}seed {info['seed']}{fold}, group `{info['group']}`"
    if (run.folder / REPORT).is_file():
        yield f"The report is the artifact `{REPORT}`"


def _training(info: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    from bench.console import duration

    machine = (info.get("environment") or {}).get("machine") or {}
    place = machine.get("gpu") or machine.get("cpu") or "this machine"
    fit = metrics.get("fit_seconds", 0.0)
    before = f"Fitted in {duration(fit)}, t" if fit >= _NOTICEABLE_S else "T"
    epochs = f"{metrics['epochs']:.0f} epochs " if "epochs" in metrics else ""
    return f"{before}rained {epochs}in {duration(metrics['train_seconds'])} on {place}"


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4f}"
