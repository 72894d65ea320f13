"""What a model would cost once it is exported: the file's size, and how long it takes to answer. No training needed.

The exporter `onnx_costs`, which a search asks before each trial. A short measurement beside `bench latency`'s long one:
from prepared arrays to answers, on the CPU, one session in this process.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench_export.card import Card, Precision, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from onnx import ModelProto

    from bench.kinds import DataSpec
    from bench_export.conversion.core import Core

__all__ = ["costs"]

_WARM_S, _LEAST_WARM = 0.1, 3
_BLOCK_S, _BLOCKS = 0.08, 7

#: Blocks whose middle half spreads wider than this share of the median, or that had less of the core, are measured again.
_STEADY = 0.05
_ROUNDS = 6
_FIRST_PAUSE_S = 0.1

#: Random images that stand in for the training images where int8 and fp16 look for ranges.
_CALIBRATION_IMAGES = 16


def costs(
    model: torch.nn.Module,
    spec: DataSpec,
    *,
    loss: str,
    preprocessing: Mapping[str, Any] | None = None,
    precision: Precision = "fp32",
    scenario: Literal["single", "multi", "offline"] = "single",
    batch: int = 1,
    percentile: float = 50.0,
    threads: int = 1,
    timed: bool = True,
    alone: AbstractContextManager[Any] | None = None,
) -> dict[str, Any]:
    """Export an untrained model into a temporary file, weigh it, and with `timed` time its answers.

    `size_mb` is the file's size in 10^6 bytes, without what a gate would add. `latency_ms` is the percentile (in
    percent) of a query's milliseconds: of `batch` images; in the scenario multi of LoadGen's 8; offline it is divided by
    the batch, for the time of an image. It is the median over blocks, in the steadiest of up to six rounds; `timing`
    holds the blocks, their spread, and whether they agree. `alone` is entered while the clock runs. `preprocessing` are
    resize, filter, mean and std of the recipe. int8 is calibrated on random images.

    Raises BenchError, naming operator and module, where the model cannot be exported.
    """
    from bench_export.conversion.core import convert_core
    from bench_export.conversion.write import write
    from bench_export.session import open_session

    core = convert_core(model, spec)
    card = _card(core, spec, precision, loss, preprocessing or {})
    with tempfile.TemporaryDirectory(prefix="bench-costs-") as folder:
        path = Path(folder, "model.onnx")
        write(_whole(_reduced(core.proto, spec, precision), card), path, card)
        found: dict[str, Any] = {"size_mb": sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6}
        if not timed:
            return found
        session = open_session(path, device="cpu", threads=threads, tuning={})
        images = _images_a_query(scenario, batch)
        feeds = _feeds(session.inputs, spec, images)
        names = list(session.outputs)
        with alone or nullcontext():
            timing = _steadiest(lambda: session.inference.run(names, feeds), percentile, single_thread=threads == 1)
    per = images if scenario == "offline" else 1
    return {**found, "latency_ms": timing.median_ms / per, "timing": {**timing.as_json(), "images_a_query": images}}


def _images_a_query(scenario: str, batch: int) -> int:
    from bench_export.latency.loadgen import SAMPLES_PER_QUERY

    return SAMPLES_PER_QUERY if scenario == "multi" else batch


def _card(core: Core, spec: DataSpec, precision: Precision, loss: str, preprocessing: Mapping[str, Any]) -> Card:
    """What the file says of itself as far as it is known before training."""
    half = (0.5,) * spec.channels
    how = {"resize": "squash", "filter": "bilinear", "mean": half, "std": half, **preprocessing}
    return Card(
        task=spec.task,
        classes=spec.classes,
        preprocessing=Preprocessing(size=spec.image_size, channels=spec.channels, **how),  # type: ignore[arg-type]
        precision=precision,
        loss=loss,
        threshold=0.5 if spec.task == "verification" else None,
        exporter={"name": core.exporter, "opset": core.opset, "fallback_reason": core.fallback_reason},
    )


def _whole(core: ModelProto, card: Card) -> ModelProto:
    from bench_export.conversion.join import join

    return join(
        core,
        preprocessing=card.preprocessing,
        task=card.task,
        num_classes=len(card.classes),
        loss=card.loss,
        threshold=card.threshold,
    )


def _reduced(core: ModelProto, spec: DataSpec, precision: Precision) -> ModelProto:
    """The core in its precision; ranges are those of random inputs, which are as fast as any."""
    if precision == "fp32":
        return core
    from bench_export.conversion.core import core_inputs
    from bench_export.conversion.proof import example

    images = [image.numpy() for image in example(spec, _CALIBRATION_IMAGES)]
    samples = dict(zip(core_inputs(spec.task), images, strict=True))
    if precision == "fp16":
        from bench_export.conversion.half import to_half

        return to_half(core, samples=samples)
    from bench_export.conversion.calibration import METHODS, observe
    from bench_export.conversion.qdq import layers, observable, prepared, quantised

    model = prepared(core)
    names = layers(model)
    if not names:  # it has nothing to quantise and stays as it is, as in an export
        return core
    wanted = observable(model, names)
    seen = observe(model, [samples], tensors=sorted(set(wanted.values())))
    return quantised(model, {name: METHODS["minmax"](seen[source]) for name, source in wanted.items()}, names)


def _feeds(names: Sequence[str], spec: DataSpec, num_images: int) -> dict[str, Any]:
    """Random images N,H,W,C of the model's own size: nothing is resized while the clock runs."""
    import numpy as np

    random = np.random.default_rng(0)
    shape = (num_images, *spec.image_size, spec.channels)
    return {name: random.integers(0, 256, shape, dtype=np.uint8) for name in names}


@dataclass(frozen=True, slots=True)
class _Timing:
    """Blocks of one round: a percentile each, how many queries in all, and the share of a core that the caller had."""

    blocks_ms: tuple[float, ...]
    queries: int
    core_share: float
    rounds: int

    @property
    def median_ms(self) -> float:
        return statistics.median(self.blocks_ms)

    @property
    def spread(self) -> float:
        """The middle half of the blocks, as a share of their median."""
        low, _, high = statistics.quantiles(self.blocks_ms, n=4)
        return (high - low) / self.median_ms

    @property
    def unsteadiness(self) -> float:
        return max(self.spread, 1 - self.core_share)

    def as_json(self) -> dict[str, Any]:
        return {
            "blocks_ms": list(self.blocks_ms),
            "spread": self.spread,
            "queries": self.queries,
            "core_share": self.core_share,
            "rounds": self.rounds,
            "steady": self.unsteadiness <= _STEADY,
        }


def _steadiest(query: Callable[[], object], percentile: float, *, single_thread: bool) -> _Timing:
    """Rounds of blocks until one is steady, with longer pauses between them; the steadiest otherwise.

    With one thread the caller computes, so that its own time on the CPU shows what others took from its core.
    """
    from bench_export.latency.statistics import needed

    least = needed(percentile / 100)
    _spend(query, _WARM_S, _LEAST_WARM)
    best: _Timing | None = None
    for number in range(1, _ROUNDS + 1):
        with _no_collection():
            blocks = [_block(query, percentile / 100, least) for _ in range(_BLOCKS)]
        share = statistics.median(share for _, _, share in blocks) if single_thread else 1.0
        found = _Timing(tuple(block for block, _, _ in blocks), sum(count for _, count, _ in blocks), share, number)
        if best is None or found.unsteadiness < best.unsteadiness:
            best = found
        if best.unsteadiness <= _STEADY:
            break
        if number < _ROUNDS:
            time.sleep(_FIRST_PAUSE_S * 2 ** (number - 1))
            _spend(query, _WARM_S, _LEAST_WARM)
    assert best is not None  # noqa: S101  # there is a first round
    return best


def _block(query: Callable[[], object], share: float, least: int) -> tuple[float, int, float]:
    """(the percentile in milliseconds, number of queries, share of a core that this thread had)."""
    own, wall = time.thread_time(), time.perf_counter()
    times = _spend(query, _BLOCK_S, least)
    own, wall = time.thread_time() - own, time.perf_counter() - wall
    times.sort()
    return times[min(int(len(times) * share), len(times) - 1)] / 1e6, len(times), min(own / wall, 1.0)


def _spend(query: Callable[[], object], seconds: float, least: int) -> list[int]:
    """Nanoseconds of each query, for so long and at least so many."""
    clock, times = time.perf_counter_ns, []
    end = clock() + int(seconds * 1e9)
    while True:
        start = clock()
        query()
        now = clock()
        times.append(now - start)
        if now >= end and len(times) >= least:
            return times


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's garbage collector, which would stop some queries and not others."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
