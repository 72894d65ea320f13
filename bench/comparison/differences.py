"""What differs between recipes: dotted keys, and only those that do."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.record import Run
    from bench.schema import Table

__all__ = ["differences", "flat", "read_keys"]

#: What says nothing about how a model was made: the experiment has a column of its own, a search made other runs.
_ASIDE = ("experiment", "search")

#: Plan values -> the recipe key whose "auto" they decide, and that can change numbers or times.
_DECIDED = {name: f"compute.{name}" for name in ("device", "precision", "memory_format", "threads")}


def read_keys(run: Run) -> dict[str, Any] | None:
    """A run's recipe as dotted keys, with what the plan decided in place of "auto"; None where it is missing or damaged."""
    try:
        return flat(tomllib.loads((run.folder / "recipe.toml").read_text(encoding="utf-8"))) | _decided(run)
    except (OSError, ValueError):
        return None


def _decided(run: Run) -> dict[str, Any]:
    """Two runs of one recipe may differ in their precision, as a calibration chose it; {} where the plan is lost."""
    try:
        plan = json.loads((run.folder / "plan.json").read_text(encoding="utf-8"))
        return {key: plan[name] for name, key in _DECIDED.items() if plan.get(name) is not None}
    except (OSError, ValueError, AttributeError):
        return {}


def flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys and their values. Augmentations go by their names, so that one more does not shift the others."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        if key == "augment" and isinstance(value, list):
            found |= _augmentations(value)
        elif key not in _ASIDE:
            found |= _flat(key, value)
    return found


def differences(recipes: Sequence[Mapping[str, Any] | None]) -> dict[str, tuple[Any, ...]]:
    """Key -> its value in each recipe, for the keys that differ. A default that one recipe leaves to the core is filled
    in; None: not set, or the recipe is not known.
    """
    known = [recipe for recipe in recipes if recipe is not None]
    keys = dict.fromkeys(key for recipe in known for key in recipe)
    open_keys = [key for key in keys if not all(key in recipe for recipe in known)]
    defaults = [_defaults(recipe, open_keys) for recipe in known] if open_keys else [{} for _ in known]
    filled = iter([default | dict(recipe) for default, recipe in zip(defaults, known, strict=True)])
    rows = [None if recipe is None else next(filled) for recipe in recipes]
    found = {}
    for key in _by_section(keys):
        values = [_plain(row.get(key)) for row in rows if row is not None]
        if any(value != values[0] for value in values):
            found[key] = tuple(None if row is None else row.get(key) for row in rows)
    return found


def _by_section(keys: Iterable[str]) -> list[str]:
    """The keys of a section together, the sections in the order in which they come first."""
    sections: dict[str, list[str]] = {}
    for key in keys:
        sections.setdefault(key.partition(".")[0], []).append(key)
    return [key for section in sections.values() for key in section]


def _flat(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {key: value}
    found: dict[str, Any] = {}
    for name, one in value.items():
        found |= _flat(f"{key}.{name}", one)
    return found


def _augmentations(tables: Sequence[Any]) -> dict[str, Any]:
    """augment: the names in their order; augment.NAME.OPTION, NAME#2 where one comes twice."""
    names: list[str] = []
    found: dict[str, Any] = {}
    for table in tables:
        name = str(table.get("name", "")) if isinstance(table, dict) else str(table)
        names.append(name)
        count = names.count(name)
        place = f"augment.{name}" + (f"#{count}" if count > 1 else "")
        for option, value in table.items() if isinstance(table, dict) else ():
            if option != "name":
                found |= _flat(f"{place}.{option}", value)
    return {"augment": names, **found}


def _plain(value: Any) -> Any:
    """3 and 3.0 are the same."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _defaults(recipe: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The core's defaults of the keys that a recipe leaves out; those of plugins are known to the plugins alone."""
    from bench.tables import OPTIMIZERS, SCHEDULERS, SECTIONS, DatasetKeys, ModelKeys, Top

    tables: dict[str, type[Table]] = {**SECTIONS, "dataset": DatasetKeys, "model": ModelKeys}
    chosen = {"optimizer": (OPTIMIZERS, "adamw"), "scheduler": (SCHEDULERS, "none")}
    for section, (choices, default) in chosen.items():
        if (table := choices.get(str(recipe.get(f"{section}.name", default)))) is not None:
            tables[section] = table
    found: dict[str, Any] = {"augment": []} if "augment" in keys else {}
    for key in keys:
        section, _, name = key.rpartition(".")
        if name == "name" and section in chosen:
            found[key] = chosen[section][1]
            continue
        fields = Top.model_fields if not section else tables[section].model_fields if section in tables else {}
        if name in fields:
            default = fields[name].get_default(call_default_factory=True)
            found[key] = list(default) if isinstance(default, tuple) else default
    return found
