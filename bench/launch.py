"""Whether torchrun has started this process as one of several; reads the environment and nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass

from bench.errors import RecipeError

__all__ = ["Launch", "launched"]

#: What torchrun tells each process about itself. Any of these means that it, or something like it, was at work.
_OWN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
#: Where the processes meet. Clusters set these for other purposes too.
_MEETING = ("MASTER_ADDR", "MASTER_PORT")

_HINT = "start with: torchrun --nproc-per-node 2 -m bench run RECIPE, or unset "


@dataclass(frozen=True, slots=True)
class Launch:
    """One of `world_size` processes; `rank` counts all of them, `local_rank` those of this host."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int


def launched() -> Launch | None:
    """What torchrun says of this process; None where it runs alone.

    Raises RecipeError where the variables are incomplete or contradict each other.
    """
    given = [name for name in _OWN if name in os.environ]
    if not given:
        return None
    missing = [name for name in (*_OWN, *_MEETING) if name not in os.environ]
    if missing:
        verb = "is" if len(given) == 1 else "are"
        raise RecipeError(
            f"{' and '.join(given)} {verb} set in the environment, but not {', '.join(missing)}",
            hint=_HINT + " ".join(given),
        )
    rank, world_size, local_rank = map(_number, _OWN)
    local = _number("LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in os.environ else world_size
    if not (0 <= local_rank < local <= world_size and 0 <= rank < world_size):
        raise RecipeError(
            f"RANK={rank}, WORLD_SIZE={world_size}, LOCAL_RANK={local_rank} and LOCAL_WORLD_SIZE={local} do not fit",
            hint=_HINT + " ".join(given),
        )
    return Launch(rank, world_size, local_rank, local) if world_size > 1 else None


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise RecipeError(f"{name}={os.environ[name]!r} in the environment is no number", hint=_HINT + name) from None
