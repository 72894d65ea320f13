"""The winner of a study: which trial it is, how sure that is, and its recipe, retrained with seeds and tested once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bench import record
from bench.errors import BenchError
from bench.run_info import readable
from bench.search.front import front, knee, losses, metric_names, nearest, usable, validation_losses
from bench.search.objectives import COSTS
from bench.search.wording import missed_text, none_text

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from bench.progress import Progress
    from bench.recipe import Recipe
    from bench.record import Run

__all__ = ["Which", "by_first_metric", "choose", "retrain", "retrained", "run_of", "trial_run", "winning_recipe"]

Which: TypeAlias = Literal["best", "knee", "fastest"]

#: What "fastest" goes by, the first one that the study has; multiply-accumulates stand in for a missing latency.
_SPEEDS = ("latency_ms", "macs")


def choose(study: Study, which: Which = "best") -> FrozenTrial:
    """A trial of the front: the best in the first metric that is no cost, the knee, or the fastest.

    Of equally good ones the best is that with the lower validation loss, as with the epochs of a run. With one objective
    the knee is the best trial. Raises BenchError where no trial is usable, or speed is no objective.
    """
    trials = front(study)
    if not trials:
        raise BenchError(_why_none(study), hint=_what_to_do(study))
    if which == "knee":
        return knee(study) if len(study.directions) > 1 else by_first_metric(study)[0]
    if which == "best":
        best = by_first_metric(study)[0]
        return next((one for one in trials if one.number == best.number), best)
    names = metric_names(study)
    speed = next((names.index(name) for name in _SPEEDS if name in names), None)
    if speed is None:
        raise BenchError(
            f"{study.study_name}: speed is no objective of this study; it has {', '.join(names)}",
            hint='take knee or best, or search with metrics = ["val_accuracy", "latency_ms"]',
        )
    return min(trials, key=lambda one: losses(study, one)[speed])


def by_first_metric(study: Study) -> list[FrozenTrial]:
    """The usable trials, best first: by the first objective that is no cost, then the other objectives, then the lower
    validation loss, then the earlier trial.
    """
    names = metric_names(study)
    first = next((index for index, name in enumerate(names) if name not in COSTS), 0)
    trials = usable(study)
    values = {one.number: losses(study, one) for one in trials}
    often = Counter(values.values())
    known = validation_losses([one for one in trials if often[values[one.number]] > 1])

    def rank(trial: FrozenTrial) -> tuple[Any, ...]:
        point = values[trial.number]
        return point[first], point, known.get(trial.number, float("inf")), trial.number

    return sorted(trials, key=rank)


def trial_run(trial: FrozenTrial, runs: Mapping[str, Run] | None = None) -> Run | None:
    """The recorded run of a trial, among `runs` (name -> run; default: all); None where there is none."""
    name = trial.user_attrs.get("run")
    if not name:
        return None
    return ({run.name: run for run in record.list_runs()} if runs is None else runs).get(name)


def winning_recipe(study: Study, trial: FrozenTrial, recipe: Recipe | None = None) -> Recipe:
    """A trial's recipe as one that runs by itself: its parameters, the seeds of [search], and no [search].

    It is that of the trial's run; where there is none, `recipe` (default: that of any other trial) with the trial's
    parameters. The seeds are `recipe`'s where it is given. Raises BenchError where no recipe is left.
    """
    import tomlkit

    from bench.recipe import changed, parse
    from bench.search.space import space_from_json

    own = trial_run(trial)
    base = _recorded_recipe(own) if own else recipe or _any_recipe(study)
    searched = base if own else changed(base, space_from_json(study.user_attrs["space"]).suggest(trial))
    document = tomlkit.parse(searched.text)
    document.pop("search", None)
    document["experiment"] = searched.experiment
    document["seeds"] = list((recipe or searched).search.seeds)
    return parse(tomlkit.dumps(document), path=searched.path)


def retrain(recipe: Recipe, study: Study, trial: FrozenTrial, progress: Progress) -> list[Run]:
    """Train the trial's recipe once for each of [search].seeds, on the test split too, which is read here only.

    What was trained before is not trained again: a group that was stopped is finished, a finished one is returned.
    The runs' group is noted in the study.
    """
    from filelock import FileLock

    from bench import run as stages

    final = winning_recipe(study, trial, recipe)
    folder = record.runs_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".winner-{final.digest[:16]}.lock"):
        known = retrained(study, trial)
        runs = known if {run.info()["seed"] for run in known} == set(final.seeds) else _finished(final)
        if not runs:
            begun = stages.unfinished(final)
            progress.note(f"retraining trial {trial.number} with seeds {', '.join(map(str, final.seeds))}")
            runs = stages.resume(final, begun, progress=progress) if begun else stages.run(final, progress=progress)
        _note(study, trial, runs, progress)
    return runs


def retrained(study: Study, trial: FrozenTrial) -> list[Run]:
    """The runs that a trial was retrained in; [] where it was not. Runs that are gone or damaged are left out."""
    group = (study.user_attrs.get("retrained") or {}).get(str(trial.number))
    named = (run for run in record.list_runs() if group and run.name.startswith(f"{group}-"))
    return [run for run, info in readable(named) if info["group"] == group]


def run_of(study: Study, which: Which = "best") -> Run:
    """The run that stands for the winner: the best retrained one on the validation images, otherwise the trial's own.

    The test split decides nothing. Raises BenchError where there is no trial or no run.
    """
    trial = choose(study, which)
    if runs := retrained(study, trial):
        objective = runs[0].info().get("objective") or "val_accuracy"
        from bench.tables import larger_is_better

        sign = 1 if larger_is_better(objective) else -1

        def value(run: Run) -> float:
            found = (run.info().get("metrics") or {}).get(objective)
            return float("-inf") if found is None else sign * float(found)

        return max(runs, key=value)
    own = trial_run(trial)
    if own is None:
        raise BenchError(
            f"{study.study_name}: the run of trial {trial.number} is not in {record.runs_folder()}",
            hint="set BENCH_RUNS to the folder that the search recorded its runs in",
        )
    return own


def _recorded_recipe(run: Run) -> Recipe:
    from bench.recipe import parse

    return parse((run.folder / "recipe.toml").read_text(encoding="utf-8"), path=Path(run.info("recipe")["recipe"]))


def _any_recipe(study: Study) -> Recipe:
    """A recipe of the study; its trials differ in nothing but what the space holds."""
    runs = {run.name: run for run, _ in readable(record.list_runs(), needed=["recipe"])}
    for trial in study.get_trials(deepcopy=False):
        if run := trial_run(trial, runs):
            return _recorded_recipe(run)
    raise BenchError(
        f"{study.study_name}: no run of this study is in {record.runs_folder()}",
        hint="set BENCH_RUNS to the folder that the search recorded its runs in",
    )


def _finished(final: Recipe) -> list[Run]:
    """The latest group of runs of this very recipe that came to its end."""
    groups: dict[str, list[Run]] = {}
    for run, info in readable(record.list_runs(final.experiment), needed=["recipe_digest"]):
        if info["recipe_digest"] == final.digest and info["status"] == "finished":
            groups.setdefault(info["group"], []).append(run)
    for group in reversed(groups.values()):
        plan = json.loads((group[0].folder / "plan.json").read_text(encoding="utf-8"))
        if len(group) == len(final.seeds) * (plan.get("num_folds") or 1):
            return group
    return []


def _note(study: Study, trial: FrozenTrial, runs: list[Run], progress: Progress) -> None:
    """The group in the study, and the study in the runs, whose mirror follows."""
    from bench.tracking import Mirror

    known = study.user_attrs.get("retrained") or {}
    group = runs[0].info()["group"]
    if known.get(str(trial.number)) != group:
        study.set_user_attr("retrained", {**known, str(trial.number): group})
    own = trial_run(trial)
    info = own.info() if own else {}
    facts = {"study": study.study_name, "winner": trial.number}
    facts |= {"parent": info["parent"]} if "parent" in info else {}
    with Mirror(progress) as mirror:
        for run in runs:
            if any(run.info().get(key) != value for key, value in facts.items()):
                run.update(**facts)
                mirror.watch(run)


def _why_none(study: Study) -> str:
    closest = nearest(study)
    if closest is None:
        states = Counter(trial.state.name for trial in study.get_trials(deepcopy=False))
        return f"{study.study_name}: {none_text({'pruned': states['PRUNED'], 'failed': states['FAIL']})}"
    return (
        f"{study.study_name}: no trial satisfies every constraint; trial {closest.number} comes nearest and misses "
        f"{missed_text(closest.constraints)}"
    )


def _what_to_do(study: Study) -> str:
    return "loosen [search].constraints or widen the space" if nearest(study) else "bench search --resume goes on"
