"""Who chooses the values of a trial, and which trials end early: Optuna's samplers and pruners, by name."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from bench.errors import RecipeError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from bench.search.space import Space
    from bench.search_tables import Search

T = TypeVar("T")

__all__ = ["EXHAUSTIVE", "make_pruner", "make_sampler", "planned_trials"]

#: Samplers that try every combination once.
EXHAUSTIVE = ("grid", "brute_force")

#: Trials that a model of the objective, or a first generation, starts from: part of all trials, within these bounds.
_FEWEST_STARTS, _MOST_STARTS, _SMALLEST_GENERATION, _LARGEST_GENERATION = 5, 10, 6, 50


def make_sampler(table: Search, space: Space, num_metrics: int) -> BaseSampler:
    """The sampler that the recipe names.

    Each trial draws by its own number and search.sampler_seed: several workers, or a study that goes on after a stop,
    never repeat each other's draws. Raises RecipeError where it cannot work on this space or so many metrics.
    """
    problem = _problem(table, space, num_metrics)
    if problem:
        raise RecipeError(f"search.sampler: {table.sampler}: {problem[0]}", hint=problem[1])
    if table.sampler in EXHAUSTIVE:
        from bench.search.own_samplers import enumeration

        return enumeration(space, mixed=table.sampler == "brute_force")
    from bench.search.own_samplers import reseeded

    build = _SAMPLERS[table.sampler]
    return reseeded(lambda number: _quietly(lambda: build(table, space, _seed(table.sampler_seed, number))))


def planned_trials(table: Search, space: Space) -> int:
    """How many trials a search makes: search.trials, or every combination of a grid where those are fewer."""
    size = space.size()
    return min(table.trials, size) if table.sampler in EXHAUSTIVE and size is not None else table.trials


def make_pruner(table: Search) -> BasePruner:
    """The pruner that the recipe names; what it is not told by search.pruner_* is Optuna's default."""
    from optuna import pruners

    startup, warmup = table.pruner_startup, table.pruner_warmup
    makers: Mapping[str, Callable[[], BasePruner]] = {
        "none": pruners.NopPruner,
        "median": lambda: pruners.MedianPruner(startup, warmup),
        "percentile": lambda: pruners.PercentilePruner(table.pruner_percentile, startup, warmup),
        "hyperband": lambda: pruners.HyperbandPruner(min_resource=warmup),
        "successive_halving": lambda: pruners.SuccessiveHalvingPruner(min_resource=warmup, reduction_factor=3),
        "wilcoxon": lambda: pruners.WilcoxonPruner(n_startup_steps=warmup),
        # Worse than the median, and no better than it was for some epochs.
        "patient": lambda: pruners.PatientPruner(pruners.MedianPruner(startup, warmup), patience=2),
    }
    return _quietly(makers[table.pruner])


def _problem(table: Search, space: Space, num_metrics: int) -> tuple[str, str] | None:
    """(why the sampler cannot work, what to do)."""
    if table.sampler in EXHAUSTIVE and space.continuous():
        names = ", ".join(space.continuous())
        return f"cannot count the values of {names}", "give each a step or a choice, or take another sampler"
    if table.sampler == "cmaes" and num_metrics > 1:
        return f"optimises one metric, not {num_metrics}", "take tpe, gp, nsga2 or nsga3"
    if table.sampler == "cmaes" and find_spec("cmaes") is None:
        return "the package cmaes is not installed", "pip install cmaes"
    return None


def _tpe(table: Search, space: Space, seed: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    starts = min(_MOST_STARTS, max(_FEWEST_STARTS, table.trials // 4))
    # In groups, what is conditional is modelled too: each option's parameters together, over the trials that have them.
    return TPESampler(n_startup_trials=starts, multivariate=True, group=space.conditional, seed=seed)


def _gp(table: Search, _: Space, seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    from bench.search.foreseen import foreseen_study

    class Foreseeing(GPSampler):
        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            return super().sample_relative(foreseen_study(study), trial, search_space)

    starts = min(_MOST_STARTS, max(_FEWEST_STARTS, table.trials // 4))
    return Foreseeing(
        n_startup_trials=starts, independent_sampler=_random(seed), warn_independent_sampling=False, seed=seed
    )


def _qmc(table: Search, _: Space, seed: int) -> BaseSampler:
    from optuna.samplers import QMCSampler

    # The sequence is one for all trials, and they count themselves in it; what it leaves out is each trial's own.
    return QMCSampler(
        scramble=True, seed=table.sampler_seed, independent_sampler=_random(seed), warn_independent_sampling=False
    )


def _cmaes(_: Search, __: Space, seed: int) -> BaseSampler:
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(independent_sampler=_random(seed), warn_independent_sampling=False, seed=seed)


def _nsga2(table: Search, _: Space, seed: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(population_size=_generation(table), seed=seed)


def _nsga3(table: Search, _: Space, seed: int) -> BaseSampler:
    from optuna.samplers import NSGAIIISampler

    return NSGAIIISampler(population_size=_generation(table), seed=seed)


def _random(seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed)


_SAMPLERS: Mapping[str, Callable[[Search, Space, int], BaseSampler]] = {
    "tpe": _tpe,
    "gp": _gp,
    "random": lambda _, __, seed: _random(seed),
    "qmc": _qmc,
    "cmaes": _cmaes,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
}


def _generation(table: Search) -> int:
    """Five generations of what there is; with Optuna's 50 a generation, 50 trials would all be random."""
    return min(_LARGEST_GENERATION, max(_SMALLEST_GENERATION, table.trials // 5))


def _seed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big") >> 1


def _quietly(make: Callable[[], T]) -> T:
    """Optuna calls some of these experimental; the version is ours to choose."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return make()
