"""bench serve: open the model, take a port, answer until Ctrl-C."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.errors import BenchError, RecipeError
from bench_export.card import Card
from bench_export.predictor import Predictor, load
from bench_export.serving.batching import Batcher, best_batch_size
from bench_export.serving.limits import Limits
from bench_export.serving.metrics import Metrics

if TYPE_CHECKING:
    from types import FrameType

    import uvicorn

__all__ = ["DEFAULT_PORT", "Settings", "open_batcher", "serve", "take_port"]

DEFAULT_PORT = 8000

_MAX_CONNECTIONS = 1000
_STOP_TIMEOUT_S = 10
_BACKLOG = 512
#: A run a core beats one run on all of them: nobody waits for a slower thread, and none spins where others decode.
_DEFAULT_TUNING = {"intra_op_threads": 1, "spinning": False}


@dataclass(frozen=True, slots=True)
class Settings:
    """How to serve; None is what the file's tuning says, or what a small measurement finds."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    max_batch: int | None = None
    max_delay_ms: float = 0.0
    limits: Limits = field(default_factory=Limits)
    names: tuple[str, ...] = ()


def serve(
    path: Path,
    *,
    host: str,
    port: int | None,
    settings: Settings,
    report: Callable[[str], None],
    warn: Callable[[str], None],
) -> int:
    """Serve a model until Ctrl-C or SIGTERM; requests under way are finished. Returns 0.

    `port` None is 8000, or a free one where that is taken. Raises BenchError for a model that cannot be opened and a
    host or port that cannot be had.
    """
    with take_port(host, port) as listening, _stoppable():
        try:
            batcher = open_batcher(path, settings)
            server = _server(batcher, settings, names=(host, *settings.names))
            if not _is_local(host):
                warn(f"whoever reaches {host} over the network can use this server: it asks for no password")
            if port is None and listening.getsockname()[1] != DEFAULT_PORT:
                report(f"port {DEFAULT_PORT} is in use, so it is another one")
            address, size = _address(host, listening), batcher.max_batch
            report(f"{path.name} is at {address} (up to {size} in a batch); Ctrl-C ends it")
            server.run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn raises it again when all is done
            pass
    return 0


def open_batcher(path: Path, settings: Settings) -> Batcher:
    """Open the model, and choose what is left open: the batch size and the threads."""
    predictor = _open(path, settings)
    predictor = replace(predictor, card=_with_limit(predictor, settings.limits))
    max_batch = settings.max_batch or best_batch_size(predictor)
    on_cpu = predictor.session.providers_used[0] == "CPUExecutionProvider"
    return Batcher(
        predictor,
        Metrics(),
        max_batch=max_batch,
        max_delay_ms=settings.max_delay_ms,
        num_workers=_cores(),
        max_runs=max(1, _cores() // (predictor.session.threads or _cores())) if on_cpu else 1,
    )


def take_port(host: str, port: int | None) -> socket.socket:
    """A socket bound to the port asked for; without one to 8000, or to a free one where that is in use."""
    if port is not None and not 0 <= port < 2**16:
        raise RecipeError(f"port {port} is none: they go from 1 to 65535", hint="leave --port out to get a free one")
    try:
        return _bind(host, DEFAULT_PORT if port is None else port)
    except OSError as cause:
        if port is not None:
            raise _cannot_bind(host, port, cause) from cause
    try:
        return _bind(host, 0)
    except OSError as cause:
        raise _cannot_bind(host, 0, cause) from cause


def _bind(host: str, port: int) -> socket.socket:
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as cause:  # a label that no name can have
        raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from cause
    family, kind, protocol, _name, address = places[0]
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)  # only this tells that another server listens there already
    except OSError:
        listening.close()
        raise
    return listening


def _cannot_bind(host: str, port: int, cause: OSError) -> BenchError:
    if isinstance(cause, socket.gaierror):
        return BenchError(
            f"host {host!r} is not known: {cause.strerror}", hint="--host takes an address of this machine"
        )
    return BenchError(
        f"port {port} on {host} cannot be used: {cause.strerror or cause}",
        hint="leave --port out to get a free one; --host takes an address of this machine",
    )


def _open(path: Path, settings: Settings) -> Predictor:
    predictor = load(path, device=settings.device, threads=settings.threads)
    if predictor.session.tuning or predictor.session.providers_used[0] != "CPUExecutionProvider":
        return predictor
    return load(path, device=settings.device, threads=settings.threads, tuning=_DEFAULT_TUNING)


def _with_limit(predictor: Predictor, limits: Limits) -> Card:
    how = predictor.card.preprocessing
    lower = min(how.max_megapixels, limits.max_megapixels)
    return replace(predictor.card, preprocessing=replace(how, max_megapixels=lower))


def _server(batcher: Batcher, settings: Settings, *, names: Iterable[str]) -> uvicorn.Server:
    import uvicorn

    from bench_export.serving.app import build
    from bench_export.serving.protocol import Protocol

    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        build(batcher.predictor, batcher, limits=settings.limits, names=names),
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_STOP_TIMEOUT_S,
    )
    return uvicorn.Server(config)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _address(host: str, listening: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
