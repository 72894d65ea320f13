"""`--tune`: the session options that are fastest for a scenario on this machine, and proof that they are."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.environment import processor
from bench.errors import RecipeError
from bench_export.card import read_card, write_card
from bench_export.latency.hardware import gpu, usable_cores
from bench_export.latency.race import Interval, duel, race
from bench_export.latency.samples import Samples
from bench_export.predictor import Predictor, load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.parallel import Report

__all__ = ["DEFAULT", "Options", "tune", "write"]

_BLOCK_S = 0.1
_FEWEST_QUERIES = 3
_MOST_QUERIES = 16
_SETTLE_S = 0.005  # the threads of the session before stop spinning meanwhile
_DUEL_ROUNDS = 15

#: A gain below this is not worth leaving the defaults for: another release of onnxruntime would turn it round.
_WORTH_IT = 1.01

_LEVELS = ("all", "extended", "basic")


@dataclass(frozen=True, slots=True)
class Options:
    """What is tuned; the defaults are onnxruntime's. `intra_op_threads` None: a thread a physical core, pinned."""

    intra_op_threads: int | None = None
    spinning: bool = True
    graph_level: Literal["all", "extended", "basic"] = "all"
    io_binding: bool = False

    def as_tuning(self) -> dict[str, Any]:
        """As `open_session` takes them."""
        return {
            "intra_op_threads": self.intra_op_threads,
            "spinning": self.spinning,
            "graph_level": self.graph_level,
            "io_binding": self.io_binding,
        }

    def __str__(self) -> str:
        threads = "default threads" if self.intra_op_threads is None else f"{self.intra_op_threads} threads"
        spinning = "spinning" if self.spinning else "no spinning"
        return f"{threads}, {spinning}, graph level {self.graph_level}{', IO binding' if self.io_binding else ''}"


DEFAULT = Options()


def tune(
    path: Path,
    *,
    scenario: str,
    batch: int,
    samples: Samples,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    seed: int = 0,
    report: Report | None = None,
) -> dict[str, Any]:
    """Race session options against each other on real inputs, in short blocks in turns; the defaults win ties.

    In the scenario "offline" the mean time counts (throughput), otherwise the median, both from prepared arrays to
    answers. First the number of threads is raced, then the rest at the best number, and the winner must beat the
    defaults once more, in a duel whose rounds chose nothing. Returns the options as the card keeps them, with `gain`
    (how many times as fast as the defaults, and its interval), `tried`, and the machine that they are bound to. Raises
    BenchError where the file cannot be opened or says nothing of its preprocessing.
    """
    entrants: dict[Options, Predictor] = {}
    queries: list[tuple[NDArray[np.uint8], ...]] = []

    def block(options: Options) -> float:
        if options not in entrants:
            entrants[options] = load(path, device=device, tuning=options.as_tuning())
            _time(entrants[options], queries, mean=False)
        return _time(entrants[options], queries, mean=scenario == "offline")

    entrants[DEFAULT] = load(path, device=device, tuning=DEFAULT.as_tuning())
    queries += _queries(samples, entrants[DEFAULT], batch)
    on_cuda = "CUDAExecutionProvider" in entrants[DEFAULT].session.providers_used
    order = random.Random(seed)  # noqa: S311  # the order of blocks is no secret
    best, tried, gain = _search(block, order, on_cuda=on_cuda, report=report)
    return {
        **best.as_tuning(),
        "scenario": scenario,
        "batch": batch,
        "gain": gain.as_json(),
        "tried": tried,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": processor()[0],
        "cores": len(usable_cores()),
        "device": "cuda" if on_cuda else "cpu",
        "gpu": (gpu() or {}).get("name") if on_cuda else None,
    }


def write(path: Path, tuning: Mapping[str, Any]) -> None:
    """Keep the tuning in the file's metadata, where predict and serve find it. Raises RecipeError if it has no card."""
    card = read_card(path)
    if card is None:
        raise RecipeError(
            f"{path}: not a file of bench export, so its tuning cannot be kept in it",
            hint="bench export --onnx writes files that carry their tuning",
        )
    write_card(path, replace(card, tuning=dict(tuning)))


def _search(
    block: Callable[[Options], float], order: random.Random, *, on_cuda: bool, report: Report | None
) -> tuple[Options, list[dict[str, Any]], Interval]:
    """(the options to use, what was tried, the gain over the defaults)."""
    tell = report or (lambda _done, _total: None)
    first = race([DEFAULT, *(Options(intra_op_threads=count) for count in _thread_counts())], block, order=order)
    tell(1, 3)
    second = race(list(dict.fromkeys([DEFAULT, *_around(first.best, on_cuda=on_cuda)])), block, order=order)
    tell(2, 3)
    tried = {**first.ratios(DEFAULT), **second.ratios(DEFAULT)}
    listed = [{"options": str(options), "times_as_fast": ratio} for options, ratio in tried.items()]
    best, gain = second.best, Interval(1.0, 1.0, 1.0)
    if best != DEFAULT:
        gain = duel(DEFAULT, best, block, rounds=_DUEL_ROUNDS, order=order)
    tell(3, 3)
    if best == DEFAULT or gain.low <= 1 or gain.value < _WORTH_IT:
        return DEFAULT, listed, Interval(1.0, 1.0, 1.0)
    return best, listed, gain


def _thread_counts() -> list[int]:
    """1, 2, 4 and so on up to the usable cores. All of them is not the default: that pins its threads."""
    cores = len(usable_cores())
    return [*(2**power for power in range(cores.bit_length()) if 2**power < cores), cores]


def _around(best: Options, *, on_cuda: bool) -> list[Options]:
    """The other options at the best number of threads; a single thread has nobody to spin for."""
    spins = (True,) if best.intra_op_threads == 1 else (True, False)
    bindings = (False, True) if on_cuda else (False,)  # on the CPU there is nothing to bind
    return [
        replace(best, spinning=spin, graph_level=level, io_binding=binding)  # type: ignore[arg-type]  # one of _LEVELS
        for level in _LEVELS
        for spin in spins
        for binding in bindings
    ]


def _queries(samples: Samples, predictor: Predictor, batch: int) -> list[tuple[NDArray[np.uint8], ...]]:
    """Of each query the arrays uint8 batch,height,width,C that the model takes; few samples come up again."""
    import numpy as np

    count = len(samples.encoded)
    if not count:
        raise RecipeError("nothing to tune with: no samples", hint="--data takes a folder of images")
    number = max(2, min(_MOST_QUERIES, count // batch))
    prepared = [tuple(map(predictor.prepare, sample)) for sample in samples.encoded[: number * batch]]
    rows = [[prepared[(query * batch + k) % len(prepared)] for k in range(batch)] for query in range(number)]
    return [tuple(np.stack(column) for column in zip(*query, strict=True)) for query in rows]


def _time(predictor: Predictor, queries: Sequence[tuple[NDArray[np.uint8], ...]], *, mean: bool) -> float:
    """Seconds a query in one block: its mean or its median, after a query or two that count for nothing."""
    run = predictor.session.run if predictor.card.preprocessing.in_graph else predictor.run
    time.sleep(_SETTLE_S)
    for arrays in queries[:2]:
        run(*arrays)
    times: list[float] = []
    end = time.perf_counter() + _BLOCK_S
    while len(times) < _FEWEST_QUERIES or time.perf_counter() < end:
        arrays = queries[len(times) % len(queries)]
        start = time.perf_counter()
        run(*arrays)
        times.append(time.perf_counter() - start)
    return sum(times) / len(times) if mean else sorted(times)[len(times) // 2]
