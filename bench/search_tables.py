"""The tables of a recipe that say what `bench search` does: the space, how it is sampled, and what counts."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NewType

from pydantic import Field

from bench.optimizer_tables import Count, Positive
from bench.schema import Table

__all__ = ["Latency", "Search"]

#: Its keys are those of the recipe; `bench.search.space` reads and checks it. The name is what recipes/README.md shows.
table = NewType("table", dict[str, Any])

_Seed = Annotated[int, Field(ge=0)]
_Percent = Annotated[float, Field(gt=0, lt=100)]


class Latency(Table):
    """How the metric latency_ms is measured."""

    percentile: _Percent = Field(50.0, description="which of the measured times counts")
    scenario: Literal["single", "multi", "offline"] = Field(
        "single", description="single: one query after the other; multi: 8 images a query; offline: all at once"
    )
    batch: Count = Field(1, description="images a call")
    precision: Literal["fp32", "fp16", "int8"] = Field("fp32", description="of the exported file")
    threads: Count = Field(1, description="CPU threads of the session")


class Search(Table):
    """What `bench search` does. The test set is never read by it: the winner is trained again and tested once."""

    trials: Count = Field(50, description="finished trials, pruned and failed ones included; a grid ends earlier")
    timeout_s: Positive | None = Field(None, description="no new trial after so many seconds")
    sampler: Literal["tpe", "gp", "random", "grid", "qmc", "cmaes", "nsga2", "nsga3", "brute_force"] = Field(
        "tpe",
        description="who chooses the values; gp: a Gaussian process, which also learns from pruned trials; grid: every "
        "combination in order, brute_force: in random order",
    )
    sampler_seed: _Seed = Field(0, description="seed of the sampler, the same for every worker")
    pruner: Literal["none", "median", "percentile", "hyperband", "successive_halving", "wilcoxon", "patient"] = Field(
        "median",
        description="which trials end early, by their curve of the first metric; patient: median, unless the trial "
        "itself still improves; successive_halving: the best third goes on at each of a few epochs, which saves most with "
        "pruner_warmup = 1; wilcoxon: by the same folds or seeds of the best trial",
    )
    pruner_startup: _Seed = Field(5, description="trials that are trained to their end before any is pruned")
    pruner_warmup: Count = Field(2, description="the first epoch after which a trial may be pruned")
    pruner_percentile: _Percent = Field(25.0, description="with percentile, the share of trials in % that go on")
    metrics: tuple[str, ...] = Field(
        (),
        description="what is optimised: metrics of the validation split, latency_ms, size_mb, parameters, macs; "
        "default: train.monitor",
    )
    constraints: tuple[str, ...] = Field((), description='what a trial must hold: ["latency_ms <= 5"]')
    seeds: tuple[_Seed, ...] = Field((0, 1, 2), min_length=1, description="seeds that the winner is trained with")
    latency: Latency = Field(Latency(), description="how latency_ms is measured")  # type: ignore[call-arg]
    space: table = Field(
        table({}),
        description="recipe key -> {float = [lo, hi]}, {int = [lo, hi]} (both: log = true, step = S) or {choice = [...]}",
    )
