"""MLflow's web pages on the recorded runs, as a server on this machine that ends with the command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bench.errors import BenchError
from bench.record import list_runs
from bench.tracking import OFF, prepare, tracking_uri
from bench.tracking.store import without_password
from bench.tracking.view import page_of

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["serve_ui"]

#: MLflow refuses requests with other Host headers, and only this machine is served.
_HOST = "127.0.0.1"

#: No modules of the current folder, and none of the eight processes that MLflow starts to evaluate language models:
#: they doubled the time until it answered.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PYTHONSAFEPATH": "1",
}

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 10.0
_LOG_LINES = 15

#: How many runs are looked at for one that MLflow has.
_LATEST = 20


def serve_ui(*, port: int | None, open_browser: bool, report: Callable[[str], None]) -> int:
    """Serve MLflow's pages until Ctrl-C or SIGTERM, and return 0. A tracking server of your own is only opened.

    `port` is on 127.0.0.1; None takes a free one. Raises BenchError where the port is taken, the server does not come
    up, or it ends by itself.
    """
    uri = tracking_uri()
    if uri == OFF:
        raise BenchError("tracking is switched off", hint="unset BENCH_TRACKING")
    if uri.startswith(("http://", "https://")):
        _show(without_password(uri), uri, open_browser=open_browser, report=report)
        return 0
    port = _take_port(port)
    prepare(uri)
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+b") as log, _until_stopped():
        server = _start(uri, port, log)
        try:
            report("starting MLflow, which takes some seconds")
            _await_answer(server, port, log)
            _show(f"http://{_HOST}:{port}", uri, open_browser=open_browser, report=report)
            server.wait()
            raise BenchError(f"MLflow's server has ended by itself:\n{_tail(log)}")
        except KeyboardInterrupt:
            return 0
        finally:
            _stop(server)


def _take_port(port: int | None) -> int:
    """The port asked for, or a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port whose last server has just ended is free
        try:
            probe.bind((_HOST, port or 0))
        except (OSError, OverflowError) as cause:
            raise BenchError(
                f"port {port} cannot be used: {cause}", hint="leave --port out to get a free one"
            ) from cause
        return int(probe.getsockname()[1])


def _start(uri: str, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """The server in a process group of its own, so that its workers end with it and Ctrl-C reaches only us."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", _HOST]
    return subprocess.Popen(  # noqa: S603  # our own interpreter
        [*command, "--port", str(port), "--workers", "1"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=os.environ | _ENVIRONMENT,
    )


def _await_answer(server: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise BenchError(f"MLflow's server did not start:\n{_tail(log)}")
        try:
            with urllib.request.urlopen(f"http://{_HOST}:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise BenchError(f"MLflow's server gives no answer after {_START_TIMEOUT_S:g} s:\n{_tail(log)}")


def _show(address: str, uri: str, *, open_browser: bool, report: Callable[[str], None]) -> None:
    """Say where MLflow is, and where the runs of the latest experiment are compared; open the latter."""
    report(f"MLflow is at {address}")
    page = ""
    for run in reversed(list(list_runs())[-_LATEST:]):
        if page := page_of(run, without_password(uri)):
            report(f"the runs of {run.folder.parent.name}: {address.rstrip('/')}{page}")
            break
    if open_browser and _has_display():
        webbrowser.open(address.rstrip("/") + page if page else address)


def _has_display() -> bool:
    """Whether a browser can open a window, rather than take over the terminal."""
    return sys.platform in {"win32", "darwin"} or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, by force if they do not listen."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        try:
            if hasattr(os, "killpg"):
                os.killpg(server.pid, number)
            else:
                server.send_signal(number)
            server.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            pass
        return


@contextmanager
def _until_stopped() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tail(log: IO[bytes]) -> str:
    log.flush()
    log.seek(0)
    return "\n".join(log.read().decode(errors="replace").splitlines()[-_LOG_LINES:])
