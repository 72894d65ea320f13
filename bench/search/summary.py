"""What a study came to, as plain values: what the terminal, --json, the page and MLflow show."""

from __future__ import annotations

import json
import math
import re
import statistics
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import record
from bench.run_info import readable
from bench.search.claim import counted
from bench.search.front import (
    feasible,
    front,
    hypervolume,
    knee,
    losses,
    metric_names,
    nearest,
    reference_point,
    usable,
)
from bench.search.noise import noise
from bench.search.pruning import curve_of
from bench.search.winner import by_first_metric, retrained

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from bench.record import Run

__all__ = ["STATES", "state_of", "summarise"]

#: What may have become of a trial, in the order in which it is told.
STATES = ("complete", "pruned", "infeasible", "failed", "running", "waiting")

#: Importances are estimated from this many trials on, and from half as many above the quantile that counts as good.
_FEWEST_TRIALS = 10

_MOST_CAUSES = 3

#: What tells the runs of one trial apart.
_PART = re.compile(r"(-f\d+)?-s\d+$")


def summarise(study: Study) -> dict[str, Any]:
    """Everything about a study: trials, states, time, front or best, knee, noise, importances, history, winner.

    Reads the runs' records for epochs and predictions; trials whose folders are gone are told from the study alone.
    """
    trials = counted(study)
    folders = {run.name: run for run in record.list_runs()}
    runs = {one.number: folders[name] for one in trials if (name := one.user_attrs.get("run")) in folders}
    parts = _parts(runs, folders)
    most = max(map(len, parts.values()), default=1)
    best = by_first_metric(study)
    best_front = front(study)
    several = len(study.directions) > 1
    closest = nearest(study) if not best_front else None
    rows = [_trial(one, parts.get(one.number, []), most) for one in trials]
    found = noise(best, runs)
    return {
        "study": study.study_name,
        "objectives": _objectives(study),
        "states": _states(trials),
        "seconds": sum(row["seconds"] or 0.0 for row in rows),
        "wall_seconds": _wall_seconds(trials),
        "epochs": _epochs(rows),
        "best": best[0].number if best else None,
        "front": [one.number for one in best_front] if several else [],
        "knee": knee(study).number if several and best_front else None,
        "hypervolume": _hypervolume(study) if several and best_front else None,
        "nearest": None if closest is None else {"number": closest.number, "constraints": dict(closest.constraints)},
        "noise": found.as_json(first_runs=most > 1) if found else None,
        "importances": _importances(study),
        "history": _history(study),
        "causes": _causes(trials, runs),
        "winners": _winners(study, trials),
        "trials": rows,
    }


def state_of(trial: FrozenTrial) -> str:
    """complete, pruned, infeasible (a constraint is missed), failed, running or waiting."""
    name = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}.get(
        trial.state.name, "waiting"
    )
    return name if feasible(trial) or name not in {"complete", "pruned"} else "infeasible"


def _objectives(study: Study) -> list[dict[str, str]]:
    pairs = zip(metric_names(study), study.directions, strict=True)
    return [{"metric": name, "direction": direction.name.lower()} for name, direction in pairs]


def _states(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    counts = Counter(map(state_of, trials))
    return {state: counts[state] for state in STATES}


def _parts(first: Mapping[int, Run], folders: Mapping[str, Run]) -> dict[int, list[Run]]:
    """All runs of each trial: under the pruner for seeds and folds there are several, whose names begin alike."""
    begun: dict[str, list[Run]] = {}
    for name, run in folders.items():
        begun.setdefault(_PART.sub("", name), []).append(run)
    return {number: begun[_PART.sub("", run.name)] for number, run in first.items()}


def _trial(trial: FrozenTrial, runs: Sequence[Run], most: int) -> dict[str, Any]:
    curve = {str(step): value for step, value in curve_of(trial).items() if math.isfinite(value)}
    return {
        "number": trial.number,
        "state": state_of(trial),
        "values": list(trial.values) if trial.values else None,
        "params": dict(trial.params),
        "constraints": dict(trial.constraints),
        "costs": trial.user_attrs.get("costs"),
        "seconds": trial.duration.total_seconds() if trial.duration else None,
        "run": trial.user_attrs.get("run"),
        "curve": curve,
        **_lengths(trial, runs, most),
    }


def _lengths(trial: FrozenTrial, runs: Sequence[Run], most: int) -> dict[str, int | None]:
    """Epochs that were trained, and that the plan asked for in as many runs as a trial has."""
    trained = sum(len({line["epoch"] for line in run.epochs()}) for run in runs) if runs else len(curve_of(trial))
    try:
        plan = runs[0].folder / "plan.json" if runs else None
        planned = most * json.loads(plan.read_text(encoding="utf-8"))["epochs"] if plan else None
    except (OSError, ValueError, KeyError):
        planned = None
    return {"epochs": trained, "planned_epochs": planned}


def _epochs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Epochs of all trials, those that they would have been without pruning, and where trials were pruned."""
    pruned = [row["epochs"] for row in rows if row["state"] == "pruned" and row["epochs"]]
    saved = sum(
        max(0, row["planned_epochs"] - row["epochs"])
        for row in rows
        if row["state"] == "pruned" and row["planned_epochs"]
    )
    trained = sum(row["epochs"] for row in rows)
    middle = statistics.median_low(pruned) if pruned else None
    return (
        {"trained": trained, "unpruned": trained + saved, "pruned_after": [min(pruned), middle, max(pruned)]}
        if (pruned)
        else {"trained": trained, "unpruned": trained, "pruned_after": None}
    )


def _wall_seconds(trials: Sequence[FrozenTrial]) -> float:
    """From the first trial's start to the last one's end, the pauses between several calls included."""
    starts = [one.datetime_start for one in trials if one.datetime_start]
    ends = [one.datetime_complete for one in trials if one.datetime_complete]
    return max(0.0, (max(ends) - min(starts)).total_seconds()) if starts and ends else 0.0


def _hypervolume(study: Study) -> dict[str, Any]:
    reference = reference_point(study)
    return {"value": hypervolume(study, reference), "reference": list(reference)}


def _importances(study: Study) -> dict[str, dict[str, float]]:
    """Objective -> parameter -> its share; {} where there are too few trials, or nothing to tell apart.

    PED-ANOVA (Watanabe et al., arXiv:2304.10255), which knows conditional parameters: how much a parameter decides
    whether a trial is among the best tenth, or among the best five.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < _FEWEST_TRIALS:
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, _FEWEST_TRIALS / 2 / len(complete)))
    found = {}
    for index, name in enumerate(metric_names(study)):
        if len({one.values[index] for one in complete}) < 2:  # noqa: PLR2004  # all alike
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the smaller is taken for the better, as it is here
            shares = get_param_importances(study, evaluator=evaluator, target=partial(_loss, study, index))
        found[name] = {key: float(value) for key, value in shares.items()}
    return found


def _loss(study: Study, index: int, trial: FrozenTrial) -> float:
    return losses(study, trial)[index]


def _history(study: Study) -> list[dict[str, Any]]:
    """The best value so far of each objective after each usable trial, and the trial's own."""
    best: list[float] = [math.inf] * len(study.directions)
    signs = [-1.0 if direction.name == "MAXIMIZE" else 1.0 for direction in study.directions]
    history = []
    for trial in usable(study):
        best = [min(pair) for pair in zip(best, losses(study, trial), strict=True)]
        history.append({"number": trial.number, "best": [s * v for s, v in zip(signs, best, strict=True)]})
    return history


def _causes(trials: Sequence[FrozenTrial], runs: Mapping[int, Run]) -> list[dict[str, Any]]:
    """The commonest errors of failed trials."""
    failed = [one for one in trials if state_of(one) == "failed"]
    recorded = readable(runs[one.number] for one in failed if one.number in runs)
    said = {run.name: info.get("error") for run, info in recorded}
    texts = [one.user_attrs.get("error") or said.get(one.user_attrs.get("run", "")) or "unknown" for one in failed]
    return [{"error": text, "trials": count} for text, count in Counter(texts).most_common(_MOST_CAUSES)]


def _winners(study: Study, trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """What retraining came to: runs, and the mean accuracies of their seeds."""
    from bench.group import summarise as summarise_group

    found = []
    noted = study.user_attrs.get("retrained") or {}
    for trial in (one for one in trials if str(one.number) in noted):
        infos = [info for run in retrained(study, trial) if "metrics" in (info := run.info())]
        if infos:
            names = [f"{info['group']}-s{info['seed']}" for info in infos]
            accuracy = summarise_group(infos) if len(infos) > 1 else _single(infos[0]["metrics"])
            found.append({"trial": trial.number, "group": infos[0]["group"], "runs": names, "accuracy": accuracy})
    return found


def _single(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    found = {}
    for prefix in ("test", "val"):
        if f"{prefix}_accuracy" in metrics:
            keys = {"mean": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}
            found[prefix] = {key: metrics[f"{prefix}_{name}"] for key, name in keys.items()}
    return found
