"""Where studies are kept: an sqlite file beside the runs, or a PostgreSQL or MySQL server for any number of machines."""

from __future__ import annotations

import sqlite3
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.record import runs_folder
from bench.search.locking import locked
from bench.search.storage_errors import (
    displayed,
    missing_driver,
    not_a_url,
    translated,
    unusable_file,
)

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL

__all__ = ["GRACE_S", "HEARTBEAT_S", "default_url", "missing_file", "open_storage", "sqlite_path"]

#: A running trial's process says so this often, and counts as gone after this long without a word.
HEARTBEAT_S, GRACE_S = 10, 60

#: How long another process may hold an sqlite file, and how long a server may take to answer.
_LOCKED_S, _CONNECT_S = 60.0, 10

#: What stands in for the drivers that SQLAlchemy would take, where those are not the ones that we install.
_DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}

#: Write-ahead logging needs memory that processes share; these file systems have none.
_NETWORK = ("9p", "afs", "ceph", "cifs", "fuse.sshfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs")


def default_url() -> str:
    """The embedded storage, search.db in the runs' folder."""
    return f"sqlite:///{(runs_folder() / 'search.db').resolve()}"


def open_storage(url: str | None = None, *, locked_s: float = _LOCKED_S) -> RDBStorage:
    """Open a storage, made on first use; any number of processes may do so at once.

    `url` is SQLAlchemy's (sqlite:///FILE, postgresql://..., mysql://...), `locked_s` how long to wait for a file that
    another program holds. Raises BenchError where it cannot be used, never with its password.
    """
    place = _address(url or default_url())
    with translated(place):
        path = sqlite_path(place)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        engine, options = _engine(place, locked_s)
        try:
            with locked(engine, timeout_s=max(locked_s, 1.0)):
                if path is not None:
                    _prepare_file(path, place, locked_s)
                _refuse_foreign(engine, place)
                return _optuna_storage(place, options)
        finally:
            engine.dispose()


def missing_file(url: str | None = None) -> Path | None:
    """The file of an sqlite storage that is not there, for who only wants to read it. Raises BenchError as above."""
    place = _address(url or default_url())
    path = None if place.query.get("uri") else sqlite_path(place)
    return path if path is not None and not path.is_file() else None


def sqlite_path(place: URL) -> Path | None:
    """The file of an sqlite storage, None for a server."""
    return Path(str(place.database)) if place.get_backend_name() == "sqlite" else None


def _address(url: str) -> URL:
    """The parsed url, with a driver that is installed and an absolute path. Raises BenchError."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        place = make_url(url.replace("postgres://", "postgresql://", 1) if url.startswith("postgres://") else url)
    except (ArgumentError, ValueError):
        raise not_a_url(url) from None  # SQLAlchemy's message may repeat the password
    backend = place.get_backend_name()
    if backend not in {"sqlite", *_DRIVERS}:
        raise not_a_url(url)
    if place.drivername == backend and backend in _DRIVERS:
        place = place.set(drivername=f"{backend}+{_DRIVERS[backend]}")
    if backend != "sqlite" or place.query.get("uri"):
        return place
    if place.database in {None, "", ":memory:"}:
        raise BenchError(
            f"{displayed(place)}: a storage in memory is lost at the end, and workers cannot share it",
            hint="name a file: --storage sqlite:///search.db",
        )
    return place.set(database=str(Path(str(place.database)).expanduser().resolve()))


def _engine(place: URL, locked_s: float) -> tuple[Engine, dict[str, Any]]:
    """A short-lived engine for what comes before Optuna's own, and the options of both."""
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import NoSuchModuleError

    connect: dict[str, Any] = {"connect_timeout": _CONNECT_S}
    options: dict[str, Any] = {"connect_args": connect}
    if place.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": locked_s}
    else:
        options["pool_pre_ping"] = True
    if place.get_backend_name() == "postgresql":  # a server that vanishes without a word is noticed in a minute
        connect |= {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    try:
        return create_engine(place, poolclass=NullPool, **options), options
    except (ImportError, NoSuchModuleError) as cause:
        raise missing_driver(place, cause) from cause


def _prepare_file(path: Path, place: URL, locked_s: float) -> None:
    """Write-ahead logging, kept in the file: commits are cheaper, and readers do not wait for writers."""
    if place.query.get("uri") or _file_system(path.parent) in _NETWORK:
        return
    connection = sqlite3.connect(path, timeout=locked_s)
    try:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def _file_system(folder: Path) -> str:
    import psutil

    parts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(parts, key=lambda part: len(part.mountpoint)).fstype if parts else ""


def _refuse_foreign(engine: Engine, place: URL) -> None:
    """Optuna would mix its tables, and its notes on their version, with those of MLflow and others."""
    from sqlalchemy import inspect

    tables = set(inspect(engine).get_table_names())
    if "alembic_version" in tables and "studies" not in tables:
        raise unusable_file(place)


def _optuna_storage(place: URL, options: dict[str, Any]) -> RDBStorage:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what matters of it reaches people as errors of ours
    url = place.render_as_string(hide_password=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),  # Optuna formats it
            engine_kwargs=options,
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
        )
