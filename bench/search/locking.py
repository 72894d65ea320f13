"""One process at a time, over all processes and machines that share a storage. A killed one holds nothing."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.search.storage_errors import deleted_file

if TYPE_CHECKING:
    from optuna import Study
    from sqlalchemy import Engine

__all__ = ["exclusive", "locked"]

#: Nothing that is done under the lock takes as long as this; who does has vanished, and the server lets go.
_LONGEST_S = 300

_held = threading.local()


@contextmanager
def exclusive(study: Study) -> Iterator[None]:
    """Alone with a study: nobody else claims, tells or sweeps its trials meanwhile. May be nested.

    Raises Optuna's StorageInternalError where the storage does not answer, filelock's Timeout where the lock stays taken.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    storage: Any = study._storage  # noqa: SLF001  # Optuna shows it nowhere else
    engine = getattr(getattr(storage, "_backend", storage), "engine", None)
    if engine is None:  # in memory: nobody else can see it
        yield
        return
    try:
        with locked(engine, name=study.study_name):
            yield
    except SQLAlchemyError as cause:
        raise StorageInternalError("the storage's lock was lost, or could not be had") from cause


@contextmanager
def locked(engine: Engine, *, name: str = "", timeout_s: float = _LONGEST_S) -> Iterator[None]:
    """Alone with a database, or with what `name` says of it. May be nested."""
    key = f"{engine.url.render_as_string()} {name}"
    taken: set[str] = _held.__dict__.setdefault("keys", set())
    if key in taken:
        yield
        return
    lock = {"sqlite": _file_lock, "postgresql": _postgresql_lock}.get(engine.dialect.name, _mysql_lock)
    with lock(engine, name, timeout_s):
        taken.add(key)
        try:
            yield
        finally:
            taken.discard(key)


@contextmanager
def _file_lock(engine: Engine, name: str, timeout_s: float) -> Iterator[None]:
    """A lock beside the file: sqlite's own would be held by whoever reads, and has no names."""
    from filelock import FileLock

    path = Path(str(engine.url.database).removeprefix("file:"))
    if name and not path.exists():  # an open connection would go on writing to what nobody can find any more
        raise deleted_file(path)
    path = path.with_name(f"{path.name}.claim.lock" if name else f"{path.name}.lock")
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o666))  # FileLock would wait where nothing can ever be written
    with FileLock(path, timeout=timeout_s, poll_interval=0.005):
        yield


@contextmanager
def _postgresql_lock(engine: Engine, name: str, timeout_s: float) -> Iterator[None]:
    """An advisory lock, held by a transaction of its own: it ends with the connection."""
    from sqlalchemy import text

    with engine.connect() as connection, connection.begin():
        connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{_LONGEST_S}s'"))
        connection.execute(text(f"SET LOCAL lock_timeout = '{timeout_s:.0f}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _number(name)})
        yield


@contextmanager
def _mysql_lock(engine: Engine, name: str, timeout_s: float) -> Iterator[None]:
    """A named lock of the connection; names are the whole server's."""
    from sqlalchemy import text
    from sqlalchemy.exc import OperationalError

    key = f"visionbench {_number(f'{engine.url.database} {name}')}"
    with engine.connect() as connection:
        if not connection.execute(text("SELECT GET_LOCK(:key, :wait)"), {"key": key, "wait": timeout_s}).scalar():
            raise OperationalError("GET_LOCK", {}, TimeoutError("lock timeout"))
        try:
            yield
        finally:
            connection.execute(text("SELECT RELEASE_LOCK(:key)"), {"key": key})


def _number(name: str) -> int:
    return zlib.crc32(f"visionbench {name}".encode())
