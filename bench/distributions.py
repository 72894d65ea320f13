"""Named distributions for the start of a layer's parameters, as a recipe writes them: "normal(0, 0.01)"."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from bench.registry import near_miss

__all__ = ["Distribution", "parse_distribution"]

#: Name -> what stands between its parentheses.
_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "normal": ("mean", "std"),
    "uniform": ("low", "high"),
    "constant": ("value",),
    "zeros": (),
    "ones": (),
    "xavier_uniform": (),
    "xavier_normal": (),
    "kaiming_uniform": (),
    "kaiming_normal": (),
    "orthogonal": (),
}

#: These are made from a weight's numbers of inputs and outputs, which a bias lacks.
_FOR_WEIGHTS = ("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal")

_CALL = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*")


class Distribution(NamedTuple):
    """A distribution's name and its arguments, in the order of `bench.stages.initialise`'s functions."""

    name: str
    arguments: tuple[float, ...]


def parse_distribution(text: str, *, weights: bool = True) -> Distribution:
    """'normal(0, 0.01)' -> ("normal", (0.0, 0.01)). With `weights` false only what a bias can be drawn from.

    Raises ValueError with what is allowed and the near miss.
    """
    call = _CALL.fullmatch(text)
    name = call[1] if call else text
    allowed = [known for known in _ARGUMENTS if weights or known not in _FOR_WEIGHTS]
    if call is None or name not in _ARGUMENTS:
        miss = near_miss(name.partition("(")[0].strip(), allowed)
        raise ValueError(f"there is no distribution {text!r}{miss or f'; allowed: {_listed(allowed)}'}")
    if name not in allowed:
        raise ValueError(f"{name} is for weights only; a bias takes {_listed(allowed)}")
    arguments = _numbers(name, call[2] or "", text)
    _check_range(name, arguments, text)
    return Distribution(name, arguments)


def _numbers(name: str, inner: str, text: str) -> tuple[float, ...]:
    parts = inner.split(",") if inner.strip() else []
    try:
        arguments = tuple(float(part) for part in parts)
    except ValueError:
        arguments = (math.nan,)
    if len(arguments) != len(_ARGUMENTS[name]) or not all(map(math.isfinite, arguments)):
        raise ValueError(f"must be {_form(name)} with finite numbers, but {text!r} was given")
    return arguments


def _check_range(name: str, arguments: tuple[float, ...], text: str) -> None:
    if name == "normal" and arguments[1] < 0:
        raise ValueError(f"the std of a normal distribution is at least 0, but {text!r} was given")
    if name == "uniform" and arguments[0] > arguments[1]:
        raise ValueError(f"low must not be above high, but {text!r} was given")


def _form(name: str) -> str:
    return f"{name}({', '.join(_ARGUMENTS[name])})" if _ARGUMENTS[name] else name


def _listed(names: list[str]) -> str:
    return ", ".join(map(_form, names))
