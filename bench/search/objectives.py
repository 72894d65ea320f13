"""What a search optimises and what its trials must hold: metrics of the validation split, and the costs of deployment."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from bench.errors import RecipeError
from bench.registry import near_miss
from bench.tables import METRICS, METRICS_OF, larger_is_better

if TYPE_CHECKING:
    from bench.kinds import Task
    from bench.recipe import Recipe

__all__ = ["COSTS", "Constraint", "Objective", "constraints", "objectives", "parse_constraint"]

#: What deployment costs: milliseconds and 10^6 bytes of the exported file, and the model's own numbers.
COSTS = ("latency_ms", "size_mb", "parameters", "macs")

Direction: TypeAlias = Literal["maximize", "minimize"]
Sign: TypeAlias = Literal["<=", ">=", "<", ">"]

_PREFIX = "val_"
_WRITTEN = re.compile(r"\s*(?P<metric>[^<>=!\s]+)\s*(?P<sign>[<>=!]+)\s*(?P<limit>[^<>=!\s].*?)\s*", re.DOTALL)
_EXAMPLE = '"latency_ms <= 5"'


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric and which way it improves; a cost is known before a trial trains."""

    metric: str
    direction: Direction
    is_cost: bool


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a metric must hold, as `metric sign limit`."""

    metric: str
    sign: Sign
    limit: float

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.limit:.12g}"

    @property
    def is_cost(self) -> bool:
        """Whether it is known before a trial trains."""
        return self.metric in COSTS

    def violation(self, value: float) -> float:
        """How far a value is off, in the metric's own unit: at most 0 where the constraint holds.

        Infinite for a value that is no number.
        """
        if math.isnan(value):
            return math.inf
        if value == self.limit:
            return 0.0 if "=" in self.sign else math.ulp(1.0)
        return value - self.limit if self.sign[0] == "<" else self.limit - value


def objectives(recipe: Recipe, *, task: Task | None = None) -> tuple[Objective, ...]:
    """The recipe's search.metrics in their order, or its train.monitor; with `task`, only metrics that the task has.

    Raises RecipeError with everything that is wrong with metrics and constraints.
    """
    return _read(recipe, task)[0]


def constraints(recipe: Recipe, *, task: Task | None = None) -> tuple[Constraint, ...]:
    """The recipe's search.constraints in their order. Raises RecipeError as `objectives` does."""
    return _read(recipe, task)[1]


def parse_constraint(text: str, *, task: Task | None = None) -> Constraint:
    """A constraint as it is written: a metric, one of <=, >=, < and >, and a number.

    Raises RecipeError where it is not of this form, or where no value can hold it.
    """
    try:
        return _parsed(text, task)
    except ValueError as cause:
        raise RecipeError(f"search.constraints: {cause}", hint=f"search.constraints = [{_EXAMPLE}]") from cause


def _read(recipe: Recipe, task: Task | None) -> tuple[tuple[Objective, ...], tuple[Constraint, ...]]:
    table = recipe.search
    problems: list[str] = []
    key = "search.metrics" if table.metrics else "train.monitor, which search.metrics is by default"
    names = table.metrics or (recipe.train.monitor,)
    problems += [f"{key}: {problem}" for name in names if (problem := _unknown(name, task))]
    problems += [f"{key}: {name!r} stands there twice" for name in _repeated(names)]
    limits = []
    for text in table.constraints:
        try:
            limits.append(_parsed(text, task))
        except ValueError as cause:
            problems.append(f"search.constraints: {cause}")
    problems += [f"search.constraints: {problem}" for problem in _contradictions(limits)]
    if not problems and all(name in COSTS for name in (*names, *(one.metric for one in limits))):
        problems.append(
            f"search.metrics: {' and '.join(names)} alone would choose the smallest model, however bad it is"
        )
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        hint = 'search.metrics = ["val_accuracy", "latency_ms"]'
        raise RecipeError(f"{recipe.path}: {count}", problems=problems, hint=hint)
    return tuple(map(_objective, names)), tuple(limits)


def _objective(name: str) -> Objective:
    is_cost = name in COSTS
    return Objective(name, "maximize" if not is_cost and larger_is_better(name) else "minimize", is_cost)


def _unknown(name: str, task: Task | None) -> str | None:
    """Why a search cannot go by a metric; None where it can."""
    known = [*(f"{_PREFIX}{metric}" for metric in (METRICS_OF[task] if task else METRICS)), *COSTS]
    if name in known:
        return None
    if name.startswith("test_"):
        twin = name.replace("test_", _PREFIX, 1)
        instead = f"; {twin!r} is what it may see" if twin in known else ""
        return f"{name!r}: a search must not see the test set{instead}"
    if name.startswith("train_"):
        return f"{name!r}: the training images say nothing about others; use a metric of the validation split"
    if task and name.removeprefix(_PREFIX) in METRICS and name.startswith(_PREFIX):
        return f"{name!r} is not measured for {task}; known: {', '.join(known)}"
    return f"there is no {name!r}{near_miss(name, known) or '; known: ' + ', '.join(known)}"


def _parsed(text: str, task: Task | None) -> Constraint:
    """Raises ValueError in words."""
    written = _WRITTEN.fullmatch(text)
    if written is None:
        raise ValueError(f"{text!r} is not of the form METRIC SIGN NUMBER, such as {_EXAMPLE}")
    metric, sign, number = written["metric"], written["sign"], written["limit"]
    if sign not in {"<=", ">=", "<", ">"}:
        raise ValueError(f"{text!r}: the sign {sign!r} is none of <=, >=, < and >")
    if problem := _unknown(metric, task):
        swapped = _as_number(metric) is not None
        raise ValueError(f"{text!r}: the metric stands first, then the number" if swapped else f"{text!r}: {problem}")
    limit = _as_number(number)
    if limit is None or not math.isfinite(limit):
        raise ValueError(f"{text!r}: {number!r} is not a number; units stand in the metric's name")
    constraint = Constraint(metric, sign, limit)  # type: ignore[arg-type]  # one of the four, as was just seen
    low, high = _range(metric)
    if constraint.violation(low if sign[0] == "<" else high) > 0:
        bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
        raise ValueError(f"{text!r}: no trial can hold this, as {metric} is {bounds}")
    return constraint


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _range(metric: str) -> tuple[float, float]:
    """The smallest and the largest value that a metric can have: accuracies are shares, losses and costs are not."""
    return (0.0, math.inf if metric in COSTS or metric.endswith("loss") else 1.0)


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _contradictions(limits: list[Constraint]) -> list[str]:
    """Pairs of constraints that no value holds together."""
    upper = [one for one in limits if one.sign[0] == "<"]
    lower = [one for one in limits if one.sign[0] == ">"]
    pairs = [(low, high) for high in upper for low in lower if high.metric == low.metric]
    return [
        f'"{low}" and "{high}" contradict each other'
        for low, high in pairs
        if low.limit > high.limit or (low.limit == high.limit and "=" not in low.sign + high.sign)
    ]
