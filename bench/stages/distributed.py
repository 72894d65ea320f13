"""Several processes that train one run: how they meet, agree, share out, and learn of each other's end.

What is said between them (objects, wishes, single numbers) goes through gloo on the CPU; gradients go through gloo or,
on GPUs, through nccl.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # torch lists it in its documents only
from torch.distributed.rendezvous import rendezvous

from bench.errors import BenchError, DataError, RecipeError
from bench.stages.last_words import LastWords, Left
from bench.stages.shards import Shard

if TYPE_CHECKING:
    from bench.launch import Launch

__all__ = ["Team", "joined"]

#: How long the processes may take to find each other, and how long one may work while the others wait. A process that
#: has died is noticed at once, by its closed connection; this is for one that is alive and silent.
_MEET = timedelta(minutes=10)
_WAIT = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of one run, seen from one of them. The first one leads: it alone records and speaks.

    Every method with a collective in it is called by all of them, in the same order.
    """

    launch: Launch
    hosts: tuple[str, ...]
    words: LastWords

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.launch.world_size

    @property
    def leads(self) -> bool:
        """Whether this one is the first."""
        return self.launch.rank == 0

    @property
    def shard(self) -> Shard:
        """This process's part of every batch and split."""
        return Shard(self.launch.rank, self.size)

    def broadcast(self, value: Any = None) -> Any:
        """The first process's value, in all of them; tensors arrive on the CPU."""
        box = [_on_cpu(value) if self.leads else None]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Everyone's value, by rank, in all of them."""
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    def any(self, wish: bool) -> bool:  # noqa: FBT001  # any(x), as Python's own
        """Whether one of them says yes."""
        said = torch.tensor([int(wish)])
        dist.all_reduce(said, op=dist.ReduceOp.MAX)
        return bool(said.item())

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @torch.no_grad()
    def share_buffers(self, module: torch.nn.Module) -> None:
        """Give every process the first one's buffers, such as running means: those of the weights are the same already."""
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)

    @contextmanager
    def one_a_host_first(self) -> Iterator[None]:
        """One process of each host goes through the block, then the others, which find its files in the cache."""
        if self.launch.local_rank:
            self.any(wish=False)
        yield
        if not self.launch.local_rank:
            self.any(wish=False)

    def same_data(self, fingerprint: str) -> None:
        """Raise DataError where the processes see different datasets."""
        found = self.gather(fingerprint)
        others = sorted({self.hosts[rank] for rank, one in enumerate(found) if one != found[0]})
        if others:
            raise DataError(
                f"the dataset on {', '.join(others)} is not that on {self.hosts[0]}",
                hint="copy it anew, or put it where every host sees it",
            )

    def take_device(self, device: str) -> None:
        """Take this process's GPU where the run is on GPUs. Raises RecipeError where there are too few."""
        if not device.startswith("cuda"):
            return
        if device != "cuda":
            raise RecipeError(
                f"compute.device = {device!r}, but each of {self.size} processes takes a GPU of its own",
                hint="--set compute.device=cuda",
            )
        local, gpus = self.launch.local_world_size, torch.cuda.device_count()
        if local > gpus:
            raise RecipeError(
                f"{local} processes on {platform.node()}, but torch sees {gpus} GPU{'s' if gpus != 1 else ''} there",
                hint=f"torchrun --nproc-per-node {gpus}, or --set compute.device=cpu" if gpus else None,
            )
        torch.cuda.set_device(self.launch.local_rank)

    def explain(self, error: Exception) -> Exception:
        """An error that only says that a connection was lost becomes what the process at its other end had to say."""
        return self.words.explain(error)


@contextmanager
def joined(launch: Launch) -> Iterator[Team]:
    """Meet the other processes, and part from them at the end, when the first one says that there is nothing more.

    Raises BenchError where they do not come, and Left where one of them ends before.
    """
    try:
        store, rank, size = next(rendezvous("env://", launch.rank, launch.world_size, timeout=_MEET))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        store = PrefixStore("bench", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_WAIT)
        team = Team(launch, tuple(_everyone(platform.node(), size)), LastWords(launch, store))
    except (RuntimeError, ValueError) as cause:
        reason = str(cause).partition("\n")[0]
        raise BenchError(
            f"the {launch.world_size} processes did not find each other: {reason}",
            hint="is the port of MASTER_ADDR open? GLOO_SOCKET_IFNAME names the network that gloo takes",
        ) from cause
    try:
        yield team
        if team.leads:
            team.broadcast(None)
    except Exception as error:
        failure = team.explain(error)
        team.words.leave(failure)
        if not team.leads and isinstance(failure, BenchError) and team.words.said_by_first(failure):
            raise Left(str(failure), exit_code=failure.exit_code) from error
        if failure is error:
            raise
        raise failure from error
    dist.destroy_process_group()


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(one) for key, one in value.items()}
    return tuple(map(_on_cpu, value)) if type(value) is tuple else value


def _everyone(name: str, size: int) -> Sequence[str]:
    box: list[Any] = [None] * size
    dist.all_gather_object(box, name)
    return box
