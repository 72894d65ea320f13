"""The run of MLflow that stands for a search: parent of the runs of its trials, one for all processes and machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.record import runs_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Entry

__all__ = ["PARENT_TAG", "find_or_create_parent", "log_parent"]

#: MLflow's own tag: its UI shows a run that has it below the other.
PARENT_TAG = "mlflow.parentRunId"

_LOCK_TIMEOUT_S = 120.0
_MOST_CHILDREN = 1000  # of a duplicate, which only lives for moments


def log_parent(client: MlflowClient, info: Mapping[str, Any], state: dict[str, Any]) -> None:
    """Put a run below the one that its run.json calls "parent"; looked at when it starts and again when it ends."""
    if not info.get("parent"):
        return
    mark = f"{info['parent']} {'begun' if info['status'] == 'running' else 'ended'}"
    known = state.get("parent") or {}
    if known.get("mark") == mark:
        return
    name = str(info.get("study") or info["experiment"])
    parent = find_or_create_parent(client, state["experiment_id"], str(info["parent"]), name=name)
    if known.get("run_id") != parent:
        client.set_tag(state["run_id"], PARENT_TAG, parent)
    state["parent"] = {"mark": mark, "run_id": parent}


def find_or_create_parent(client: MlflowClient, experiment: str, identity: str, *, name: str) -> str:
    """MLflow's run of the study with this id, made on first use; returns MLflow's run id.

    A file lock keeps the processes of this machine from making two. MLflow has no lock for several machines: should two
    of them make one at the same moment, all agree on the older one, and whoever sees the other removes it and moves its
    children. A parent that a person deleted stays deleted.
    """
    from filelock import FileLock

    entries = _entries(client, experiment, identity)
    if len(entries) == 1:
        return str(entries[0].info.run_id)
    folder = runs_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".study-{identity}.lock", timeout=_LOCK_TIMEOUT_S):
        if not _entries(client, experiment, identity):
            tags = {"visionbench.id": identity, "visionbench.study": name}
            client.create_run(experiment, run_name=name, tags=tags)
        first, *others = _entries(client, experiment, identity)
        for duplicate in others:
            _dissolve(client, experiment, str(duplicate.info.run_id), into=str(first.info.run_id))
    return str(first.info.run_id)


def _entries(client: MlflowClient, experiment: str, identity: str) -> list[Entry]:
    """The runs with this id, the valid one first: not deleted ones before deleted ones, then older ones."""
    from mlflow.entities import ViewType

    mine = f"tags.`visionbench.id` = '{identity}'"
    found = client.search_runs([experiment], mine, run_view_type=ViewType.ALL, max_results=100)
    alive = [entry for entry in found if entry.info.lifecycle_stage == "active"]
    return sorted(alive or found[:1], key=lambda entry: (entry.info.start_time, entry.info.run_id))


def _dissolve(client: MlflowClient, experiment: str, duplicate: str, *, into: str) -> None:
    children = client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{duplicate}'", max_results=_MOST_CHILDREN)
    for child in children:
        client.set_tag(child.info.run_id, PARENT_TAG, into)
    client.delete_run(duplicate)
