"""What a search may vary: ranges and choices, how a trial draws from them, and how many values they have."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

__all__ = ["Choice", "Option", "Parameter", "Path", "Range", "count", "draw", "exact", "nth", "put", "words"]

#: The way from a chosen value to a place inside of it.
Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers from low to high, both included; in steps, or evenly on a logarithmic scale."""

    form: str  # "float" or "int"
    low: float
    high: float
    step: float | None = None
    log: bool = False

    def count(self) -> int | None:
        """How many values there are; None: as many as there are floats."""
        if self.step is None:
            return None
        return int((exact(self.high) - exact(self.low)) / exact(self.step)) + 1

    def nth(self, index: int) -> float:
        """The value at a position, from low on."""
        value = exact(self.low) + index * exact(self.step or 0)
        return int(value) if self.form == "int" else float(value)


@dataclass(frozen=True, slots=True)
class Option:
    """One of the values of a choice. `inner` are the parameters inside of it, which exist where it is chosen."""

    label: str | float
    value: Any
    inner: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values of any TOML type."""

    options: tuple[Option, ...]

    def option(self, label: Any) -> Option:
        """The option of a label."""
        return next(option for option in self.options if option.label == label)


@dataclass(frozen=True, slots=True)
class Parameter:
    """What is drawn under one name. `path` leads to its place in the value of the choice that it belongs to."""

    name: str
    spec: Range | Choice
    path: Path = ()


def draw(parameter: Parameter, trial: BaseTrial) -> Any:
    """A TOML value for this trial, everything inside of it drawn too."""
    spec, name = parameter.spec, parameter.name
    if isinstance(spec, Choice):
        option = spec.option(trial.suggest_categorical(name, [option.label for option in spec.options]))
        return put(option.value, {inner.path: draw(inner, trial) for inner in option.inner})
    if spec.form == "int":
        return trial.suggest_int(name, int(spec.low), int(spec.high), step=int(spec.step or 1), log=spec.log)
    drawn = trial.suggest_float(name, spec.low, spec.high, step=spec.step, log=spec.log)
    return (
        drawn if spec.step is None else spec.nth(round((drawn - spec.low) / spec.step))
    )  # 0.3, not 0.30000000000000004


def put(value: Any, inner: Mapping[Path, Any]) -> Any:
    """A copy of the value with other ones in its places."""
    value = copy.deepcopy(value)
    for path, drawn in inner.items():
        if not path:
            return drawn
        place = reduce(lambda found, step: found[step], path[:-1], value)
        place[path[-1]] = drawn
    return value


def count(parameter: Parameter) -> int | None:
    """How many values a parameter can have; None where it is continuous."""
    if isinstance(parameter.spec, Range):
        return parameter.spec.count()
    return _total(count_inner(option) for option in parameter.spec.options)


def count_inner(option: Option) -> int | None:
    """How many values an option stands for."""
    counts = [count(inner) for inner in option.inner]
    return None if None in counts else reduce(lambda one, other: one * (other or 0), counts, 1)


def nth(parameters: tuple[Parameter, ...], index: int) -> dict[str, Any]:
    """One combination of parameters that can be counted: name -> value, or label of a choice; the last varies fastest."""
    found: dict[str, Any] = {}
    for parameter in reversed(parameters):
        index, position = divmod(index, count(parameter) or 1)
        found = _nth_of(parameter, position) | found
    return found


def _nth_of(parameter: Parameter, index: int) -> dict[str, Any]:
    if isinstance(parameter.spec, Range):
        return {parameter.name: parameter.spec.nth(index)}
    for option in parameter.spec.options:
        size = count_inner(option) or 0
        if index < size:
            return {parameter.name: option.label, **nth(option.inner, index)}
        index -= size
    raise IndexError(index)


def words(spec: Range | Choice) -> str:
    """A range or a choice for people: "0.001 to 0.1, log", "one of 32, 64"."""
    if isinstance(spec, Choice):
        return f"one of {', '.join(_plain(option.label) for option in spec.options)}"
    ends = f"{_plain(spec.low)} to {_plain(spec.high)}"
    steps = spec.step is not None and not (spec.form == "int" and spec.step == 1)
    return ends + (f" in steps of {_plain(spec.step)}" if steps else "") + (", log" if spec.log else "")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def exact(number: float) -> Decimal:
    """A number as it is written, so that 0.1 + 0.2 is 0.3."""
    return Decimal(str(number))


def _total(counts: Iterator[int | None]) -> int | None:
    found = list(counts)
    return None if None in found else sum(number or 0 for number in found)
