"""The nodes of a cluster as a search sees them: each is looked at before it gets trials, and one that cannot run them gets none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.search.ray_cluster import Cluster, Node, nodes_of

if TYPE_CHECKING:
    from bench.search.ray_task import Report

__all__ = ["Fleet"]

#: Between two looks at which nodes there are; how long a search waits for the first one, and then says so.
_REFRESH_SECONDS, _PATIENCE_SECONDS = 3.0, 30.0

#: The cluster itself needs a while to notice a death, and says until then that the node is alive.
_MOURNING_SECONDS = 120.0

#: A node where it goes wrong so often, in a row, is left out.
_MOST_DEATHS = 3


@dataclass(slots=True)
class Fleet:
    """`look` submits a task that prepares the node of this key."""

    ray: Any
    cluster: Cluster
    look: Callable[[str], Any]
    warn: Callable[[str], None]
    looks: dict[Any, Node] = field(default_factory=dict)
    fit: dict[str, Node] = field(default_factory=dict)
    unfit: dict[str, tuple[Node, str, str | None]] = field(default_factory=dict)
    _dead: dict[str, float] = field(default_factory=dict)
    _deaths: dict[str, int] = field(default_factory=dict)
    _refreshed: float = 0.0
    _alone_since: float = field(default_factory=time.monotonic)
    _warned: bool = False

    def refresh(self) -> None:
        """Look at nodes that have joined, and forget those that have gone. Raises BenchError where none is left."""
        if time.monotonic() - self._refreshed < _REFRESH_SECONDS:
            return
        self._refreshed = time.monotonic()
        self._dead = {key: until for key, until in self._dead.items() if until > self._refreshed}
        alive = {node.key: node for node in nodes_of(self.ray) if node.key not in self._dead}
        self.fit = {key: node for key, node in self.fit.items() if key in alive}
        known = {*self.fit, *self.unfit, *(node.key for node in self.looks.values())}
        for key, node in alive.items():
            if key not in known and self.cluster.room(node):
                self.looks[self.look(key)] = node
        self._require_any(alive)

    def heard(self, ref: Any) -> None:
        """The look at a node has ended."""
        node = self.looks.pop(ref)
        try:
            report: Report = self.ray.get(ref)
        except (self.ray.exceptions.WorkerCrashedError, self.ray.exceptions.OutOfMemoryError):
            self._deaths[node.key] = self._deaths.get(node.key, 0) + 1
            if self._deaths[node.key] >= _MOST_DEATHS:
                self._reject(node, "its process dies while it reads the images (out of memory?)", None)
            return  # it is looked at again
        except self.ray.exceptions.TaskCancelledError:
            return
        except (self.ray.exceptions.NodeDiedError, self.ray.exceptions.TaskUnschedulableError):
            self.lost(node.key)
            return
        except self.ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            text = next((line for line in reversed(lines) if "Error" in line), lines[-1])
            hint = "install visionbench, Ray and your plugins in the same versions on all nodes"
            self._reject(node, f"it cannot run trials: {text[:300]}", hint)
            return
        for text in report.warnings:
            self.warn(text)
        if report.state == "ready":
            self.fit[node.key] = node
        else:
            self._reject(node, report.error, report.hint)

    def doubt(self, key: str, why: str, hint: str | None) -> None:
        """A task could not begin on a node that had been fit; several in a row, and it gets no more."""
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if self._deaths[key] >= _MOST_DEATHS and key in self.fit:
            self._reject(self.fit.pop(key), why, hint)

    def trust(self, key: str) -> None:
        """A task did begin there."""
        self._deaths.pop(key, None)

    def lost(self, key: str) -> None:
        """A node is known to be dead, before the cluster itself has noticed."""
        self._dead[key] = time.monotonic() + _MOURNING_SECONDS
        self.fit.pop(key, None)

    def free(self, taken: Mapping[str, int]) -> str | None:
        """The node with the most room beside what is `taken` of each; None where there is none."""
        room = {key: self.cluster.room(node) - taken.get(key, 0) for key, node in self.fit.items()}
        best = max(room, key=lambda key: room[key], default=None)
        return best if best is not None and room[best] > 0 else None

    def _reject(self, node: Node, why: str, hint: str | None) -> None:
        self.unfit[node.key] = node, why, hint
        self.warn(f"node {node.host} gets no trials: {why}")

    def _require_any(self, alive: dict[str, Node]) -> None:
        if self.fit:
            self._alone_since = time.monotonic()
            return
        if not self.looks and any(key in alive for key in self.unfit):
            node, why, hint = next(iter(self.unfit.values()))
            others = len(self.unfit) - 1
            more = f" (and {others} more of its nodes likewise)" if others else ""
            raise BenchError(f"no node of the cluster can run a trial; {node.host}: {why}{more}", hint=hint)
        if time.monotonic() - self._alone_since < _PATIENCE_SECONDS:
            return
        if not self.looks:
            raise BenchError("the cluster has no node left that a trial fits on", hint="the same command goes on")
        if not self._warned:
            self._warned = True
            self.warn("no node is ready yet: they are busy with other work, or read the images")
