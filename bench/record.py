"""A run's folder: the truth about it. Everything else (MLflow, tables, reports) is made from here.

runs/EXPERIMENT/RUN/
    run.json           status, seed, digests, versions, metrics; rewritten whole at each change of status
    recipe.toml        the recipe with every change applied
    plan.json          each derived value with its reason
    metrics.jsonl      a line an epoch
    evaluation.json    metrics, intervals, classes and confusion matrix of each split
    predictions/       SPLIT.npz: ids, labels, probabilities
    checkpoints/       last.safetensors, best.safetensors
    model.safetensors  the result's weights
    export/            ONNX files, the gate's reports, latencies
    figures/           PNG
    report.html        the last report
    manifest.json      the sha256 of each of these
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.files import sha256, write_json, write_text
from bench.run_info import STATUSES, read_info

__all__ = [
    "SCHEMA",
    "Run",
    "create",
    "find_mirrored",
    "group_of",
    "is_alive",
    "list_runs",
    "new_group",
    "runs_folder",
    "status_of",
    "this_process",
]

#: The version of the layout above.
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name, unique within its experiment."""
        return self.folder.name

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.folder / "checkpoints"

    def info(self, *needed: str) -> dict[str, Any]:
        """What run.json says. Raises BenchError where it is missing or damaged, or lacks an entry that is needed."""
        return read_info(self.folder, *needed)

    def status(self) -> str:
        """running, finished, failed, interrupted or pruned; a run whose process is gone counts as interrupted."""
        return status_of(self.info())

    def update(self, **values: Any) -> None:
        """Change entries of run.json."""
        write_json(self.folder / "run.json", {**self.info(), **values})

    def epochs(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl: epoch, time (Unix, ms) and values. A torn last line is left out."""
        try:
            text = (self.folder / "metrics.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        lines = []
        for line in text.splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines

    def log_epoch(self, number: int, values: dict[str, float]) -> None:
        """Add a line to metrics.jsonl; lines of this epoch and later ones, left by a killed run, are replaced."""
        kept = [line for line in self.epochs() if line["epoch"] < number]
        line = {"epoch": number, "time": time.time_ns() // 1_000_000, "values": values}
        path = self.folder / "metrics.jsonl"
        if len(kept) == _whole_lines(path):
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        else:
            write_text(path, "".join(json.dumps(entry) + "\n" for entry in [*kept, line]))

    def finish(self, status: str, **values: Any) -> None:
        """Close the run: status, time, further entries, and the manifest of all its files."""
        assert status in STATUSES  # noqa: S101  # the statuses are ours
        self.update(status=status, ended=_now(), **values)
        # Hidden files are being written at this moment, by the mirror's thread; the skipped ones change later.
        files = (p for p in self.folder.rglob("*") if not p.name.startswith(".") and p.is_file())
        names = sorted(file.relative_to(self.folder).as_posix() for file in files)
        skipped = {"manifest.json", "mlflow.json", "run.json"}
        write_json(self.folder / "manifest.json", {n: sha256(self.folder / n) for n in names if n not in skipped})


def runs_folder() -> Path:
    """Where runs are recorded: BENCH_RUNS, or `runs` in the current folder."""
    return Path(os.environ.get("BENCH_RUNS", "runs"))


def create(
    experiment: str,
    *,
    group: str,
    seed: int,
    recipe_text: str,
    plan: dict[str, Any],
    fold: int | None = None,
    trial: int | None = None,
    **info: Any,
) -> Run:
    """Make a new run's folder. Runs of one `bench run` with several seeds or folds share their group, and so do the
    trials of a study. A trial's folder may be there already, as far as a killed process had come with it.
    """
    folder = folder_of(experiment, run_name(group, seed=seed, fold=fold, trial=trial))
    folder.mkdir(parents=True, exist_ok=trial is not None)
    run = Run(folder.resolve())
    write_text(folder / "recipe.toml", recipe_text)
    write_json(folder / "plan.json", plan)
    first = {"schema": SCHEMA, "id": secrets.token_hex(8), "experiment": experiment, "group": group, "seed": seed}
    first |= {name: value for name, value in (("fold", fold), ("trial", trial)) if value is not None}
    write_json(
        folder / "run.json", {**first, "status": "running", "process": this_process(), "created": _now(), **info}
    )
    return run


def folder_of(experiment: str, name: str) -> Path:
    """Where the run of that name is, or would be."""
    return runs_folder() / _safe(experiment) / name


def run_name(group: str, *, seed: int, fold: int | None = None, trial: int | None = None) -> str:
    """The name of a group's run: GROUP-s0, of a trial GROUP-t0007-s0, of a fold GROUP-f3-s0."""
    parts = ("" if trial is None else f"-t{trial:04}", "" if fold is None else f"-f{fold}")
    return f"{group}{''.join(parts)}-s{seed}"


def new_group() -> str:
    """A name for a new group of runs that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def list_runs(experiment: str | None = None) -> Iterator[Run]:
    """Every run's folder, oldest first."""
    root = runs_folder()
    yield from _runs_in([root / _safe(experiment)] if experiment else sorted(root.glob("*")))


def group_of(run: Run) -> list[Run]:
    """The runs of a run's group that lie beside it, itself among them, oldest first.

    No other group's run.json is read. Raises BenchError where that of one of this group's runs is damaged.
    """
    group = run.info()["group"]
    beside = dict.fromkeys(_runs_in([run.folder.parent]))
    return [one for one in beside if one == run or (one.name.startswith(f"{group}-") and one.info()["group"] == group)]


def status_of(info: Mapping[str, Any]) -> str:
    """As `Run.status`, of what its run.json says."""
    status = str(info["status"])
    return "interrupted" if status == "running" and not is_alive(info.get("process") or {}) else status


def find_mirrored(mlflow_id: str) -> Run | None:
    """The run that MLflow knows by this id; None where no folder says so."""
    for run in list_runs():
        try:
            known = json.loads((run.folder / "mlflow.json").read_text(encoding="utf-8"))["run_id"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if known == mlflow_id:
            return run
    return None


def this_process() -> dict[str, Any]:
    """What tells this process from any other, on this machine and others."""
    import psutil

    return {"host": platform.node(), "id": os.getpid(), "started": psutil.Process().create_time()}


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether a recorded process still runs. One of another machine cannot be seen, and counts as alive."""
    import psutil

    if process.get("host") != platform.node():
        return bool(process)
    try:
        seen = psutil.Process(process["id"])
        same = abs(seen.create_time() - process["started"]) < 1
        return bool(same and seen.status() != psutil.STATUS_ZOMBIE)  # killed, and its parent has not looked yet
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):  # gone, or no process could be called so
        return False


def _runs_in(places: Iterable[Path]) -> Iterator[Run]:
    """The runs in folders of runs, oldest first."""
    found = [path.parent for place in places for path in place.glob("*/run.json")]
    for folder in sorted(found, key=lambda folder: folder.name):
        yield Run(folder.resolve())


def _safe(name: str) -> str:
    """An experiment's name as a folder's name."""
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in name).strip(". ") or "_"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _whole_lines(path: Path) -> int:
    """How many lines a file has; -1 where its last one is torn."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return 0
    return content.count(b"\n") if content.endswith(b"\n") else -1
