"""Recipes: TOML files that say what a run is. Read, changed by `--set`, and checked in whole before anything starts.

One level, no inheritance, no interpolation: a variation is `--set key=value` or another file.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import tables
from bench.distributions import parse_distribution
from bench.errors import PluginError, RecipeError
from bench.recipe_changes import changed_text, parse_change
from bench.registry import find, near_miss
from bench.schema import RESERVED, Table, options_model, validate
from bench.search_tables import Search

__all__ = ["Chosen", "Recipe", "changed", "digest_of", "load", "parse"]

#: The tables that choose something by name -> the core's own keys beside the plugin's options.
_PLUGIN_TABLES: Mapping[str, tuple[str, type[Table]]] = {
    "dataset": ("datasets", tables.DatasetKeys),
    "model": ("models", tables.ModelKeys),
    "augment": ("augmentations", tables.AugmentKeys),
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A thing chosen by name, with its options, defaults filled in."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A checked recipe. `text` is the TOML with every `--set` applied, `digest` the sha256 of what it says."""

    path: Path
    text: str
    digest: str
    experiment: str
    seeds: tuple[int, ...]
    dataset: Chosen
    root: str
    model: Chosen
    weights: str
    freeze: tuple[str, ...]
    augment: tuple[Chosen, ...]
    optimizer: Chosen
    scheduler: Chosen
    data: tables.Data
    init: tables.Init
    train: tables.Train
    compute: tables.Compute
    export: tables.Export
    search: Search


def load(path: Path, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe file and apply changes ('a.b=value'). Raises RecipeError with every problem at once."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        reason = getattr(cause, "strerror", None) or str(cause)
        raise RecipeError(f"{path}: cannot be read: {reason}", hint="recipes/ holds examples") from cause
    return parse(text, path=path, changes=changes)


def parse(text: str, *, path: Path, changes: Iterable[str] = ()) -> Recipe:
    """Check a recipe's text; `path` names it in errors and gives the default experiment."""
    changes = list(changes)
    try:
        if changes:
            tomllib.loads(text)  # what is wrong in the file comes first
            text = changed_text(text, [parse_change(change) for change in changes])
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise RecipeError(f"{path}: not valid TOML: {cause}") from cause
    problems: list[str] = []
    faults: list[PluginError] = []
    parts = _checked(given, problems, faults)
    if problems:
        problems += [str(fault) for fault in faults]
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise RecipeError(f"{path}: {count}", problems=problems, hint="recipes/README.md lists every key")
    if faults:
        raise PluginError(f"{path}: " + "\n  ".join(map(str, faults)), hint=faults[0].hint)
    parts["experiment"] = parts["experiment"] or path.stem
    return Recipe(path=path, text=text, digest=digest_of(given), **parts)


def digest_of(given: Mapping[str, Any]) -> str:
    """The sha256 of what a recipe's TOML says, whatever its comments and the order of its keys."""
    return hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode()).hexdigest()


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with values of any TOML type set at dotted keys, in order; a table replaces the one that was there.

    `text` and `digest` are those of the new recipe, the experiment stays. Raises RecipeError with every problem at once.
    """
    try:
        text = changed_text(recipe.text, changes.items(), source="")
    except RecipeError as error:
        raise RecipeError(f"{recipe.path}: 1 problem", problems=[str(error)], hint=error.hint) from error
    return parse(text, path=recipe.path)


def _checked(given: dict[str, Any], problems: list[str], faults: list[PluginError]) -> dict[str, Any]:
    """The fields of a Recipe, as far as they are right; what is wrong goes into problems and faults."""
    sections = {*tables.SECTIONS, *_PLUGIN_TABLES, "optimizer", "scheduler"}
    top = {key: value for key, value in given.items() if key not in sections}
    known = {*sections, *tables.Top.model_fields}
    for key in sorted(set(top) - set(tables.Top.model_fields)):
        problems.append(f"{key}: unknown key{near_miss(key, known) or '; known: ' + ', '.join(sorted(known))}")
        del top[key]
    parts, found = validate(tables.Top, top, "")
    problems += found
    for name, table in tables.SECTIONS.items():
        values, found = validate(table, given.get(name, {}), name)
        problems += found
        parts[name] = table.model_construct(**values)
    for name in ("dataset", "model"):
        chosen, keys = _plugin(name, given.get(name, {}), name, problems, faults)
        parts[name] = chosen
        parts |= keys
    augments = given.get("augment", [])
    if not isinstance(augments, list):
        problems.append("augment: must be an array of tables, written [[augment]]")
        augments = []
    parts["augment"] = tuple(
        _plugin("augment", table, f"augment.{index}", problems, faults)[0] for index, table in enumerate(augments)
    )
    parts["optimizer"] = _named(tables.OPTIMIZERS, given.get("optimizer", {}), "optimizer", "adamw", problems)
    parts["scheduler"] = _named(tables.SCHEDULERS, given.get("scheduler", {}), "scheduler", "none", problems)
    if not problems:
        problems += _contradictions(parts)
    return parts


def _plugin(
    section: str, table: Any, key: str, problems: list[str], faults: list[PluginError]
) -> tuple[Chosen, dict[str, Any]]:
    """A table that names a plugin: (the plugin's options, the core's keys)."""
    kind, core_table = _PLUGIN_TABLES[section]
    if not isinstance(table, dict):
        problems.append(f"{key}: must be a table")
        return Chosen("", {}), {}
    core, found = validate(core_table, {name: table[name] for name in table if name in RESERVED[kind]}, key)
    problems += found
    name = core.pop("name", "")
    if not name:
        return Chosen("", {}), core
    try:
        plugin = find(kind, name)
    except PluginError as error:
        if name in str(error) and "claimed" in str(error):
            faults.append(error)
        else:
            problems.append(f"{key}.name: {error}")
        return Chosen(name, {}), core
    try:
        model = options_model(kind, plugin.load())
    except PluginError as error:
        faults.append(error)
        return Chosen(name, {}), core
    given = {option: value for option, value in table.items() if option not in RESERVED[kind]}
    options, found = validate(model, given, key)
    problems += found
    return Chosen(name, options), core


def _named(choices: Mapping[str, type[Table]], table: Any, key: str, default: str, problems: list[str]) -> Chosen:
    """A table that names one of the core's own choices."""
    if not isinstance(table, dict):
        problems.append(f"{key}: must be a table")
        return Chosen(default, {})
    name = table.get("name", default)
    if not isinstance(name, str) or name not in choices:
        miss = near_miss(str(name), choices) or f"; known: {', '.join(choices)}"
        problems.append(f"{key}.name: there is no {name!r}{miss}")
        return Chosen(default, {})
    options, found = validate(choices[name], {k: v for k, v in table.items() if k != "name"}, key)
    problems += found
    return Chosen(name, options)


def _contradictions(parts: Mapping[str, Any]) -> list[str]:
    """What no single key shows."""
    data, train, compute = parts["data"], parts["train"], parts["compute"]
    found = []
    given = data.normalize == "given"
    if given != bool(data.mean) or given != bool(data.std):
        found.append('data.normalize: "given" and the keys mean and std belong together')
    elif given and len(data.mean) != len(data.std):
        found.append("data.mean: as many values as data.std are needed, one a channel")
    if compute.precision == "fp16" and compute.device == "cpu":
        found.append('compute.precision: "fp16" needs CUDA; use "bf16" or "auto"')
    if train.loss in {"nll", "contrastive"} and train.label_smoothing:
        found.append("train.label_smoothing: only with the loss cross_entropy or bce")
    if data.copies > 1 and not parts["augment"]:
        found.append("data.copies: copies without an [[augment]] would all be the same")
    found += _unknown_distributions(parts["init"])
    if train.monitor not in tables.TRACKED:
        miss = near_miss(train.monitor, tables.TRACKED) or f"; tracked: {', '.join(tables.TRACKED)}"
        found.append(f"train.monitor: {train.monitor!r} is not tracked{miss}")
    return found


def _unknown_distributions(init: tables.Init) -> list[str]:
    found = []
    for key, text in init:
        try:
            if text:
                parse_distribution(text, weights=key.endswith("weight"))
        except ValueError as cause:
            found.append(f"init.{key}: {cause}")
    return found
