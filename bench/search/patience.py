"""Calls to a study's storage that outlast a server's restart, or a lock that another process holds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from bench.search.storage_errors import is_transient, kind_of, translated

__all__ = ["patiently"]

T = TypeVar("T")


def patiently(
    call: Callable[[], T],
    *,
    seconds: float = 300.0,
    warn: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> T:
    """call(), repeated with growing pauses while the storage is only away for a moment (a restart, a lock).

    `call` must be such that it may be repeated. `warn` is told the reason once. Raises BenchError for what no waiting
    mends (a full disk), after `seconds`, and as soon as `should_stop` says so.
    """
    end, pause, warned = time.monotonic() + seconds, 0.2, False
    while True:
        try:
            return call()
        except Exception as cause:
            if kind_of(cause) is None:
                raise
            if not is_transient(cause) or time.monotonic() >= end or should_stop():
                with translated():
                    raise
            if warn is not None and not warned:
                warn(f"the study's storage does not answer ({kind_of(cause)}); trying again")
                warned = True
        time.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311  # so that workers do not all come back at once
        pause = min(2 * pause, 5.0)
