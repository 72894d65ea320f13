"""What each of several local workers gets of the machine: threads, and a GPU where there are any."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

__all__ = ["environment_of", "environments", "visible_gpus"]

#: What the libraries below torch read when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def environments(workers: int, *, cores: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """The environment variables of each worker: its share of the cores, and its GPU where there are any."""
    threads = str(max(1, cores // workers))
    shared = dict.fromkeys(_THREADS, threads)
    return [
        {**shared, **({"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {})} for number in range(workers)
    ]


@contextmanager
def environment_of(setting: Mapping[str, str]) -> Iterator[None]:
    """Variables that a process started meanwhile inherits; torch reads them when it is imported there."""
    before = {name: os.environ.get(name) for name in setting}
    os.environ.update(setting)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def visible_gpus() -> list[str]:
    """The CUDA devices that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (given or [str(number) for number in range(count)])[:count]
