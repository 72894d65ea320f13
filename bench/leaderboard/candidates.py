"""Recorded runs, as the leaderboard sees them: which count, which belong together, and which stand for their recipe."""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from bench.comparison.choosing import Recorded
from bench.comparison.entries import kind_of
from bench.errors import BenchError, RecipeError
from bench.leaderboard.recipes import identity_of, published_in
from bench.record import Run, list_runs, runs_folder
from bench.registry import near_miss
from bench.tables import larger_is_better

if TYPE_CHECKING:
    from bench.comparison.model import Kind

__all__ = ["Candidate", "Choice", "Collected", "choose", "collect"]


#: What `--set` may say without making another method of a recipe: see identity_of.
_NOT_A_CHANGE = re.compile(r"\s*(experiment|seeds|dataset\.root)\s*=")

#: (identity, TOML, published accuracy) of a recorded recipe.
_Recorded = tuple[str, Mapping[str, Any], float | None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """The finished runs of one `bench run`: one, or a group of seeds or folds. `planned` counts the unfinished, too."""

    identity: str
    given: Mapping[str, Any]
    runs: tuple[Run, ...]
    infos: tuple[Mapping[str, Any], ...]
    planned: int
    published: float | None = None

    @property
    def recipe(self) -> str:
        """The name of the recipe's file."""
        return PureWindowsPath(str(self.infos[0].get("recipe") or "recipe.toml")).name

    @property
    def changes(self) -> str:
        """What `--set` changed of the method, as it was written; a resumed run was changed when it began."""
        argv = [str(word) for word in (self.infos[0].get("environment") or {}).get("argv") or ()]
        given = [after for word, after in pairwise(argv) if word == "--set"]
        given += [word.removeprefix("--set=") for word in argv if word.startswith("--set=")]
        return ", ".join(change for change in given if not _NOT_A_CHANGE.match(change))

    @property
    def dataset(self) -> tuple[str, str, int]:
        """(name, fingerprint, number of test samples); what tells data apart before predictions are read."""
        seen = self.infos[0]["dataset"]
        of_fold = {info.get("fold"): sum(info["dataset"]["counts"].get("test", {}).values()) for info in self.infos}
        return _dataset_name(seen), str(seen["fingerprint"]), sum(of_fold.values())

    @property
    def recorded(self) -> list[Recorded]:
        """The runs as bench.comparison takes them."""
        return [Recorded(run, info) for run, info in zip(self.runs, self.infos, strict=True)]

    @property
    def kind(self) -> Kind:
        """What the runs differ in."""
        return kind_of(self.recorded)

    @property
    def objective(self) -> tuple[str, float] | None:
        """(metric, mean) on the validation split: the recipe's own, or else the accuracy; None without such a split."""
        metrics = [info["metrics"] for info in self.infos]
        asked = str(self.infos[0].get("objective") or "")
        name = asked if asked.startswith("val_") and asked in metrics[0] else "val_accuracy"
        values = [each.get(name) for each in metrics]
        if any(value is None for value in values):
            return None
        return name, math.fsum(float(value) for value in values if value is not None) / len(values)


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that stands for its recipe, and why."""

    candidate: Candidate
    reason: str


#: Reasons of runs that were never meant to stand for their recipe.
_NO_PART_OF_A_GROUP = ("trials of searches", "reproductions")


@dataclass(frozen=True, slots=True)
class Collected:
    """All candidates, oldest first, and how many runs are left out, by reason."""

    candidates: tuple[Candidate, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


def collect(experiments: Sequence[str] = ()) -> Collected:
    """The candidates among the recorded runs, of all experiments or those named.

    Raises RecipeError for an experiment without any run.
    """
    left_out: Counter[str] = Counter()
    groups: dict[tuple[str, str, str], list[tuple[Run, dict[str, Any]]]] = {}
    planned: Counter[tuple[str, str, str]] = Counter()
    for run, info in _distinct(_named(experiments), left_out):
        key = (str(info.get("experiment")), str(info.get("group")), str(info.get("recipe_digest")))
        reason = _reason(run, info)
        if reason not in _NO_PART_OF_A_GROUP:
            planned[key] += 1
        if reason:
            left_out[reason] += 1
        else:
            groups.setdefault(key, []).append((run, info))
    recipes: dict[str, _Recorded] = {}
    found = [_candidate(members, planned[key], recipes) for key, members in groups.items()]
    return Collected(tuple(found), dict(sorted(left_out.items())))


def choose(candidates: Sequence[Candidate]) -> Choice:
    """The one of a recipe's candidates on one test set that stands for it; the test set has no say in it.

    First counts how many seeds or folds it has; then the recipe's objective on the validation split, where all have
    one; then the date.
    """
    most = max(len(one.runs) for one in candidates)
    fit = [one for one in candidates if len(one.runs) == most]
    of_all = f" of {len(candidates)}" if len(candidates) > 1 else ""
    if len(fit) == 1:
        return Choice(fit[0], f"the one with the most runs{of_all}" if of_all else "the only one")
    objectives = [one.objective for one in fit]
    names = {each[0] for each in objectives if each is not None}
    if None in objectives or len(names) != 1:
        return Choice(fit[-1], f"the latest{of_all}: no validation split decides")
    name = names.pop()
    best = max(fit, key=lambda one: (_rank(one.objective), fit.index(one)))
    return Choice(best, f"the best{of_all} by {name}")


def _rank(objective: tuple[str, float] | None) -> float:
    if objective is None or math.isnan(objective[1]):
        return -math.inf
    return objective[1] if larger_is_better(objective[0]) else -objective[1]


def _named(experiments: Sequence[str]) -> list[Run]:
    if not experiments:
        return list(list_runs())
    found: list[Run] = []
    for experiment in dict.fromkeys(experiments):
        runs = list(list_runs(experiment))
        if not runs:
            known = sorted({path.parent.parent.name for path in runs_folder().glob("*/*/run.json")})
            miss = near_miss(experiment, known) or (f"; there are {', '.join(known)}" if known else "")
            raise RecipeError(f"no run of an experiment {experiment!r} in {runs_folder()}{miss}", hint="bench runs")
        found += runs
    return sorted(found, key=lambda run: run.name)


def _distinct(runs: Iterable[Run], left_out: Counter[str]) -> Iterable[tuple[Run, dict[str, Any]]]:
    """Each run once: a copied folder has the id of its original, which is the first by name and then by place."""
    seen: set[str] = set()
    for run in runs:
        info = _info(run)
        own = str(info.get("id") or run.folder)
        if own in seen:
            left_out["copies of another run"] += 1
            continue
        seen.add(own)
        yield run, info


def _info(run: Run) -> dict[str, Any]:
    """What run.json says; nothing where it is damaged."""
    try:
        info: Any = run.info()
    except BenchError:
        return {}
    return info if isinstance(info, dict) else {}


def _reason(run: Run, info: Mapping[str, Any]) -> str:
    """Why a run does not count; "" where it does."""
    status = info.get("status")
    if "trial" in info:
        return "trials of searches"
    if "reproduces" in info:
        return "reproductions"
    if status == "running":
        return run.status()
    if status != "finished":
        return str(status) if status else "unreadable run.json"
    dataset, metrics = info.get("dataset"), info.get("metrics")
    if not isinstance(metrics, Mapping) or not isinstance(metrics.get("test_accuracy"), int | float):
        return "without a test split"
    known = isinstance(dataset, Mapping) and {"name", "fingerprint", "counts"} <= set(dataset)
    return "" if known else "unreadable run.json"


def _candidate(members: list[tuple[Run, dict[str, Any]]], planned: int, recipes: dict[str, _Recorded]) -> Candidate:
    members.sort(key=lambda one: (one[1].get("fold", 0), one[1].get("seed", 0)))
    runs, infos = zip(*members, strict=True)
    digest = str(infos[0].get("recipe_digest"))
    if digest not in recipes:
        recipes[digest] = _recipe(runs[0], digest)
    identity, given, published = recipes[digest]
    return Candidate(identity, given, runs, infos, planned, published)


def _recipe(run: Run, digest: str) -> _Recorded:
    """A run's recipe; where the file is gone, its recorded digest is all that is known."""
    try:
        text = (run.folder / "recipe.toml").read_text(encoding="utf-8")
        given = tomllib.loads(text)
    except (OSError, ValueError):
        return digest, {}, None
    return identity_of(given), given, published_in(text)


def _dataset_name(dataset: Mapping[str, Any]) -> str:
    """The plugin's name; with the last folder of its root where that says more: image_folder (photos)."""
    name, root = str(dataset["name"]), PureWindowsPath(str(dataset.get("root") or "")).name
    return name if not root or root.lower() in name.lower() else f"{name} ({root})"
