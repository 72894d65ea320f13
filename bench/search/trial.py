"""One trial: changes -> recipe -> costs and constraints -> a run of its own, pruned early -> validation metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from bench.errors import Interrupted
from bench.record import Run
from bench.search.pruning import Curve
from bench.search.shared import Shared
from bench.search.trial_run import Job, Pruned, trained

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

    from bench.search.objectives import Constraint, Objective
    from bench.search.space import Space

__all__ = ["Shared", "TrialOutcome", "run_trial"]

State: TypeAlias = Literal["complete", "pruned", "failed", "infeasible", "interrupted"]


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """How a trial ended. `values` are those of the objectives, None where one of them is not known."""

    state: State
    values: list[float] | None = None
    run: Run | None = None
    error: str | None = None


def run_trial(
    shared: Shared,
    study: Study,
    trial: Trial,
    *,
    space: Space,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> TrialOutcome:
    """Run a trial, or go on with one whose process was killed, from its last checkpoint. The caller tells the study.

    What is wrong with a trial is its outcome. Raises only what the study's storage raises.
    """
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    job: Job | None = None
    try:
        job = _begin(shared, study, trial, space, objectives, constraints)
        if broken := _broken(job):
            return TrialOutcome("infeasible", _values(job, job.costs), None, broken)
        metrics = trained(job)
        unknown = {one.metric: math.nan for one in constraints}
        _constrain(job, {**unknown, **metrics})
        values = _values(job, metrics)
        missing = [one.metric for one in objectives if one.metric not in metrics]
        error = f"{' and '.join(missing)} cannot be computed for this trial" if missing else None
        return TrialOutcome("failed" if missing else "complete", values, job.run, error)
    except (OptunaError, SQLAlchemyError):
        raise
    except Pruned:
        return TrialOutcome("pruned", None, job.run if job else None)
    except (Interrupted, KeyboardInterrupt):
        return TrialOutcome("interrupted", None, job.run if job else None)
    except Exception as error:  # noqa: BLE001  # one trial's plugin, images or memory must not end the search
        return TrialOutcome("failed", None, job.run if job else None, str(error) or type(error).__name__)


def _begin(
    shared: Shared,
    study: Study,
    trial: Trial,
    space: Space,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> Job:
    from bench.recipe import changed

    recipe = changed(shared.recipe, space.suggest(trial))
    data = shared.data(recipe)
    frozen = study._storage.get_trial(trial._trial_id)  # noqa: SLF001  # Optuna has no public look at one trial
    curve = Curve(study, trial, objectives)
    return Job(shared, study, trial, objectives, constraints, recipe, data, frozen, curve)


def _broken(job: Job) -> str | None:
    """Measure the costs that count; the constraints among them that the model breaks, in words.

    What has constraints comes first: a model that breaks one needs no other measurement.
    """
    job.costs = dict(job.frozen.user_attrs.get("costs", {}))
    for some in (job.constraints, job.objectives):
        _measure(job, {one.metric for one in some if one.is_cost})
        if broken := _constrain(job, job.costs):
            return ", ".join(f"{one}: {job.costs[one.metric]:.4g}" for one in broken)
    return None


def _measure(job: Job, wanted: set[str]) -> None:
    """Add costs that are not known yet to the trial's."""
    if wanted <= set(job.costs):
        return
    from bench.search.costs import costs

    plan = job.shared.outline(job.recipe, job.data)
    job.costs |= costs(job.recipe, plan, job.data.spec, wanted=wanted)
    job.trial.set_user_attr("costs", job.costs)


def _constrain(job: Job, metrics: Mapping[str, float]) -> list[Constraint]:
    """Tell the study about the constraints on these metrics; those that are broken."""
    broken = []
    for one in job.constraints:
        if one.metric not in metrics:
            continue
        violation = one.violation(metrics[one.metric])
        if str(one) not in job.frozen.constraints:
            job.trial.set_constraint(str(one), violation)
            job.frozen = job.study._storage.get_trial(job.trial._trial_id)  # noqa: SLF001  # as above
        if violation > 0:
            broken.append(one)
    return broken


def _values(job: Job, metrics: Mapping[str, float]) -> list[float] | None:
    if any(one.metric not in metrics for one in job.objectives):
        return None
    return [float(metrics[one.metric]) for one in job.objectives]
