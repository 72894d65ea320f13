"""Which run is exported where none is named: the best finished one of the latest experiment, by the recipe's objective."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from bench.errors import BenchError
from bench.record import Run, list_runs, runs_folder
from bench.run_info import left_out, readable
from bench.tables import larger_is_better

__all__ = ["Choice", "Objective", "best_run", "objective_of", "winning_run"]


@dataclass(frozen=True, slots=True)
class Objective:
    """A run's metric that decides, and its value; `note` says where it is not the recipe's own."""

    metric: str
    value: float
    note: str = ""

    @property
    def rank(self) -> float:
        """The larger, the better; NaN is the worst."""
        value = self.value if larger_is_better(self.metric) else -self.value
        return -math.inf if math.isnan(value) else value


@dataclass(frozen=True, slots=True)
class Choice:
    """A run and why it was taken."""

    run: Run
    reason: str


def objective_of(info: dict[str, Any]) -> Objective:
    """The metric that decides between runs: the recipe's `train.monitor` on the held-out images.

    A recipe that holds no validation images out watches the training loss, which says nothing of new images; then it is
    the test accuracy, and the note says that the choice makes it optimistic.
    """
    metrics, asked = info.get("metrics") or {}, info.get("objective") or "val_accuracy"
    if asked.startswith("val_") and asked in metrics:
        return Objective(asked, metrics[asked])
    if "val_accuracy" in metrics:
        return Objective("val_accuracy", metrics["val_accuracy"])
    note = "no validation images were held out; chosen on the test images, so that accuracy is optimistic"
    return Objective("test_accuracy", metrics.get("test_accuracy", math.nan), note)


def best_run() -> Choice:
    """The best finished run of the experiment that was worked on last. Raises BenchError where there is none.

    Trials of a search were never tested, and reproductions show nothing new: neither is a candidate. The reason names
    runs whose run.json is damaged.
    """
    damaged: list[Run] = []
    known = [one for one in readable(list_runs(), damaged) if not {"trial", "reproduces"} & one[1].keys()]
    also = f"; {left_out(damaged)}" if damaged else ""
    finished = [(run, info) for run, info in known if info["status"] == "finished"]
    if not finished:
        stopped = f"; {len(known)} are not finished" if known else ""
        raise BenchError(
            f"no finished run in {runs_folder()}{stopped}{also}",
            hint="bench run RECIPE, or --resume for one that was stopped" if known else "bench run RECIPE",
        )
    experiment = finished[-1][1]["experiment"]
    best = _best([(run, info) for run, info in finished if info["experiment"] == experiment], experiment)
    return replace(best, reason=best.reason + also)


def winning_run(which: Literal["best", "knee", "fastest"]) -> Choice:
    """The run that stands for the winner of the study that was begun last, or for another point of its front."""
    from bench.search.known import find_study
    from bench.search.winner import run_of

    study = find_study()
    return Choice(run_of(study, which), f"the {which} of the study {study.study_name}")


def _best(candidates: Iterable[tuple[Run, dict[str, Any]]], experiment: str) -> Choice:
    """The best by the objective that most of them share with the latest; of equals the smaller model, then the later."""
    judged = [(run, info, objective_of(info)) for run, info in candidates]
    metric = judged[-1][2].metric
    fit = [(run, info, objective) for run, info, objective in judged if objective.metric == metric]
    run, info, best = max(
        fit, key=lambda one: (one[2].rank, -(one[1].get("metrics") or {}).get("parameters", math.inf), one[0].name)
    )
    others = len(judged) - len(fit)
    reason = (
        f"best {metric} ({best.value:.4f}) of {len(fit)} finished run{'s' if len(fit) > 1 else ''} "
        f"of {experiment}, the latest experiment; its recipe is {info.get('recipe') or 'recipe.toml'}"
    )
    if others:
        reason += f"; {others} without that metric left out"
    return Choice(run, f"{reason}; {best.note}" if best.note else reason)
