"""A space tried out on its recipe: the ends of every range and every choice, judged by the recipe's own checks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.recipe import changed
from bench.search.parameters import Choice, Option, Parameter, draw, put

if TYPE_CHECKING:
    from bench.recipe import Recipe

__all__ = ["value_problems"]

#: What a search leaves alone, and why.
_FIXED = {
    "experiment": "it names the study",
    "seeds": "a trial is one run; search.seeds are those of the winner",
    "search": "it says how the search goes",
    "export": "no trial is exported",
    "data.validation": "trials are compared on one validation split",
    "data.test": "trials are compared on one split of the images",
    "data.split_seed": "trials are compared on one split of the images",
}

#: How many combinations are tried once everything is right by itself; one takes about 10 ms.
_NUM_COMBINATIONS = 24


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A value to try. `names` says which parameter of the space stands behind which key of the recipe."""

    value: Any
    names: dict[str, str] = field(default_factory=dict)


def value_problems(parameters: Sequence[Parameter], recipe: Recipe) -> list[str]:
    """What the recipe's types refuse, each problem once, as "search.space.KEY: what is wrong"."""
    found: dict[str, None] = {}
    for parameter in parameters:
        reason = next((why for key, why in _FIXED.items() if f"{parameter.name}.".startswith(f"{key}.")), None)
        if reason:
            found[f"search.space.{parameter.name}: cannot be searched: {reason}"] = None
            continue
        for context in _contexts(parameter, parameters):
            for attempt in _attempts(parameter, parameter.name):
                changes = {key: tried.value for key, tried in context.items()} | {parameter.name: attempt.value}
                names = {key: name for tried in context.values() for key, name in tried.names.items()}
                found |= dict.fromkeys(_refused(recipe, changes, names | attempt.names, parameter.name))
    return list(found) or _joint_problems(parameters, recipe)


def _joint_problems(parameters: Sequence[Parameter], recipe: Recipe) -> list[str]:
    """What contradicts itself only in some combinations: as many ends of everything as show most of them."""
    from optuna.trial import FixedTrial

    generator = random.Random(0)  # noqa: S311  # no secret
    found: dict[str, None] = {}
    for _ in range(_NUM_COMBINATIONS):
        trial = FixedTrial(_ends(parameters, generator))
        changes = {parameter.name: draw(parameter, trial) for parameter in parameters}
        for problem in _problems_of(recipe, changes):
            text = f"search.space: some combinations are refused: {problem}; what belongs together can be one choice"
            found[text] = None
    return list(found)


def _ends(parameters: Sequence[Parameter], generator: random.Random) -> dict[str, Any]:
    """A combination of ends of ranges and options, for Optuna's names."""
    found: dict[str, Any] = {}
    for parameter in parameters:
        if isinstance(parameter.spec, Choice):
            option = generator.choice(parameter.spec.options)
            found |= {parameter.name: option.label, **_ends(option.inner, generator)}
        else:
            found[parameter.name] = generator.choice([parameter.spec.low, parameter.spec.high])
    return found


def _contexts(parameter: Parameter, parameters: Sequence[Parameter]) -> Iterator[dict[str, _Attempt]]:
    """What may stand around a key: every option of a choice that replaces a table above it, else the recipe alone."""
    above = [other for other in parameters if parameter.name.startswith(f"{other.name}.")]
    if not above:
        yield {}
        return
    for attempt in _first_attempts(above[-1]):
        yield {above[-1].name: attempt}


def _first_attempts(parameter: Parameter) -> Iterator[_Attempt]:
    """One value for each option."""
    if isinstance(parameter.spec, Choice):
        for option in parameter.spec.options:
            yield _plainest(option, parameter.name)
    else:
        yield _Attempt(_least(parameter), {parameter.name: parameter.name})


def _attempts(parameter: Parameter, key: str) -> Iterator[_Attempt]:
    """Both ends of a range; every option of a choice, and inside of it the same for one parameter after the other."""
    names = {key: parameter.name}
    if not isinstance(parameter.spec, Choice):
        whole = int if parameter.spec.form == "int" else float
        yield from (_Attempt(whole(end), names) for end in (parameter.spec.low, parameter.spec.high))
        return
    for option in parameter.spec.options:
        plain = _plainest(option, key)
        yield _Attempt(plain.value, names | plain.names)
        for inner in option.inner:
            rest = {other.path: _least(other) for other in option.inner}
            for attempt in _attempts(inner, _joined(key, inner)):
                value = put(option.value, rest | {inner.path: attempt.value})
                yield _Attempt(value, names | plain.names | attempt.names)


def _plainest(option: Option, key: str) -> _Attempt:
    """An option with the first value of everything inside of it."""
    value = put(option.value, {inner.path: _least(inner) for inner in option.inner})
    return _Attempt(value, {_joined(key, inner): inner.name for inner in option.inner})


def _least(parameter: Parameter) -> Any:
    if isinstance(parameter.spec, Choice):
        return _plainest(parameter.spec.options[0], "").value
    return (int if parameter.spec.form == "int" else float)(parameter.spec.low)


def _joined(key: str, inner: Parameter) -> str:
    """The key of the recipe that an inner parameter sets."""
    return ".".join([key, *map(str, inner.path)])


def _refused(recipe: Recipe, changes: Mapping[str, Any], names: Mapping[str, str], varied: str) -> Iterator[str]:
    """The recipe's problems with some changes, in terms of the space."""
    for problem in _problems_of(recipe, changes):
        key, colon, reason = problem.partition(": ")
        owner = max((place for place in names if f"{key}.".startswith(f"{place}.")), key=len, default=None)
        if colon and owner == key:
            yield f"search.space.{names[owner]}: {reason}"
        else:
            yield f"search.space.{names[owner] if owner else varied}: {problem}"


def _problems_of(recipe: Recipe, changes: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        changed(recipe, changes)
    except BenchError as error:
        return getattr(error, "problems", ()) or (str(error),)
    return ()
