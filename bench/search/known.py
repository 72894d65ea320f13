"""Find a study by its name, or the one that was worked on last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import BenchError, RecipeError
from bench.registry import near_miss

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

__all__ = ["find_study", "find_trial"]


def find_study(name: str | None = None, *, experiment: str | None = None, storage_url: str | None = None) -> Study:
    """The study of that name, or the one that was begun last (of the experiment); `storage_url` as for `open_storage`.

    Raises RecipeError where there is none of that name, BenchError where there is none at all or the storage does not
    work.
    """
    import optuna

    from bench.search.storage import missing_file, open_storage
    from bench.search.storage_errors import displayed, translated
    from bench.search.study import find_studies

    if (missing := missing_file(storage_url)) is not None:
        raise BenchError(
            f"no search has been started yet: {missing} is not there", hint="bench search RECIPE starts one"
        )
    storage = open_storage(storage_url)
    with translated(storage.engine.url):
        known = optuna.get_all_study_summaries(storage, include_best_trial=False)
        known.sort(key=lambda one: str(one.user_attrs.get("created", "")))
        names = [one.study_name for one in known]
        if experiment is not None:
            mine = find_studies(storage, experiment)
            names = [one for one in names if one in mine]
        if not names and experiment is not None:
            raise BenchError(f"no search of {experiment!r} has been started yet", hint="bench search RECIPE starts one")
        if not names:
            raise BenchError(f"no study in {displayed(storage.engine.url)}", hint="bench search RECIPE starts one")
        if name is not None and name not in names:
            miss = near_miss(name, names) or f"; known: {', '.join(names[-5:])}"
            raise RecipeError(f"there is no study {name!r}{miss}", hint="a study is named by its experiment")
        return optuna.load_study(study_name=name or names[-1], storage=storage)


def find_trial(study: Study, number: int) -> FrozenTrial:
    """The trial of that number. Raises RecipeError where there is none."""
    trials = study.get_trials(deepcopy=False)
    found = next((trial for trial in trials if trial.number == number), None)
    if found is None:
        last = f"its last is {trials[-1].number}" if trials else "it has none yet"
        raise RecipeError(f"{study.study_name}: there is no trial {number}; {last}", hint="bench search --show")
    return found
