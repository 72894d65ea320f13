"""Keep freed memory in the process: a training step frees and takes the same large blocks again and again.

By default glibc gives each of them back to the system, which must then clear every page anew. On the CPU that costs a
third to a half of a step's time (tests/benchmarks/test_allocator.py).
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

#: Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed. Returns whether it took effect; other systems are left as they are."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1)) and bool(mallopt(_MMAP_MAX, 0))
