"""MLflow as a mirror of the runs' folders: whatever it lacks is filled in from them, during a run or years later.

mlflow.json in a run's folder says what MLflow has already. It may be lost: nothing is ever logged twice.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench.errors import BenchError
from bench.tracking.store import fill, open_state, sqlite_file, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from bench.progress import Progress
    from bench.record import Run

__all__ = ["OFF", "Mirror", "connect", "prepare", "sync", "tracking_uri", "translated"]

#: The tracking URI that switches MLflow off.
OFF = "off"

#: What MLflow is told where the user's environment does not say otherwise: be quiet, phone nobody, give up early.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}

#: Warnings about MLflow's own code, on loading it: nobody who uses it can do anything about them.
_NOISE = (".*Any type hint is inferred as AnyType", "The ``noload`` loader strategy is deprecated")

_LOCK_TIMEOUT_S = 120.0
_RETRY_AFTER_S = 15.0


def tracking_uri() -> str:
    """Where MLflow keeps its runs: MLFLOW_TRACKING_URI, or mlflow.db in the current folder; "off" for nowhere."""
    if os.environ.get("BENCH_TRACKING", "").lower() == OFF:
        return OFF
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    path = sqlite_file(uri)
    return f"sqlite:///{path.as_posix()}" if path else uri


def sync(run: Run, *, uri: str | None = None) -> str:
    """Bring MLflow up to date with a run's folder and return MLflow's run id. What is there already is left alone.

    A run that somebody deleted in MLflow stays deleted. Raises BenchError where MLflow cannot be reached.
    """
    uri = uri or tracking_uri()
    if uri == OFF:
        raise BenchError("tracking is switched off", hint="unset BENCH_TRACKING")
    with translated(uri), _lock(run.folder.parent / f".{run.name}.lock"):
        client = connect(uri)
        state = open_state(client, run, uri)
        if state["alive"]:
            fill(client, run, state)
        return str(state["run_id"])


class Mirror:
    """Keeps MLflow up to date from a thread of its own; a run neither waits for MLflow nor fails because of it."""

    def __init__(self, progress: Progress, *, enabled: bool = True) -> None:
        self._progress = progress
        self._uri = tracking_uri() if enabled else OFF
        self._run: Run | None = None
        self._pending: dict[Path, Run] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = self._warned = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def watch(self, run: Run) -> None:
        """Mirror this run from now on; one that was watched before is still brought to its end."""
        self._run = run
        if self._uri != OFF and self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()
        self.touch()

    def touch(self) -> None:
        """The watched run has changed. Returns at once."""
        if self._run is not None:
            with self._lock:
                self._pending[self._run.folder] = self._run
            self._wake.set()

    def close(self, *, run_done_timeout_s: float = 60.0) -> None:
        """Wait until MLflow has everything, but no longer than this."""
        if self._thread is None:
            return
        self._closing = True
        self._wake.set()
        self._thread.join(run_done_timeout_s)
        if self._thread.is_alive():
            self._warn(f"it has not taken everything within {run_done_timeout_s:g} s")
        self._thread = None

    def _work(self) -> None:
        not_before = 0.0
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing
            if closing or time.monotonic() >= not_before:
                with self._lock:
                    runs, self._pending = self._pending, {}
                failed = [run for run in runs.values() if not self._sync(run)]
                with self._lock:
                    self._pending = {**{run.folder: run for run in failed}, **self._pending}
                if failed:
                    not_before = time.monotonic() + _RETRY_AFTER_S
            if closing:
                return

    def _sync(self, run: Run) -> bool:
        try:
            sync(run, uri=self._uri)
        except Exception as error:  # noqa: BLE001  # tracking must never end a run
            self._warn(str(error))
            return False
        return True

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self._progress.warn(f"MLflow is not up to date ({why}). Nothing is lost: bench sync fills it in later")


def prepare(uri: str) -> None:
    """Make a SQLite store where there is none yet; MLflow, which takes seconds, is loaded for that alone."""
    path = sqlite_file(uri)
    with _creating(uri):  # waits for a process that is making it at this moment
        exists = path is None or path.is_file()
    if not exists:
        connect(uri)


def connect(uri: str) -> MlflowClient:
    """A client; a SQLite store that does not exist yet is created by one process only."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
    with _creating(uri):
        from mlflow import MlflowClient

        return MlflowClient(uri)


def _creating(uri: str) -> AbstractContextManager[None]:
    """The lock of a SQLite store's creation; none for other stores."""
    path = sqlite_file(uri)
    return _lock(path.with_name(f"{path.name}.lock")) if path else nullcontext()


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """What MLflow, its database and its connections raise, as one BenchError without the password in the address."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except Exception as cause:
        from mlflow.exceptions import MlflowException

        if not isinstance(cause, MlflowException | SQLAlchemyError | OSError):
            raise
        text = str(cause).strip().partition("\n")[0] or type(cause).__name__
        if text.startswith("API request to"):  # the reason stands at the end
            text = text.rpartition(": ")[2].rstrip("\"')")
        message = without_password(f"{uri}: {text[:300]}")
        raise BenchError(
            message, hint="the run's folder is complete; bench sync can be repeated at any time"
        ) from cause


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path, timeout=_LOCK_TIMEOUT_S):
        yield
