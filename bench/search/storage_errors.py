"""What databases, their drivers and Optuna raise, as one BenchError that says what to do and hides the password."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.tracking.store import without_password

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import URL

__all__ = [
    "deleted_file",
    "displayed",
    "is_transient",
    "kind_of",
    "missing_driver",
    "not_a_url",
    "translated",
    "unusable_file",
]

_GOES_ON = "the same command goes on afterwards; no finished trial is lost"

#: What an error's text says -> what kind it is, whether waiting helps, and what a person can do. The first one counts.
_KINDS: tuple[tuple[str, str, bool, str], ...] = (
    ("disk is full|no space left|disk full", "the disk is full", False, f"make room; {_GOES_ON}"),
    (
        "database is locked|database table is locked|lock timeout|could not be acquired",
        "another program holds it",
        True,
        f"end the program that has it open (a database browser?); {_GOES_ON}",
    ),
    (
        "readonly database|read-only|permission denied:|unable to open database",
        "it cannot be written",
        False,
        "choose another place: --storage sqlite:///FILE, or BENCH_RUNS for everything",
    ),
    (
        "not a database|malformed|disk i/o error",
        "the file is damaged or no database",
        False,
        "move it away and start afresh, or restore it from a copy",
    ),
    (
        "authentication failed|access denied|no password supplied|role .* does not exist",
        "it refuses this user or password",
        False,
        "check user and password in --storage",
    ),
    (
        "permission denied",
        "this user may not make or change tables there",
        False,
        "grant the user its rights on the database's schema",
    ),
    (
        "database .* does not exist|unknown database",
        "there is no such database",
        False,
        "make it first: createdb NAME (PostgreSQL), CREATE DATABASE NAME (MySQL)",
    ),
    (
        "deadlock|serializ|too many (clients|connections)|remaining connection slots",
        "it is overloaded",
        True,
        f"fewer workers, or more connections on the server; {_GOES_ON}",
    ),
    (
        "connect|terminat|server closed|starting up|shutting down|gone away|broken pipe|timed? ?out|resolve|reconnect",
        "it cannot be reached",
        True,
        f"is the server running, and is that its address? {_GOES_ON}",
    ),
)


def kind_of(error: BaseException) -> str | None:
    """What is wrong with the storage, in a few words; None where the error is none of the storage's."""
    from filelock import Timeout
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    if not isinstance(error, SQLAlchemyError | StorageInternalError | Timeout):
        return None
    return _kind(error)[0]


def is_transient(error: BaseException) -> bool:
    """Whether the same call may well succeed in a moment: a lock, a restart, a lost connection."""
    return kind_of(error) is not None and _kind(error)[1]


@contextmanager
def translated(place: URL | None = None) -> Iterator[None]:
    """Turn what a storage raises into a BenchError that names the storage, the reason and the remedy."""
    import sqlite3

    from filelock import Timeout
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, Timeout, OSError, sqlite3.Error) as cause:
        kind, _, hint = _kind(cause)
        text = _first_words(cause, place)
        raise BenchError(f"{_name(place)}: {kind}: {text}", hint=hint) from cause
    except RuntimeError as cause:
        if "compatible with the table schema" not in str(cause):
            raise
        raise _other_schema(place, str(cause)) from cause


def displayed(place: URL) -> str:
    """A storage's address without user and password."""
    secret = [key for key in place.query if "pass" in key.lower()]
    return without_password(place.difference_update_query(secret).set(password=None).render_as_string())


def not_a_url(given: str) -> BenchError:
    """The error for what no storage can be opened from; of an address, only its scheme is shown."""
    scheme, separator, _ = given.partition("://")
    shown = f"{scheme}://..." if separator else given
    path = "" if separator else f"; a file is written sqlite:///{given}"
    return BenchError(
        f"--storage {shown}: not the address of a database{path}",
        hint="sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME or mysql://USER:PASSWORD@HOST/NAME",
    )


def missing_driver(place: URL, cause: Exception) -> BenchError:
    """The error for a database whose driver is not installed."""
    backend = place.get_backend_name()
    package = "'visionbench[postgres]'" if backend == "postgresql" else "pymysql"
    return BenchError(f"{displayed(place)}: no driver for {backend}: {cause}", hint=f"pip install {package}")


def deleted_file(path: Path) -> BenchError:
    """The error for a file that was there when the search began."""
    return BenchError(
        f"{path}: the search's storage was deleted or moved while it was in use",
        hint="put it back and repeat the command; without it, a new study begins. Recorded runs are still there",
    )


def unusable_file(place: URL) -> BenchError:
    """The error for a database that another program keeps its tables in."""
    return BenchError(
        f"{displayed(place)}: holds the tables of another program (MLflow's?)",
        hint="give the search a database of its own: --storage sqlite:///search.db",
    )


def _other_schema(place: URL | None, text: str) -> BenchError:
    maker = re.search(r"set up by optuna ([^)]*)\)", text)
    by = f"made by Optuna {maker.group(1)}" if maker else "made by another version of Optuna"
    if "storage upgrade" in text:
        return BenchError(
            f"{_name(place)}: its tables are of an older version, {by}",
            hint="make a copy of it, then: optuna storage upgrade --storage URL",
        )
    return BenchError(
        f"{_name(place)}: its tables are of a newer version than this Optuna knows",
        hint="pip install -U optuna, as on the machine that made it, or name another --storage",
    )


def _name(place: URL | None) -> str:
    return "the study's storage" if place is None else displayed(place)


def _kind(error: BaseException) -> tuple[str, bool, str]:
    text = " | ".join(str(one).lower() for one in _chain(error))
    for pattern, kind, transient, hint in _KINDS:
        if re.search(pattern, text):
            return kind, transient, hint
    if isinstance(error, OSError):
        return "it cannot be written", False, _KINDS[2][3]
    return "it does not work", False, "the lines above, or another --storage"


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it came from; Optuna and SQLAlchemy wrap the driver's."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found


def _first_words(error: BaseException, place: URL | None) -> str:
    """The driver's own words, without the statement, its parameters and the password."""
    from sqlalchemy.exc import DBAPIError

    chain = _chain(error)
    driver = [one.orig for one in chain if isinstance(one, DBAPIError) and one.orig is not None]
    source = driver[0] if driver else (error.__cause__ or error)
    text = next((line.strip() for line in str(source).splitlines() if line.strip()), type(source).__name__)
    if place is not None and place.password:
        text = text.replace(str(place.password), "***")
    return without_password(text)[:300]
