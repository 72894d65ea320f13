"""The trials of a search as tasks on a Ray cluster; this process is the driver."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.interrupts import StopRequest
from bench.record import runs_folder
from bench.search.board import BoardProgress
from bench.search.mirroring import MirrorProcess
from bench.search.ray_cluster import Cluster, connected, nodes_of, require_shared, settled
from bench.search.ray_driver import Driver
from bench.search.ray_task import Job

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage

    from bench.progress import Progress
    from bench.recipe import Recipe
    from bench.search.board import Board
    from bench.search.ending import End

__all__ = ["Engine", "started"]


@dataclass(frozen=True, slots=True)
class Engine:
    """A cluster that is connected and has what a trial asks for."""

    ray: Any
    cluster: Cluster
    storage_url: str

    def run(self, recipe: Recipe, *, study: Study, workers: int | None, deadline: float | None, board: Board) -> End:
        """Run trials as tasks until the recipe's number of them is finished; returns why they ended.

        At most `workers` at once; None: as many as the cluster has room for. A trial whose process or node dies is
        queued again at once, and goes on from its checkpoint where its next node sees the runs' folder. Raises
        BenchError where no node can run trials, or the study's storage stays away.
        """
        progress = BoardProgress(board)
        with _token() as token, StopRequest() as should_stop, MirrorProcess(progress) as mirror:
            job = self._job(recipe, token=token, deadline=deadline)
            total = recipe.search.trials
            driver = Driver(self.ray, self.cluster, study, job, total, workers, should_stop, board, progress, mirror)
            try:
                return driver.run()
            finally:
                driver.close()

    def _job(self, recipe: Recipe, *, token: str, deadline: float | None) -> Job:
        return Job(
            text=recipe.text,
            path=str(recipe.path),
            storage_url=self.storage_url,
            deadline=deadline,
            threads=max(1, int(self.cluster.cpus_per_trial)),
            gpus=self.cluster.gpus_per_trial or 0.0,
            folder=str(Path.cwd()),
            runs=str(runs_folder().resolve()),
            token=token,
        )


@contextmanager
def started(cluster: Cluster, recipe: Recipe, storage: RDBStorage, progress: Progress) -> Iterator[Engine]:
    """Join the cluster, or start Ray on this machine, until the end of the block.

    Raises BenchError for what stands in the way: no Ray, no cluster, a node without the resources or the storage.
    """
    progress.note("starting Ray" if cluster.address is None else f"joining the Ray cluster at {cluster.address}")
    with connected(cluster) as ray:
        nodes = nodes_of(ray)
        chosen = settled(cluster, recipe, nodes)
        require_shared(storage, nodes)
        room = sum(chosen.room(node) for node in nodes)
        progress.note(f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}, room for {room} trials at once")
        yield Engine(ray, chosen, storage.engine.url.render_as_string(hide_password=False))


@contextmanager
def _token() -> Iterator[str]:
    """The name of a file in the runs' folder: who finds it there sees this very folder."""
    runs_folder().mkdir(parents=True, exist_ok=True)
    path = runs_folder() / f".seen-{secrets.token_hex(8)}"
    path.touch()
    try:
        yield path.name
    finally:
        path.unlink(missing_ok=True)
