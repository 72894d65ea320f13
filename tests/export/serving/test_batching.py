"""Requests of the same time share batches, and each gets its own answer back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.images import no_size_warnings
from bench_export import load
from bench_export.predictor import Predictor
from bench_export.serving.batching import Answer, Batcher, best_batch_size
from bench_export.serving.metrics import Histogram, Metrics


def with_batcher(
    predictor: Predictor, work: Callable[[Batcher], Coroutine[Any, Any, Any]], **options: Any
) -> tuple[Any, Metrics]:
    """What `work` returns, on a batcher that is started and stopped around it."""

    async def run() -> Any:
        batcher = Batcher(predictor, Metrics(), **({"max_batch": 8} | options))
        batcher.start()
        assert batcher.ready
        try:
            return await work(batcher), batcher.metrics
        finally:
            await batcher.stop()
            assert not batcher.ready
            assert batcher.waiting == 0

    with no_size_warnings():
        result: tuple[Any, Metrics] = asyncio.run(run())
    return result


@pytest.mark.parametrize("options", [{}, {"max_batch": 1}, {"max_runs": 1}, {"num_workers": 5}, {"max_delay_ms": 5.0}])
def test_every_request_gets_its_own_answers(
    models: dict[str, Path], colours: dict[str, bytes], options: dict[str, Any]
) -> None:
    names = ["red", "lime", "blue"]
    wanted = [[(index * 7 + request) % 3 for index in range(request % 4 + 1)] for request in range(120)]

    async def ask(batcher: Batcher) -> list[list[Answer]]:
        requests = [[(colours[names[label]],) for label in labels] for labels in wanted]
        return await asyncio.gather(*(batcher.answers(request) for request in requests))

    answers, metrics = with_batcher(load(models["classes"]), ask, **options)
    assert [[answer.guess for answer in request] for request in answers] == wanted
    assert metrics.batches.sum == sum(map(len, wanted))
    sizes = dict(zip((*metrics.batches.bounds, np.inf), metrics.batches.counts, strict=True))
    assert sum(count for size, count in sizes.items() if size > options.get("max_batch", 8)) == 0
    if options.get("max_batch") != 1:
        assert sum(metrics.batches.counts) < metrics.batches.sum, "no two images were run together"


def test_a_bad_image_hurts_nobody_else(models: dict[str, Path], colours: dict[str, bytes]) -> None:
    async def ask(batcher: Batcher) -> list[list[Answer]]:
        good, bad = (colours["red"],), (colours["red"][:50],)
        return await asyncio.gather(*(batcher.answers([good, bad]) for _ in range(20)), batcher.answers([good]))

    answers, _metrics = with_batcher(load(models["classes"]), ask)
    for good, bad in answers[:-1]:
        assert (good.guess, good.bad, bad.guess) == (0, None, -1)
        assert "damaged" in bad.bad
    assert answers[-1][0].guess == 0


def test_a_delay_gathers_a_fuller_batch(models: dict[str, Path], colours: dict[str, bytes]) -> None:
    async def ask(batcher: Batcher) -> None:
        async def later(seconds: float) -> None:
            await asyncio.sleep(seconds)
            await batcher.answers([(colours["red"],)])

        await asyncio.gather(*(later(0.01 * number) for number in range(4)))

    _result, metrics = with_batcher(load(models["classes"]), ask, max_delay_ms=500.0, max_batch=4)
    assert sum(metrics.batches.counts) == 1


def test_a_model_that_fails_is_raised_where_it_was_asked(models: dict[str, Path], colours: dict[str, bytes]) -> None:
    pairs = load(models["pairs"])  # which is handed one image where it takes two

    async def ask(batcher: Batcher) -> Answer:
        with pytest.raises(ValueError, match="zip"):
            await batcher.answers([(colours["red"],)])
        return (await batcher.answers([(colours["red"], colours["red"])]))[0]

    answer, _metrics = with_batcher(pairs, ask)
    assert answer.guess == 1


def test_the_batch_size_is_one_of_those_measured(models: dict[str, Path]) -> None:
    for model in models.values():
        assert best_batch_size(load(model)) in {4, 8, 16, 32}


def test_a_histogram_is_cumulative() -> None:
    histogram = Histogram((1, 2, 4))
    for value in (0.5, 1, 1.5, 4, 9):
        histogram.add(value)
    assert histogram.lines("x") == [
        'x_bucket{le="1"} 2',
        'x_bucket{le="2"} 3',
        'x_bucket{le="4"} 4',
        'x_bucket{le="+Inf"} 5',
        "x_sum 16",
        "x_count 5",
    ]


def test_labels_are_escaped() -> None:
    text = Metrics().text(waiting=0, model={"model": 'a"b\\c\nd'})
    assert 'visionbench_model_info{model="a\\"b\\\\c\\nd"} 1' in text


def test_whatever_a_source_raises_no_thread_dies_of_it(models: dict[str, Path], colours: dict[str, bytes]) -> None:
    async def ask(batcher: Batcher) -> Answer:
        for _ in range(3):
            with pytest.raises(OSError, match="too long"):
                await batcher.answers([("x" * 5000,)])  # type: ignore[list-item]  # no bytes, but a name
        assert batcher.ready
        return (await batcher.answers([(colours["red"],)]))[0]

    answer, _metrics = with_batcher(load(models["classes"]), ask)
    assert answer.guess == 0
