"""A Ray cluster: started on this machine for one search, or joined; what its nodes have, and what stands in the way."""

from __future__ import annotations

import importlib
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, RecipeError
from bench.search.storage import sqlite_path
from bench.search.storage_errors import displayed

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

    from bench.recipe import Recipe

__all__ = ["Cluster", "Node", "connected", "nodes_of", "require_shared", "settled"]

#: What Ray reads when it is imported: phone nobody, and leave the terminal to the search (its errors come back as ours).
#: Where it is started here, trials are what it is started for, and no work for idle cores.
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": ".", "RAY_worker_niceness": "0"}

#: Ray's own patience with an address where nobody answers is two minutes, and then it ends the process.
_IMPATIENT = {
    "RAY_gcs_rpc_server_connect_timeout_s": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "6",
    "RAY_gcs_server_request_timeout_seconds": "10",
    "RAY_NUM_REDIS_GET_RETRIES": "5",
}
_PROBE_S = 60

#: Joins a cluster and leaves it; a process of its own, as Ray may end the one that fails to.
_PROBE = """
import sys
import ray
try:
    ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
except BaseException as error:
    while error is not None:
        print(f"{type(error).__name__}: {error}")
        error = error.__cause__
    sys.exit(3)
"""

#: What tasks hand back is small where the runs' folder is shared; Ray's own share is a third of the memory.
_STORE_BYTES = 100_000_000

#: Sockets lie below Ray's folder, and their paths have 107 bytes; Ray's own part takes some 75.
_LONGEST_FOLDER = 20


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where trials run as tasks of Ray, and what each of them has.

    Without an `address` ("auto", "HOST:PORT") Ray is started on this machine for one search. `gpus_per_trial` may be a
    fraction; None is one where the cluster has GPUs and the recipe does not ask for another device.
    """

    address: str | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None

    def room(self, node: Node) -> int:
        """How many trials a node has room for at once."""
        return min(_times(node.cpus, self.cpus_per_trial), _times(node.gpus, self.gpus_per_trial or 0.0))


@dataclass(frozen=True, slots=True)
class Node:
    """A living node of a cluster. `is_here`: on this machine."""

    key: str
    host: str
    cpus: float
    gpus: float
    is_here: bool

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU{'s' if self.gpus != 1 else ''}" if self.gpus else ""
        return f"{self.host} has {self.cpus:g} CPU{'s' if self.cpus != 1 else ''}{gpus}"


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Ray's module, while this process is the driver of a cluster; started here where there is no address.

    Raises BenchError where Ray is not installed, no cluster answers (within a minute), or it is of another version.
    """
    ray = _import()
    before = signal.getsignal(signal.SIGTERM)  # Ray puts its own there
    folder: Path | None = None
    try:
        if cluster.address in {None, "local"}:
            folder = _folder()
            _start(ray, folder)
        else:
            _probe(str(cluster.address))
            ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        yield ray
    finally:
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def nodes_of(ray: Any) -> list[Node]:
    """The nodes that are alive as far as the cluster knows."""
    import psutil

    addresses = {one.address for many in psutil.net_if_addrs().values() for one in many}
    found = []
    for entry in ray.nodes():
        if entry["Alive"]:
            host, has = entry["NodeManagerHostname"], entry["Resources"]
            is_here = host == platform.node() and entry["NodeManagerAddress"] in addresses
            found.append(Node(entry["NodeID"], host, has.get("CPU", 0.0), has.get("GPU", 0.0), is_here))
    return found


def settled(cluster: Cluster, recipe: Recipe, nodes: Sequence[Node]) -> Cluster:
    """The cluster with the GPUs decided. Raises RecipeError where no node has what a trial asks for."""
    gpus = cluster.gpus_per_trial
    if gpus is None:
        wanted = recipe.compute.device in {"auto", "cuda"} or recipe.compute.device.startswith("cuda:")
        gpus = 1.0 if wanted and any(node.gpus >= 1 for node in nodes) else 0.0
    chosen = Cluster(cluster.address, cluster.cpus_per_trial, gpus)
    if not any(chosen.room(node) for node in nodes):
        asked = f"{chosen.cpus_per_trial:g} CPUs and {gpus:g} GPUs" if gpus else f"{chosen.cpus_per_trial:g} CPUs"
        raise RecipeError(
            f"no node of the cluster has the {asked} that a trial asks for: {_listed(nodes)}",
            hint="smaller --cpus-per-trial or --gpus-per-trial (fractions are allowed), or a larger node",
        )
    return chosen


def require_shared(storage: RDBStorage, nodes: Sequence[Node]) -> None:
    """Raise BenchError where a study is a file of this machine and the cluster has nodes elsewhere."""
    elsewhere = sorted({node.host for node in nodes if not node.is_here})
    if elsewhere and sqlite_path(storage.engine.url) is not None:
        raise BenchError(
            f"{displayed(storage.engine.url)} is a file of this machine, and the cluster has nodes elsewhere: "
            f"{', '.join(elsewhere[:5])}",
            hint="--storage postgresql://USER:PASSWORD@HOST/NAME (pip install 'visionbench[postgres]')",
        )


def _import() -> Any:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        importlib.import_module("ray.util.scheduling_strategies")
        return importlib.import_module("ray")
    except ImportError as cause:
        raise BenchError(f"Ray cannot be imported: {cause}", hint="pip install 'visionbench[ray]'") from cause


def _start(ray: Any, folder: Path) -> None:
    from bench import environment

    try:
        ray.init(
            address="local",
            num_cpus=environment.detect().cores,
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            logging_level="ERROR",
            log_to_driver=False,
            _temp_dir=str(folder),
        )
    except (RuntimeError, OSError, ValueError) as cause:
        raise BenchError(f"Ray could not be started on this machine: {cause}", hint="--engine local") from cause


def _folder() -> Path:
    """A folder for Ray's logs and sockets, away from those of other clusters of this machine."""
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="ray-", dir=base if len(base) <= _LONGEST_FOLDER else "/tmp"))  # noqa: S108


def _probe(address: str) -> None:
    """Raise BenchError where a cluster cannot be joined; Ray itself would wait for minutes and then exit."""
    if "://" in address:
        raise RecipeError(
            f"--address {address}: a search runs on a machine of the cluster, not through Ray's client",
            hint="--address HOST:PORT, or auto on a machine where `ray start` was run",
        )
    try:
        done = subprocess.run(  # noqa: S603  # this Python, and an argument that is data to it
            [sys.executable, "-W", "ignore", "-c", _PROBE, address],
            env={**os.environ, **_IMPATIENT},
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            check=False,
        )
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        code, said = 1, ""
    if code != 0:
        raise _unreachable(address, said.strip())


def _unreachable(address: str, said: str) -> BenchError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if "Version mismatch" in said:
        text = " ".join(lines[next(i for i, line in enumerate(lines) if "Version mismatch" in line) :])
        return BenchError(
            f"the Ray cluster at {address} is of another version: {text.partition('Version mismatch: ')[2]}",
            hint="the same Python and the same Ray on all machines: pip install 'visionbench[ray]' ray==VERSION",
        )
    if "Invalid address" in said:
        return RecipeError(f"--address {address}: no address", hint="auto, or HOST:PORT as `ray start` prints it")
    known = [line for line in lines if "SystemExit" not in line]
    reason = known[-1].partition(": ")[2] if known else "nobody answers there"
    return BenchError(
        f"no Ray cluster can be joined at {address}: {reason[:300]}",
        hint="`ray start --head` on one machine, `ray start --address=HOST:PORT` on the others and on this one",
    )


def _listed(nodes: Sequence[Node]) -> str:
    return "; ".join(map(str, nodes[:8])) + (f"; and {len(nodes) - 8} more" if len(nodes) > 8 else "")  # noqa: PLR2004


def _times(has: float, needs: float) -> int:
    """How often a share fits; a share of a GPU comes from one GPU."""
    if needs <= 0:
        return sys.maxsize
    if needs < 1:
        return math.floor(has) * math.floor(1 / needs + 1e-9)
    return math.floor(has / needs + 1e-9)
