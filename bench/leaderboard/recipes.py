"""Which recipe a run is of: what its TOML says, apart from what is not the method."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from bench.comparison.differences import differences as compared
from bench.comparison.differences import flat
from bench.errors import RecipeError
from bench.recipe import digest_of

__all__ = ["RecipeFile", "differences", "identity_of", "published_in", "recipe_files"]

#: Neither the label of the runs nor how often they are repeated makes another method.
_NOT_THE_METHOD = {"experiment", "seeds"}
_PUBLISHED = re.compile(r"^#.*\breport reached (\d+(?:\.\d+)?) %", re.MULTILINE)
_MOST_CHANGES = 3


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe in a folder: its name, the digest that bench.recipe gives it, its identity, and the published accuracy."""

    name: str
    digest: str
    identity: str
    published: float | None


def recipe_files(folder: Path) -> tuple[RecipeFile, ...]:
    """The recipes of a folder by name. No plugin is imported. Raises RecipeError where there are none, or one is no TOML."""
    files = tuple(_read(path) for path in sorted(folder.glob("*.toml")))
    if not files:
        raise RecipeError(f"{folder}: there are no recipes", hint="the page is kept in the folder of its recipes")
    return files


def identity_of(given: Mapping[str, Any]) -> str:
    """A digest of the method: without experiment and seeds, and without where this machine keeps the data.

    An absolute root counts as its last folder, and one that is called like the dataset as none.
    """
    rest = {key: value for key, value in given.items() if key not in _NOT_THE_METHOD}
    dataset = rest.get("dataset")
    if isinstance(dataset, Mapping) and "root" in dataset:
        root = str(dataset["root"])
        if PurePosixPath(root).is_absolute() or PureWindowsPath(root).is_absolute():
            root = PureWindowsPath(root).name
        beside = {key: value for key, value in dataset.items() if key != "root"}
        rest["dataset"] = beside if root == dataset.get("name") else {**beside, "root": root}
    return digest_of(rest)


def differences(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of the method in which recipes differ, as "key = value, ...": at most three, then how many more."""
    found = compared([flat(recipe) for recipe in recipes])
    keys = sorted(found.keys() - _NOT_THE_METHOD)
    return [_listed([f"{key} = {found[key][index]}" for key in keys]) for index in range(len(recipes))]


def published_in(text: str) -> float | None:
    """The accuracy that a comment of the recipe states, "The report reached 93.6 %", as a share; None without one."""
    figure = _PUBLISHED.search(text)
    return round(float(figure.group(1)) / 100, 6) if figure else None


def _listed(shown: list[str]) -> str:
    more = len(shown) - _MOST_CHANGES
    return ", ".join(shown[:_MOST_CHANGES]) + (f" and {more} more" if more > 0 else "")


def _read(path: Path) -> RecipeFile:
    text = path.read_text(encoding="utf-8")
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise RecipeError(f"{path}: not valid TOML: {cause}") from cause
    return RecipeFile(path.name, digest_of(given), identity_of(given), published_in(text))
