"""The space of a search: read from [search.space], checked against the recipe, drawn from by trials."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from bench.errors import RecipeError
from bench.search.parameters import Choice, Option, Parameter, Range, count, draw, nth, put, words
from bench.search.space_checking import value_problems
from bench.search.space_reading import read

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from bench.recipe import Recipe

__all__ = ["Space", "parse_space", "space_from_json"]

_HINT = 'write "optimizer.lr" = {float = [1e-4, 1e-1], log = true}; recipes/README.md lists every key'


@dataclass(frozen=True, slots=True)
class Space:
    """What trials vary, in the order of the names: a table comes before the keys inside of it."""

    parameters: tuple[Parameter, ...]

    @property
    def conditional(self) -> bool:
        """Whether some parameters exist only where an option is chosen."""
        return any(_inner(parameter) for parameter in self.parameters)

    def check(self, recipe: Recipe) -> None:
        """Try the ends of every range and every option on the recipe.

        Raises RecipeError with every problem at once: keys that the recipe does not have, values that its types refuse.
        """
        _raise(recipe, value_problems(self.parameters, recipe))

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """Dotted recipe key -> TOML value for this trial, as `bench.recipe.changed` takes it."""
        return {parameter.name: draw(parameter, trial) for parameter in self.parameters}

    def size(self) -> int | None:
        """The number of combinations; None where a range is continuous."""
        counts = [count(parameter) for parameter in self.parameters]
        return None if None in counts else prod(number or 0 for number in counts)

    def continuous(self) -> tuple[str, ...]:
        """The names of the ranges that cannot be counted: floats without a step."""
        every = [one for parameter in self.parameters for one in (parameter, *_inner(parameter))]
        return tuple(one.name for one in every if isinstance(one.spec, Range) and one.spec.count() is None)

    def combination(self, index: int) -> dict[str, Any]:
        """One of the `size()` combinations: Optuna's name -> value. What its options do not hold is not in it."""
        if not 0 <= index < (self.size() or 0):
            raise IndexError(index)
        return nth(self.parameters, index)

    def as_json(self) -> dict[str, Any]:
        """The space in one spelling, for `space_from_json`: dotted key -> spec. Spaces are equal where this is."""
        return {parameter.name: _spec(parameter) for parameter in self.parameters}

    def difference(self, other: Space) -> list[str]:
        """What this space has otherwise than an older one, in words; empty where they are equal."""
        ours, theirs = _described(self), _described(other)
        texts = []
        for name in sorted({*ours, *theirs}):
            now, before = ours.get(name), theirs.get(name)
            if now == before:
                continue
            if before is None:
                texts.append(f"{name}: {now}, was not searched")
            elif now is None:
                texts.append(f"{name}: is not searched, was {before}")
            else:
                texts.append(f"{name}: {now}, was {before}")
        return texts

    def rows(self) -> list[tuple[str, str, str]]:
        """For a table: name, values in words, how many there are. Conditional ones follow the choice they belong to."""
        every = [one for parameter in self.parameters for one in (parameter, *_inner(parameter))]
        return [(one.name, words(one.spec), _count_of(one.spec)) for one in every]


def parse_space(recipe: Recipe) -> Space:
    """Read a recipe's [search.space]. `Space.check` then tries it on the recipe.

    Raises RecipeError where it has the wrong form, with every problem at once, those of `Space.check` included.
    """
    parameters, problems = read(recipe.search.space)
    if problems:
        _raise(recipe, problems + value_problems(parameters, recipe))
    return Space(parameters)


def space_from_json(values: Mapping[str, Any]) -> Space:
    """A space as `Space.as_json` gave it."""
    return Space(read(values)[0])


def _raise(recipe: Recipe, problems: list[str]) -> None:
    if problems:
        count_of = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise RecipeError(f"{recipe.path}: {count_of}", problems=problems, hint=_HINT)


def _inner(parameter: Parameter) -> Iterator[Parameter]:
    """Every parameter inside of a choice, whatever the depth."""
    options: tuple[Option, ...] = parameter.spec.options if isinstance(parameter.spec, Choice) else ()
    for inner in (inner for option in options for inner in option.inner):
        yield inner
        yield from _inner(inner)


def _spec(parameter: Parameter) -> dict[str, Any]:
    spec = parameter.spec
    if isinstance(spec, Choice):
        return {
            "choice": [
                put(option.value, {inner.path: _spec(inner) for inner in option.inner}) for option in spec.options
            ]
        }
    step = None if spec.form == "int" and spec.step == 1 else spec.step
    return {spec.form: [spec.low, spec.high]} | ({"step": step} if step else {}) | ({"log": True} if spec.log else {})


def _described(space: Space) -> dict[str, str]:
    """Name -> the spec in words. Choices with tables say all that is in them where their labels do not."""
    found: dict[str, str] = {}
    for parameter in space.parameters:
        for one in (parameter, *_inner(parameter)):
            found[one.name] = _described_one(one.spec)
    return found


def _described_one(spec: Range | Choice) -> str:
    if isinstance(spec, Range):
        return f"{spec.form} {words(spec)}"
    values = [put(option.value, {inner.path: "..." for inner in option.inner}) for option in spec.options]
    return f"one of {', '.join(json.dumps(value) for value in values)}"


def _count_of(spec: Range | Choice) -> str:
    number = len(spec.options) if isinstance(spec, Choice) else spec.count()
    return "continuous" if number is None else f"{number:,}"
