"""Figures for monitoring, in Prometheus' text format. All of it is counted on the event loop."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["CONTENT_TYPE", "Histogram", "Metrics"]

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """Counts by upper bound, with sum and number."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str) -> list[str]:
        """Its samples; the buckets are cumulative."""
        total, lines = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self.sum:.9g}", f"{name}_count {total}"]


@dataclass(eq=False)
class Metrics:
    """Requests by path and status, the latency of predictions, sizes of batches, images."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    latency_s: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    batches: Histogram = field(default_factory=lambda: Histogram(_SIZES))

    def count_request(self, path: str, status: int) -> None:
        """A request was answered; `path` is one of ours or "other", so that nobody can fill the memory."""
        self.requests[path, status] += 1

    def count_batch(self, size: int) -> None:
        """A batch of that many images or pairs was run."""
        self.batches.add(size)

    def text(self, *, waiting: int, model: Mapping[str, str]) -> str:
        """All of it as Prometheus reads it; `waiting` images or pairs are under way."""
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in model.items())
        requests = [
            f'visionbench_requests_total{{path="{path}",status="{status}"}} {count}'
            for (path, status), count in sorted(self.requests.items())
        ]
        parts: list[tuple[str, str, str, Callable[[str], list[str]]]] = [
            ("model_info", "gauge", "The model that is served.", lambda name: [f"{name}{{{labels}}} 1"]),
            ("requests_total", "counter", "Requests by path and status.", lambda _name: requests),
            (
                "request_seconds",
                "histogram",
                "Seconds from a prediction's headers to its answer.",
                self.latency_s.lines,
            ),
            ("batch_size", "histogram", "Images or pairs in one run of the session.", self.batches.lines),
            ("images_total", "counter", "Images or pairs run.", lambda name: [f"{name} {self.batches.sum:.0f}"]),
            ("queue_length", "gauge", "Images or pairs under way.", lambda name: [f"{name} {waiting}"]),
        ]
        lines = []
        for short, kind, words, samples in parts:
            name = f"visionbench_{short}"
            lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}", *samples(name)]
        return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
