"""The best trials of a study: one, or the Pareto front with its knee and its hypervolume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

__all__ = [
    "feasible",
    "front",
    "hypervolume",
    "knee",
    "losses",
    "metric_names",
    "nearest",
    "reference_point",
    "usable",
    "validation_losses",
]


def metric_names(study: Study) -> tuple[str, ...]:
    """The names of a study's objectives, in the order of a trial's values."""
    known = study.metric_names or study.user_attrs.get("metrics") or ()
    names = tuple(str(one["metric"] if isinstance(one, dict) else one) for one in known)
    count = len(study.directions)
    return names if len(names) == count else tuple(f"objective {number}" for number in range(count))


def feasible(trial: FrozenTrial) -> bool:
    """Whether a trial holds every constraint that it was given (Optuna: values of at most 0)."""
    return all(value <= 0 for value in trial.constraints.values())


def usable(study: Study) -> list[FrozenTrial]:
    """The trials that came to their end with finite values and hold the constraints, in the order of their numbers."""
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [one for one in complete if feasible(one) and all(map(math.isfinite, one.values))]


def losses(study: Study, trial: FrozenTrial) -> tuple[float, ...]:
    """A trial's values with the sign that makes the smaller one the better one."""
    from optuna.study import StudyDirection

    signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in study.directions]
    return tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))


def front(study: Study) -> list[FrozenTrial]:
    """The usable trials that no other one beats in every objective, best in the first objective first.

    With one objective that is the best trial. Of trials with the same values the one with the lower validation loss
    stands for all, then the first one.
    """
    points: dict[tuple[float, ...], list[FrozenTrial]] = {}
    for trial in usable(study):
        points.setdefault(losses(study, trial), []).append(trial)
    kept = [points[point] for point in sorted(points) if not any(_dominates(other, point) for other in points)]
    known = validation_losses([trial for equal in kept if len(equal) > 1 for trial in equal])
    return [min(equal, key=lambda trial: (known.get(trial.number, math.inf), trial.number)) for equal in kept]


def validation_losses(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """Number -> the validation loss that a trial's run has recorded, as far as the runs are there."""
    from bench.record import list_runs
    from bench.run_info import readable

    numbers = {one.user_attrs["run"]: one.number for one in trials if one.user_attrs.get("run")}
    mine = readable(run for run in list_runs() if run.name in numbers) if numbers else ()
    metrics = {numbers[run.name]: info.get("metrics", {}) for run, info in mine}
    return {number: float(values["val_loss"]) for number, values in metrics.items() if "val_loss" in values}


def knee(study: Study) -> FrozenTrial:
    """The trial of the front that is nearest to the ideal point.

    Each objective is scaled to 0..1 over the front, the ideal point is 0 everywhere, and the distance is Euclidean:
    compromise programming (Yu, Management Science 19(8), 1973; Zeleny 1973). Unlike the distance to the chord between
    the front's ends it also names a trial in the middle where the front bends the wrong way. Raises BenchError where
    the front is empty.
    """
    trials = front(study)
    if not trials:
        raise BenchError(f"{study.study_name}: no trial has come to its end and holds the constraints")
    points = [losses(study, trial) for trial in trials]
    best, worst = [min(axis) for axis in zip(*points, strict=True)], [max(axis) for axis in zip(*points, strict=True)]

    def distance(point: Sequence[float]) -> float:
        return math.hypot(*((v - b) / (w - b) for v, b, w in zip(point, best, worst, strict=True) if w > b))

    return min(zip(points, trials, strict=True), key=lambda one: distance(one[0]))[1]


def hypervolume(study: Study, reference: Sequence[float] | None = None) -> float:
    """The volume between the front and a reference point, in the product of the objectives' units; larger is better.

    `reference` is one value an objective, in the objectives' own signs; default: `reference_point(study)`. Volumes of
    several studies can only be compared with one reference point for all. Trials beyond it count nothing. Computed
    exactly, by slicing objectives (While et al., IEEE Transactions on Evolutionary Computation 10(1), 2006).
    """
    if reference is None:
        if not usable(study):
            return 0.0
        reference = reference_point(study)
    corner = _signed(study, reference)
    points = [losses(study, trial) for trial in front(study)]
    return _volume([p for p in points if all(v < c for v, c in zip(p, corner, strict=True))], corner)


def reference_point(*studies: Study) -> tuple[float, ...]:
    """The worst value of each objective over the usable trials of all these studies, for `hypervolume`.

    The studies must have the same objectives. Raises BenchError where none has a usable trial.
    """
    found = [losses(study, trial) for study in studies for trial in usable(study)]
    if not found:
        raise BenchError("no trial has come to its end and holds the constraints", hint="run more trials")
    return _signed(studies[0], [max(axis) for axis in zip(*found, strict=True)])


def nearest(study: Study) -> FrozenTrial | None:
    """Of the trials that miss a constraint the one that misses by least; None where none does.

    Each constraint's excess counts as a share of its limit, so that units do not matter.
    """
    missed = [trial for trial in study.get_trials(deepcopy=False) if not feasible(trial)]
    return min(missed, key=_excess, default=None)


def _excess(trial: FrozenTrial) -> float:
    from bench.search.objectives import parse_constraint

    over = {name: value for name, value in trial.constraints.items() if value > 0}
    return sum(value / (abs(parse_constraint(name).limit) or 1.0) for name, value in over.items())


def _signed(study: Study, values: Sequence[float]) -> tuple[float, ...]:
    """Values of the objectives as losses, and back."""
    from optuna.study import StudyDirection

    pairs = zip(study.directions, values, strict=True)
    return tuple(-value if direction == StudyDirection.MAXIMIZE else value for direction, value in pairs)


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def _volume(points: Sequence[tuple[float, ...]], corner: tuple[float, ...]) -> float:
    """What points cover up to the corner, slice by slice along the first axis."""
    if len(corner) == 1:
        return corner[0] - min((point[0] for point in points), default=corner[0])
    ordered = sorted(points)
    ends = [*(point[0] for point in ordered[1:]), corner[0]]
    slices = (
        (end - point[0]) * _volume([p[1:] for p in ordered[: number + 1]], corner[1:])
        for number, (point, end) in enumerate(zip(ordered, ends, strict=False))
        if end > point[0]
    )
    return math.fsum(slices)
