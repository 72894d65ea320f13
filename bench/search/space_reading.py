"""[search.space] read: what has the wrong form is told with its key, everything at once."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from bench.registry import near_miss
from bench.search.parameters import Choice, Option, Parameter, Path, Range, exact, words

__all__ = ["FORMS", "read"]

FORMS = ("float", "int", "choice")
_ALLOWED = "{float = [lo, hi]}, {int = [lo, hi]} or {choice = [...]}"
_KEYS = {"float": {"float", "log", "step"}, "int": {"int", "log", "step"}, "choice": {"choice"}}

#: Labels longer than this are replaced by a number.
_LONGEST_LABEL = 40


def read(space: Mapping[str, Any]) -> tuple[tuple[Parameter, ...], list[str]]:
    """(the parameters in the order of their names, problems as "search.space.KEY: what is wrong")."""
    problems: list[str] = []
    found: dict[str, Parameter] = {}
    for name, spec in _flat(space, "", problems):
        if name in found:
            problems.append(f"search.space.{name}: given twice")
        parameter = _parameter(name, spec, (), problems)
        if parameter:
            found[name] = parameter
    if not space:
        problems.append(f"search.space: empty; write key = {_ALLOWED}")
    return tuple(found[name] for name in sorted(found)), problems


def _flat(table: Mapping[str, Any], prefix: str, problems: list[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Dotted key -> its spec, whether the key was written quoted or as tables in tables."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if _is_spec(value):
            yield name, value
        elif isinstance(value, dict) and value and all(isinstance(inner, dict) for inner in value.values()):
            yield from _flat(value, f"{name}.", problems)
        else:
            given = json.dumps(value)[:60]
            miss = next((near for inner in value if (near := near_miss(inner, FORMS))), "") if _keys(value) else ""
            problems.append(f"search.space.{name}: must be {_ALLOWED}, but {given} was given{miss}")


def _keys(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def _is_spec(value: Any) -> bool:
    return isinstance(value, dict) and any(form in value for form in FORMS)


def _parameter(name: str, spec: dict[str, Any], path: Path, problems: list[str]) -> Parameter | None:
    """One parameter, or None with its problems told."""
    forms = [form for form in FORMS if form in spec]
    if len(forms) > 1:
        problems.append(f"search.space.{name}: one of {' and '.join(forms)}, not both")
        return None
    [form] = forms
    faults = [
        f"search.space.{name}.{key}: unknown key{near_miss(key, _KEYS[form]) or f'; allowed: {_allowed(form)}'}"
        for key in spec
        if key not in _KEYS[form]
    ]
    values = spec[form]
    if form == "choice":
        read_spec: Range | Choice | None = _choice(name, values, faults)
    else:
        read_spec = _range(name, form, spec, faults)
    problems += faults
    return None if read_spec is None or faults else Parameter(name, read_spec, path)


def _allowed(form: str) -> str:
    return ", ".join(sorted(_KEYS[form]))


def _range(name: str, form: str, spec: Mapping[str, Any], faults: list[str]) -> Range | None:
    key, ends = f"search.space.{name}", spec[form]
    kinds = (int,) if form == "int" else (int, float)
    if not (isinstance(ends, list) and len(ends) == 2 and all(_is_number(end, kinds) for end in ends)):  # noqa: PLR2004  # both ends
        what = "whole numbers" if form == "int" else "finite numbers"
        faults.append(f"{key}: {form} must be two {what} [lo, hi], but {json.dumps(ends)[:60]} was given")
        return None
    log, step = spec.get("log", False), spec.get("step")
    low, high = ends if form == "int" else map(float, ends)
    found = []
    if not isinstance(log, bool):
        found.append(f"log must be true or false, but {json.dumps(log)[:60]} was given")
    if low >= high:
        found.append(f"the range {json.dumps(ends)} is empty: lo must be less than hi")
    if log is True and low <= 0:
        found.append(f"log needs lo > 0, but {json.dumps(ends[0])} was given")
    if step is not None and not (_is_number(step, kinds) and step > 0):
        found.append(
            f"step must be a{' whole' if form == 'int' else ''} number above 0, but {json.dumps(step)} was given"
        )
    elif step is not None and log is True:
        found.append("log and step exclude each other")
    elif step is not None and low < high:
        found += _uneven(low, high, step)
    faults += [f"{key}: {fault}" for fault in found]
    if form == "int":
        step = 1 if step is None else step
    return None if found else Range(form, low, high, step if form == "int" or step is None else float(step), log)


def _uneven(low: float, high: float, step: float) -> list[str]:
    """A range that its steps do not fill."""
    rest = (exact(high) - exact(low)) % exact(step)
    if not rest:
        return []
    last = exact(high) - rest
    if last == exact(low):
        return [f"step {step} is larger than the range"]
    return [f"steps of {step} from {low} do not end at {high} but at {last}; write that as hi"]


def _is_number(value: Any, kinds: tuple[type[float], ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


def _choice(name: str, values: Any, faults: list[str]) -> Choice | None:
    if not isinstance(values, list) or not values:
        given = json.dumps(values)[:60]
        faults.append(f"search.space.{name}: choice must be an array with at least one value, but {given} was given")
        return None
    texts = [json.dumps(value, sort_keys=True) for value in values]
    faults += [
        f"search.space.{name}: choice has {text[:60]} twice" for text in dict.fromkeys(texts) if texts.count(text) > 1
    ]
    labels = _labels(values)
    # MLflow and shells take these characters in the name of a parameter.
    prefixes = _distinct(re.sub(r"[^0-9A-Za-z_-]+", "_", str(label)).strip("_") or "value" for label in labels)
    return Choice(
        tuple(
            Option(label, value, tuple(_inner(value, f"{name}.{prefix}", (), faults)))
            for label, prefix, value in zip(labels, prefixes, values, strict=True)
        )
    )


def _inner(value: Any, prefix: str, path: Path, faults: list[str]) -> Iterable[Parameter]:
    """The parameters inside of a choice's value."""
    if _is_spec(value):
        parameter = _parameter(prefix, value, path, faults)
        if parameter:
            yield parameter
    elif isinstance(value, dict | list):
        steps = value.items() if isinstance(value, dict) else enumerate(value)
        for step, inside in steps:
            yield from _inner(inside, f"{prefix}.{step}", (*path, step), faults)


def _labels(values: list[Any]) -> list[Any]:
    """What stands for each value in the study: itself where it is a plain one, otherwise a text of its own."""
    plain = all(isinstance(value, str | int | float) for value in values)
    if plain and all(values.count(value) == 1 for value in values):  # True and 1 are the same to Optuna
        return values
    return _distinct(_label(value, number) for number, value in enumerate(values, start=1))


def _distinct(texts: Iterable[str]) -> list[str]:
    """The texts, with a number behind those that were there before."""
    found: list[str] = []
    for text in texts:
        numbered = itertools.chain([text], (f"{text}-{number}" for number in itertools.count(2)))
        found.append(next(candidate for candidate in numbered if candidate not in found))
    return found


def _label(value: Any, number: int) -> str:
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return str(value["name"])
    if _is_spec(value):
        faults: list[str] = []
        parameter = _parameter("", value, (), faults)
        return words(parameter.spec) if parameter else f"value {number}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST_LABEL else f"value {number}"
