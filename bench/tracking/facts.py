"""What MLflow is told about a run in words: parameters and tags, among them the description."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.tracking.note import note

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
    "cache_features": "train.cache_features",
    "steps_per_epoch": "train.steps_per_epoch",
    "dataset_root": "dataset.root",
    "weights": "model.weights",
}

#: Tables that say what becomes of a result, or how it was found.
_NOT_OF_THE_RESULT = ("export", "search")


def parameters(run: Run) -> dict[str, str]:
    """The recipe's keys with their defaults and, in place of "auto", what the plan decided.

    Only what the result hangs on: neither [export] nor [search] is. A square's size is one number, so that it is an
    axis in plots.
    """
    tables = _tables(run)
    plan = json.loads((run.folder / "plan.json").read_text(encoding="utf-8"))
    values = {key: value for name, table in tables.items() for key, value in _flat(name, table)}
    values |= {key: plan[name] for name, key in _DECIDED.items() if plan.get(name) is not None}
    height, width = (*(plan.get("image_size") or ()), None, None)[:2]
    values |= {"data.size": height} if height is not None and height == width else {}
    info = run.info()
    values |= {} if info.get("fold") is None else {"fold": info["fold"]}
    values |= {"seed": info["seed"], "augment": ", ".join(str(one.get("name")) for one in tables["augment"]) or "none"}
    return {key: _word(value) for key, value in values.items() if value not in (None, "", (), [])}


def _tables(run: Run) -> dict[str, Any]:
    """The recipe's tables, with defaults and options."""
    from bench.recipe import parse
    from bench.tables import SECTIONS

    path = run.folder / "recipe.toml"
    text = path.read_text(encoding="utf-8")
    tables: dict[str, Any] = tomllib.loads(text)
    with suppress(BenchError):  # a plugin may be gone by now; then without its defaults
        recipe = parse(text, path=path)
        tables |= {name: getattr(recipe, name).model_dump() for name in SECTIONS}
        for name in ("dataset", "model", "optimizer", "scheduler"):
            chosen = getattr(recipe, name)
            tables[name] = {**tables.get(name, {}), "name": chosen.name, **chosen.options}
        tables["augment"] = [{"name": one.name, **one.options} for one in recipe.augment]
    kept = {name: table for name, table in tables.items() if isinstance(table, dict) and name not in _NOT_OF_THE_RESULT}
    return {**kept, "augment": tables.get("augment", [])}


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
        "visionbench.reproduces": info.get("reproduces"),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": " ".join(environment.get("argv") or ["bench"]),
        "mlflow.source.git.commit": git.get("commit"),
        "mlflow.user": os.environ.get("USER") or os.environ.get("USERNAME"),
        "mlflow.note.content": note(run, info, model=_model_of(info)),
        **{f"version.{name}": version for name, version in (environment.get("versions") or {}).items()},
    }
    return {key: str(value)[:8000] for key, value in tags.items() if value not in (None, "")}


def _model_of(info: Mapping[str, Any]) -> str:
    """The name of the plugin that built the model."""
    plugins = info.get("plugins") or ()
    return next((str(one["name"]) for one in plugins if one.get("kind") == "models"), "model")


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A table as its keys and a list of tables by position, in the spelling of `--set`: augment.0.degrees."""
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}", inner)
    elif isinstance(value, list | tuple) and any(
        isinstance(one, Mapping) or hasattr(one, "model_dump") for one in value
    ):
        for index, inner in enumerate(value):
            yield from _flat(f"{key}.{index}", inner)
    else:
        yield key, value


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text[:_PARAM_LENGTH]
