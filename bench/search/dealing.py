"""What each of several workers gets: threads, a GPU where there are any, and the environment of its search."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["environment_of", "environments", "travelling", "visible_gpus"]

#: What the libraries below torch read when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

#: What goes with a trial to another machine: where things lie, and what libraries read when they are loaded. No address
#: with a password is among them, as Ray writes these to its logs; the driver keeps MLflow up to date.
_FOLDERS = ("BENCH_DATA", "BENCH_CACHE", "HF_HOME", "TORCH_HOME")
_SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "HF_HUB_OFFLINE")


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


def travelling(threads: int) -> dict[str, str]:
    """The environment variables of a trial on a machine of a cluster, as far as they are set here; folders absolute."""
    found = {name: str(Path(os.environ[name]).resolve()) for name in _FOLDERS if os.environ.get(name)}
    found |= {name: os.environ[name] for name in _SETTINGS if os.environ.get(name)}
    return {**found, **dict.fromkeys(_THREADS, str(threads))}
