"""What runs on a cluster's nodes: one trial a task, by the same loop as everywhere; the process keeps what trials share."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import __version__
from bench.errors import BenchError
from bench.interrupts import StopRequest
from bench.search.board import BoardProgress
from bench.search.ray_records import pack
from bench.search.storage import open_storage, sqlite_path

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from bench.record import Run
    from bench.search.run_search import Setting
    from bench.search.shared import Shared

__all__ = ["Job", "Report", "look", "place_of", "take"]

#: States of a trial whose record is whole. Only these are sent from a node that does not see the runs' folder.
_ENDED = ("complete", "pruned", "failed")


@dataclass(frozen=True, slots=True)
class Job:
    """What a task is told: plain values, as its process starts with nothing.

    `folder` and `runs` are the driver's current and runs' folder, `token` the name of a file in the latter: a node that
    finds it there sees the same folder.
    """

    text: str
    path: str
    storage_url: str
    deadline: float | None
    threads: int
    gpus: float
    folder: str
    runs: str
    token: str
    version: str = __version__
    host: str = field(default_factory=platform.node)


@dataclass(frozen=True, slots=True)
class Report:
    """What a task has come to.

    `state` is the trial's, "none" where there was none left to claim, "ready" of a node that was looked at, "unfit" of
    one that cannot run any trial, "error" where the study's storage stays away. `runs` are below the runs' folder;
    `archive` holds them where the driver cannot see them.
    """

    state: str
    host: str
    node: str
    warnings: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    archive: bytes | None = None
    error: str = ""
    hint: str | None = None


@dataclass(slots=True)
class _Said:
    """A task's board and mirror: what they are told goes to the driver."""

    warnings: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def show(self, trials: Sequence[FrozenTrial]) -> None:
        """Nothing: the driver shows the trials, from the storage."""

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def watch(self, run: Run) -> None:
        self.folders.append(run.folder)


@dataclass(frozen=True, slots=True)
class _Ready:
    """What the tasks of one process share."""

    setting: Setting
    study: Study
    shared: Shared
    sees_runs: bool


#: A process of Ray's belongs to one driver, and so to one job.
_known: dict[Job, _Ready] = {}


def look(job: Job) -> Report:
    """Prepare a node: what is wrong with it is known before it claims a trial, and its images are decoded once."""
    said = _Said()
    try:
        _ready(job, said)
    except Exception as error:  # noqa: BLE001  # a node without the dataset or a plugin must not end the search
        return _unfit(error, said)
    return _report("ready", said)


def take(job: Job) -> Report:
    """Claim a trial and run it to its end; a trial that cannot be ended is left in the queue as it is."""
    said = _Said()
    try:
        ready = _ready(job, said)
    except Exception as error:  # noqa: BLE001  # as above
        return _unfit(error, said)
    if job.deadline is not None and time.time() >= job.deadline:
        return _report("none", said)
    ready.shared.progress, ready.shared.mirror = BoardProgress(said), said
    ready.shared.device = _device(job)
    with StopRequest() as should_stop, _runs_folder(job, ready) as folder:  # ray.cancel arrives as Ctrl-C does
        ready.shared.should_stop = should_stop
        try:
            state = _run(ready, said, should_stop)
        except BenchError as error:
            return _report("error", said, error=str(error), hint=error.hint)
        names = tuple(found.relative_to(folder.resolve()).as_posix() for found in dict.fromkeys(said.folders))
        whole = ready.sees_runs or state in _ENDED
        archive = None if ready.sees_runs or not names or not whole else pack(folder, names)
        return _report(state, said, runs=names if whole else (), archive=archive)


def _run(ready: _Ready, said: _Said, should_stop: StopRequest) -> str:
    from bench.search.loop import work_once

    setting = ready.setting
    state = work_once(
        ready.study,
        ready.shared,
        space=setting.space,
        objectives=setting.objectives,
        constraints=setting.constraints,
        total=setting.total,
        should_stop=should_stop,
        board=said,
        task=_context().get_task_id(),
        node=_context().get_node_id(),
    )
    return state or "none"


def _ready(job: Job, said: _Said) -> _Ready:
    if job not in _known:
        _known[job] = _prepare(job, said)
    return _known[job]


def _prepare(job: Job, said: _Said) -> _Ready:
    from bench.recipe import parse
    from bench.search.objectives import constraints, objectives
    from bench.search.run_search import Setting
    from bench.search.shared import Shared
    from bench.search.space import parse_space
    from bench.search.study import open_study

    if job.version != __version__:
        raise BenchError(f"visionbench {__version__} is installed, and the search runs {job.version}")
    with suppress(OSError):  # recipes and datasets are named from here
        os.chdir(job.folder)
    sees_runs = (Path(job.runs) / job.token).is_file()
    os.environ["BENCH_RUNS"] = job.runs
    recipe = parse(job.text, path=Path(job.path))
    total = recipe.search.trials
    setting = Setting(recipe, parse_space(recipe), objectives(recipe), constraints(recipe), total)
    shared = Shared(recipe, progress=BoardProgress(said), threads=job.threads, device=_device(job))
    study = open_study(_storage(job), recipe, setting.space, setting.objectives)
    return _Ready(setting, study, shared, sees_runs)


def _storage(job: Job) -> Any:
    """The study's storage; a file that is not there would be made, and hold another study.

    Nor do locks hold between two machines, where both see it.
    """
    from sqlalchemy.engine import make_url

    path = sqlite_path(make_url(job.storage_url))
    if path is not None and (job.host != platform.node() or not path.is_file()):
        raise BenchError(
            f"{path}: the study is in a file of {job.host}, and this node is another machine or does not see it"
        )
    return open_storage(job.storage_url)


@contextmanager
def _runs_folder(job: Job, ready: _Ready) -> Iterator[Path]:
    """Where the task records: the driver's folder, or one that is sent to it."""
    if ready.sees_runs:
        yield Path(job.runs)
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-runs-"))
    os.environ["BENCH_RUNS"] = str(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _device(job: Job) -> str | None:
    """The GPU that Ray has set aside for this task; a process keeps all in view, as the next one may be another."""
    import torch

    if not torch.cuda.is_available():
        return None
    if not job.gpus:
        return "cpu"
    return f"cuda:{place_of(_context().get_accelerator_ids()['GPU'][0], os.environ.get('CUDA_VISIBLE_DEVICES', ''))}"


def place_of(gpu: str, visible: str) -> int:
    """What torch calls a GPU that Ray names: its place among the visible ones (CUDA_VISIBLE_DEVICES), or its number."""
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return names.index(gpu) if gpu in names else int(gpu)


def _context() -> Any:
    import ray

    return ray.get_runtime_context()


def _unfit(error: Exception, said: _Said) -> Report:
    text = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
    return _report("unfit", said, error=text, hint=getattr(error, "hint", None))


def _report(state: str, said: _Said, **values: Any) -> Report:
    return Report(state, platform.node(), _context().get_node_id(), tuple(said.warnings), **values)
