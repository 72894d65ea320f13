"""Changes to a recipe's text: `--set a.b=value`, and the values that a search has chosen."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from bench.errors import RecipeError

__all__ = ["assign", "changed_text", "parse_change"]


def parse_change(change: str) -> tuple[str, Any]:
    """'a.b=value' -> (dotted key, TOML value). Raises RecipeError where it has another form."""
    key, equals, value = (part.strip() for part in change.partition("="))
    if not equals or "" in key.split("."):
        raise RecipeError(f"--set {change}: not of the form key=value", hint="--set train.epochs=20")
    return key, _value(value)


def changed_text(text: str, changes: Iterable[tuple[str, Any]], *, source: str = "--set ") -> str:
    """The TOML with values set at dotted keys, in order; comments and order stay.

    Arrays are reached into by position; tables on the way are made where they are missing. Raises RecipeError for a key
    without a place, in whose message `source` stands before the key, and TOMLDecodeError.
    """
    import tomlkit

    plain = tomllib.loads(text)  # its errors are those of a recipe without changes
    document = tomlkit.parse(text)
    for key, value in changes:
        assign(plain, key, copy.deepcopy(value), source=source)
        assign(document, key, copy.deepcopy(value), source=source)
    styled = tomlkit.dumps(document)
    # tomlkit loses track where a table that it replaces goes on further down; then the comments are given up.
    return styled if _says(styled, plain) else tomlkit.dumps(plain)


def assign(document: Any, key: str, value: Any, *, source: str = "") -> None:
    """Set one value in parsed TOML. Raises RecipeError where the key has no place."""
    steps = key.split(".")
    place = document
    try:
        for step in steps[:-1]:
            place = place[int(step)] if step.isdecimal() else place.setdefault(step, {})
        last = steps[-1]
        place[int(last) if last.isdecimal() else last] = value
    except (IndexError, KeyError, TypeError, AttributeError, ValueError) as cause:
        raise RecipeError(f"{source}{key}: the recipe has no place {key!r}") from cause


def _value(given: str) -> Any:
    """A TOML value, or the text itself where it is none (so that paths and names need no quotes)."""
    try:
        return tomllib.loads(f"value = {given}")["value"]
    except tomllib.TOMLDecodeError:
        return given


def _says(text: str, plain: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == plain
    except tomllib.TOMLDecodeError:
        return False
