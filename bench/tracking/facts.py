"""What MLflow is told about a run in words: parameters, tags and a description."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.record import Run

__all__ = ["describe", "parameters"]

#: MLflow's limit.
_PARAM_LENGTH = 6000

#: Plan values -> the recipe key whose "auto" they decide.
_DECIDED = {
    "device": "compute.device",
    "precision": "compute.precision",
    "memory_format": "compute.memory_format",
    "threads": "compute.threads",
    "image_size": "data.size",
    "channels": "data.channels",
    "normalize": "data.normalize",
    "mean": "data.mean",
    "std": "data.std",
    "cache_features": "train.cache_features",
    "steps_per_epoch": "train.steps_per_epoch",
    "dataset_root": "dataset.root",
    "weights": "model.weights",
}


#: Heading -> metric in the table of the description; for pairs others count than for classes.
_SHOWN = {
    False: {"macro F1": "macro_f1", "log loss": "log_loss", "ECE": "ece"},
    True: {"AUROC": "auroc", "EER": "eer", "TAR at FAR 1e-2": "tar_at_far_0.01"},
}


def parameters(run: Run) -> dict[str, str]:
    """The recipe's keys with their defaults and, in place of "auto", what the plan decided."""
    from bench.recipe import parse
    from bench.tables import SECTIONS

    path = run.folder / "recipe.toml"
    text = path.read_text(encoding="utf-8")
    tables: dict[str, Any] = tomllib.loads(text)
    with suppress(BenchError):  # a plugin may be gone by now; then without its defaults
        recipe = parse(text, path=path)
        tables |= {name: getattr(recipe, name).model_dump() for name in SECTIONS if name != "export"}
        for name in ("dataset", "model", "optimizer", "scheduler"):
            chosen = getattr(recipe, name)
            tables[name] = {**tables.get(name, {}), "name": chosen.name, **chosen.options}
    plan = json.loads((run.folder / "plan.json").read_text(encoding="utf-8"))
    values = {
        f"{name}.{key}": v for name, table in tables.items() if isinstance(table, dict) for key, v in table.items()
    }
    values |= {key: plan[name] for name, key in _DECIDED.items() if plan.get(name) is not None}
    fold = run.info().get("fold")
    values |= {} if fold is None else {"fold": fold}
    values |= {"seed": run.info()["seed"], "augment": ", ".join(map(_call, tables.get("augment", []))) or "none"}
    return {key: _word(value) for key, value in values.items() if value not in (None, "", (), [])}


def describe(run: Run) -> dict[str, str]:
    """Tags, among them MLflow's own for source, commit, user and description."""
    info = run.info()
    git, environment = info.get("git") or {}, info.get("environment") or {}
    machine = environment.get("machine") or {}
    tags = {
        "visionbench.group": info["group"],
        "visionbench.folder": run.folder,
        "visionbench.recipe_digest": info.get("recipe_digest"),
        "visionbench.dataset_fingerprint": (info.get("dataset") or {}).get("fingerprint"),
        "visionbench.machine": machine.get("gpu") or machine.get("cpu"),
        "visionbench.git_dirty": git.get("dirty"),
        "visionbench.error": info.get("error"),
        "visionbench.status": info["status"],
        "visionbench.study": info.get("study"),
        "visionbench.trial": info.get("trial"),
        "visionbench.winner": info.get("winner"),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": " ".join(environment.get("argv") or ["bench"]),
        "mlflow.source.git.commit": git.get("commit"),
        "mlflow.user": os.environ.get("USER") or os.environ.get("USERNAME"),
        "mlflow.note.content": _note(info),
        **{f"version.{name}": version for name, version in (environment.get("versions") or {}).items()},
    }
    return {key: str(value)[:8000] for key, value in tags.items() if value not in (None, "")}


def _note(info: dict[str, Any]) -> str:
    """The key figures in Markdown."""
    metrics, data = info.get("metrics") or {}, info.get("dataset") or {}
    lines = [f"Run of group `{info['group']}`, seed {info['seed']}: **{info['status']}**", ""]
    if info.get("error"):
        lines += [f"> {info['error']}", ""]
    splits = {"test": "test", "val": "validation"}
    shown = [split for split in splits if f"{split}_accuracy" in metrics]
    pairs = "threshold" in metrics
    if shown:
        lines += [
            f"| split | {'pairs' if pairs else 'images'} | accuracy | 95 % interval | {' | '.join(_SHOWN[pairs])} |",
            f"|---|---|---|---|{'---|' * len(_SHOWN[pairs])}",
        ]
    for split in shown:
        images = sum((data.get("counts") or {}).get(splits[split], {}).values()) or ""
        low, high, *others = (
            metrics.get(f"{split}_{name}", math.nan)
            for name in ("accuracy_low", "accuracy_high", *_SHOWN[pairs].values())
        )
        accuracy = f"**{metrics[f'{split}_accuracy']:.2%}** | {low:.2%} to {high:.2%}"
        lines.append(f"| {splits[split]} | {images} | {accuracy} | {' | '.join(f'{value:.4f}' for value in others)} |")
    if "train_seconds" in metrics:
        machine = ((info.get("environment") or {}).get("machine")) or {}
        place = machine.get("gpu") or machine.get("cpu") or "this machine"
        lines += ["", f"Trained in {metrics['train_seconds']:.1f} s on {place}."]
    return "\n".join(lines)


def _call(table: Mapping[str, Any]) -> str:
    """An [[augment]] table as it would be called: affine(degrees=10.0)."""
    options = ", ".join(f"{key}={value}" for key, value in table.items() if key != "name")
    return f"{table.get('name')}({options})"


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=_plain)
    return text[:_PARAM_LENGTH]


def _plain(value: Any) -> Any:
    """An option that is a table of its own, or anything else that JSON does not know."""
    return value.model_dump() if hasattr(value, "model_dump") else str(value)
