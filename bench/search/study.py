"""A study: the trials of one experiment, which share a space, metrics and a recipe, over any number of commands."""

from __future__ import annotations

import hashlib
import json
import secrets
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bench.errors import RecipeError
from bench.record import new_group
from bench.search.claim import counted
from bench.search.locking import locked
from bench.search.objectives import constraints
from bench.search.storage_errors import translated
from bench.search.sweeping import sweep

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage

    from bench.recipe import Recipe
    from bench.search.objectives import Objective
    from bench.search.space import Space

__all__ = ["SCHEMA", "find_studies", "finished", "open_study", "sweep"]

#: The version of the facts that a study carries in its user attributes.
SCHEMA = 1

#: The parts of a recipe that make trials comparable. Devices, exports and seeds of the winner may change on the way.
_COMPARED = ("dataset", "data", "model", "init", "augment", "optimizer", "scheduler", "train")

#: A root is a folder of this machine.
_LOCAL = ("dataset.root",)


def open_study(
    storage: RDBStorage, recipe: Recipe, space: Space, objectives: Sequence[Objective], *, new: bool = False
) -> Study:
    """The recipe's study, made on first use, with its sampler and pruner; trials whose process is gone are queued again.

    It is named by the experiment; `new` makes another one, with a suffix, and later calls go on with the latest that
    fits. Raises RecipeError where none fits, with what differs, and BenchError where the storage does not work.
    """
    facts = _facts(recipe, space, objectives)
    with translated(storage.engine.url):
        with locked(storage.engine):
            known = find_studies(storage, recipe.experiment)
            fitting = [name for name, found in known.items() if not _differences(found, facts, space)]
            if known and not fitting and not new:
                name, found = list(known.items())[-1]
                raise _other_study(name, _differences(found, facts, space))
            name = fitting[-1] if fitting and not new else _free_name(storage, recipe.experiment)
            study = _load(storage, name) if name in known else _create(storage, name, facts)
        _equip(study, recipe, space, len(objectives))
        sweep(study)
    return study


def finished(study: Study) -> int:
    """How many trials are finished: complete, pruned or failed; those that another one replaces do not count."""
    return sum(trial.state.is_finished() for trial in counted(study))


def find_studies(storage: RDBStorage, experiment: str) -> dict[str, dict[str, Any]]:
    """Name -> facts of an experiment's studies, oldest first."""
    import optuna

    found = optuna.get_all_study_summaries(storage, include_best_trial=False)
    mine = [one for one in found if one.user_attrs.get("experiment") == experiment]
    return {one.study_name: one.user_attrs for one in sorted(mine, key=lambda one: str(one.user_attrs.get("created")))}


def _facts(recipe: Recipe, space: Space, objectives: Sequence[Objective]) -> dict[str, Any]:
    described = json.loads(json.dumps(space.as_json()))  # as it comes back from the storage
    fixed = _fixed(recipe, described)
    digest = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()
    return {
        "schema": SCHEMA,
        "id": secrets.token_hex(8),
        "experiment": recipe.experiment,
        "group": new_group(),
        "created": datetime.now(UTC).isoformat(),
        "space": described,
        "metrics": [{"metric": one.metric, "direction": one.direction} for one in objectives],
        "recipe": fixed,
        "judged": _judged(recipe, objectives),
        "digest": digest,
    }


def _judged(recipe: Recipe, objectives: Sequence[Objective]) -> dict[str, Any]:
    """What a trial's values hang on beside its training, and whether they will do: the same for all trials."""
    limits = constraints(recipe)
    measured = {one.metric for one in objectives} | {one.metric for one in limits}
    latency = recipe.search.latency.model_dump() if {"latency_ms", "size_mb"} & measured else {}
    if "latency_ms" not in measured:
        latency = {name: value for name, value in latency.items() if name == "precision"}
    seeds = ", ".join(map(str, recipe.seeds))
    return {
        "search.constraints": sorted(map(str, limits)),
        **{f"search.latency.{name}": value for name, value in latency.items()},
        "a trial is": f"the mean over seeds {seeds} and folds" if recipe.search.pruner == "wilcoxon" else "one run",
    }


def _fixed(recipe: Recipe, space: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value of what the recipe fixes for all trials, without what the space changes."""
    given = tomllib.loads(recipe.text)
    flat = {key: value for part in _COMPARED for key, value in _flat(part, given.get(part, {}))}
    changed = tuple(space)
    return {
        key: value
        for key, value in sorted(flat.items())
        if key not in _LOCAL and not any(key == one or key.startswith(f"{one}.") for one in changed)
    }


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}", inner)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for place, inner in enumerate(value):
            yield from _flat(f"{key}.{place}", inner)
    else:
        yield key, value if isinstance(value, str | int | float | bool | list) else str(value)


def _differences(found: Mapping[str, Any], facts: Mapping[str, Any], space: Space) -> list[str]:
    """What keeps a recipe from going on with a study, a text each."""
    from bench.search.space import space_from_json

    if found.get("schema") != SCHEMA:
        return [f"the study is of version {found.get('schema')} of this program's studies, this is version {SCHEMA}"]
    texts = [f"space {text}" for text in space.difference(space_from_json(found["space"]))]
    texts += _compared(found["recipe"], facts["recipe"])
    judged = found.get("judged") or {}  # older studies do not carry it
    texts += _compared(
        *({key: one[key] for key in judged.keys() & facts["judged"]} for one in (judged, facts["judged"]))
    )
    metrics = [", ".join(f"{m['metric']} ({m['direction']})" for m in one["metrics"]) for one in (found, facts)]
    if metrics[0] != metrics[1]:
        texts.append(f"metrics: {metrics[1]}, was {metrics[0]}")
    return texts


def _compared(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    keys = [key for key in sorted({*before, *now}) if _shown(before, key) != _shown(now, key)]
    return [f"{key}: {_shown(now, key)}, was {_shown(before, key)}" for key in keys]


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "not given"


def _other_study(name: str, differences: Sequence[str]) -> RecipeError:
    return RecipeError(
        f"the study {name!r} was begun with another recipe",
        problems=differences,
        hint="--new begins another study beside it; its trials stay as they are",
    )


def _free_name(storage: RDBStorage, experiment: str) -> str:
    import optuna

    taken = set(optuna.get_all_study_names(storage))
    names = [experiment, *(f"{experiment}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)


def _load(storage: RDBStorage, name: str) -> Study:
    import optuna

    return optuna.load_study(study_name=name, storage=storage)


def _create(storage: RDBStorage, name: str, facts: Mapping[str, Any]) -> Study:
    """A study whose last fact to be written is what makes it known: one that a kill left half made is never found."""
    import optuna

    directions = [one["direction"] for one in facts["metrics"]]
    study = optuna.create_study(study_name=name, storage=storage, directions=directions)
    for key in [*(key for key in facts if key != "experiment"), "experiment"]:
        study.set_user_attr(key, facts[key])
    return study


def _equip(study: Study, recipe: Recipe, space: Space, num_metrics: int) -> None:
    from bench.search.samplers import make_pruner, make_sampler

    study.sampler = make_sampler(recipe.search, space, num_metrics)
    study.pruner = make_pruner(recipe.search)
