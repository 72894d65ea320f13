"""A function over many items by a thread a core, for work that leaves Python alone, such as decoding images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias, TypeVar

__all__ = ["Report", "in_parallel"]

T = TypeVar("T")

#: Called with how many are done, and of how many.
Report: TypeAlias = Callable[[int, int], None]

_PORTION = 512


def in_parallel(one: Callable[[int], T], count: int, report: Report | None) -> Iterator[T]:
    """one(0), one(1), ... in order; in portions, so that finished ones do not pile up."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for start in range(0, count, _PORTION):
            stop = min(start + _PORTION, count)
            yield from pool.map(one, range(start, stop))
            if report is not None:
                report(stop, count)
