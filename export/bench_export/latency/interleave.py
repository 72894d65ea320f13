"""Warm candidates in separate processes, measured in turns: each block of one beside the same block of the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench_export.latency import conditions
from bench_export.latency.candidates import Candidate
from bench_export.latency.loadgen import Demand
from bench_export.latency.process import Process
from bench_export.latency.subjects import MEASURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.progress import Progress

__all__ = ["Block", "Entrant", "ask_block", "enter", "run_blocks"]

#: The threads of whoever ran before have stopped spinning by then (onnxruntime's and OpenMP's within a few ms).
_SETTLE_S = 0.03


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What LoadGen measured in one block."""

    latencies_ns: NDArray[np.int64]
    num_samples: int
    samples_per_second: float
    results: dict[str, Any]
    summary: str

    @property
    def p50_ms(self) -> float:
        """The median latency of its queries."""
        return float(np.median(self.latencies_ns)) / 1e6


@dataclass(slots=True)
class Entrant:
    """A candidate with its warm process, and what an answer took in the warm-up, by measure: the median, the least."""

    candidate: Candidate
    process: Process
    facts: dict[str, Any]
    expected_ns: dict[str, float]
    shortest_ns: dict[str, float]
    peak_memory_mb: float
    energy_j: float | None = None


@contextmanager
def enter(
    candidates: Sequence[Candidate], *, samples: Path, at_once: int, warm_s: float, progress: Progress
) -> Iterator[list[Entrant]]:
    """Start and warm up a process for each candidate; all of them are gone afterwards, whatever happened."""
    entrants: list[Entrant] = []
    processes: list[Process] = []
    try:
        for number, candidate in enumerate(candidates):
            progress.advance("warming up", number, len(candidates))
            process = Process(candidate.name, candidate.runtime)
            processes.append(process)
            facts = process.ask("open", candidate=candidate.as_json(), samples=str(samples))
            times = process.ask("warm", seconds=warm_s, many=at_once)
            peak = process.ask("usage")["peak_memory_mb"]
            entrants.append(Entrant(candidate, process, facts, times["median"], times["shortest"], peak))
        progress.advance("warming up", len(candidates), len(candidates))
        yield entrants
    except BaseException:
        for process in processes:
            process.kill()
        raise
    for process in processes:
        process.close()


def ask_block(entrant: Entrant, measure: str, demand: Demand, folder: Path) -> Block:
    """One block of one candidate, while the others wait; the energy it took is added where it can be read."""
    time.sleep(_SETTLE_S)
    path = folder / "latencies.npy"
    before = conditions.energy()
    answer = entrant.process.ask("block", measure=measure, demand=asdict(demand), path=str(path))
    after = conditions.energy()
    if before is not None and after is not None:
        entrant.energy_j = (entrant.energy_j or 0.0) + after - before
    return Block(
        np.load(path), answer["num_samples"], answer["samples_per_second"], answer["results"], answer["summary"]
    )


def run_blocks(
    entrants: Sequence[Entrant],
    demand_of: Callable[[Entrant, str, int], Demand],
    *,
    num_blocks: int,
    seed: int,
    folder: Path,
    progress: Progress,
) -> dict[tuple[str, str], list[Block]]:
    """(candidate, measure) -> its blocks.

    The order of the candidates is drawn anew for every second block, and turned round for the one after (A B, B A): so
    what drifts, drifts for all.
    """
    random = np.random.default_rng(seed)
    blocks: dict[tuple[str, str], list[Block]] = {(e.candidate.name, m): [] for e in entrants for m in MEASURES}
    order = list(range(len(entrants)))
    total = num_blocks * len(entrants) * len(MEASURES)
    for number in range(num_blocks):
        order = order[::-1] if number % 2 else [int(position) for position in random.permutation(len(entrants))]
        for measure in MEASURES:
            for position in order:
                entrant = entrants[position]
                demand = demand_of(entrant, measure, number)
                blocks[entrant.candidate.name, measure].append(ask_block(entrant, measure, demand, folder))
                progress.advance("measuring blocks", sum(map(len, blocks.values())), total)
    return blocks
