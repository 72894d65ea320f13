"""How a latency is measured: the scenario, how long, in which blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench_export.latency.loadgen import SAMPLES_PER_QUERY, Scenario

__all__ = ["LEAST_BLOCKS", "Settings"]

#: A block: long enough for a median, short enough that two neighbours see the same machine.
_BLOCK_S, _QUICK_BLOCK_S = 1.0, 0.25
LEAST_BLOCKS = 4
_BOUNDS_A_BLOCK = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure. `duration_s` is that of each candidate and measure, in blocks of `block_s`.

    `batch` is the most samples that the server and the offline scenario answer at once; `batches` are those whose
    throughput is measured beside. `qps` 0 searches for the largest rate below `bound_ms`.
    """

    scenario: Scenario = "single"
    duration_s: float = 10.0
    block_s: float = _BLOCK_S
    quick: bool = False
    seed: int = 0
    batch: int = 1
    batches: tuple[int, ...] = ()
    qps: float = 0.0
    bound_ms: float = 15.0
    cold_starts: int = 3

    @property
    def num_blocks(self) -> int:
        """How many blocks a candidate gets for each measure: at least four, for their spread."""
        return max(LEAST_BLOCKS, round(self.duration_s / self.length_s))

    @property
    def length_s(self) -> float:
        """How long a block is. For a server long enough that a queue that grows by a twentieth breaks the bound."""
        return max(self.block_s, _BOUNDS_A_BLOCK * self.bound_ms / 1e3) if self.scenario == "server" else self.block_s

    @property
    def at_once(self) -> int:
        """How many samples are answered at once, at most."""
        return {"single": 1, "multi": SAMPLES_PER_QUERY}.get(self.scenario, self.batch)

    def quickened(self) -> Settings:
        """The same with short blocks, where a glance is enough."""
        duration = min(self.duration_s, 8 * _QUICK_BLOCK_S)
        return replace(self, quick=True, duration_s=duration, block_s=min(self.block_s, _QUICK_BLOCK_S), cold_starts=1)
