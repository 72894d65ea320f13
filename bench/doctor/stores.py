"""MLflow's store and the studies' file: reachable, current, not held by somebody else. Nothing is made or changed."""

from __future__ import annotations

import base64
import os
import re
import socket
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from bench.doctor.finding import Finding, ok, problem, warning
from bench.record import runs_folder

__all__ = ["check_search", "check_tracking", "latest_schema"]

_TIMEOUT_S = 5.0

#: How long another program may hold a file before it counts as locked.
_LOCKED_S = 1.0

_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}


def check_tracking(*, timeout_s: float = _TIMEOUT_S) -> list[Finding]:
    """The store that MLFLOW_TRACKING_URI names. MLflow itself is not imported."""
    from bench.tracking import OFF, tracking_uri
    from bench.tracking.store import sqlite_file, without_password

    uri = tracking_uri()
    shown = without_password(uri)
    if uri == OFF:
        return [warning("tracking", "MLflow is switched off", "unset BENCH_TRACKING to record runs in MLflow as well")]
    if path := sqlite_file(uri):
        return [_sqlite("tracking", path, shown)]
    address = urllib.parse.urlsplit(uri)
    if address.scheme in {"http", "https"}:
        return [_server(uri, shown, timeout_s)]
    if address.scheme.partition("+")[0] in _PORTS:
        return [_database(address, shown, timeout_s)]
    if address.scheme in {"", "file"}:
        remedy = "MLFLOW_TRACKING_URI=sqlite:///mlflow.db, or unset it; then bench sync brings the runs there"
        return [problem("tracking", f"{shown}: MLflow no longer keeps runs in plain folders", remedy)]
    return [ok("tracking", f"{shown} (not looked into)")]


def check_search() -> list[Finding]:
    """search.db in the runs' folder, where studies are kept unless --storage says otherwise."""
    path = (runs_folder() / "search.db").absolute()
    return [_sqlite("search", path, f"sqlite:///{path}", schema="")] if path.exists() else []


def _sqlite(name: str, path: Path, shown: str, *, schema: str = "alembic_version") -> Finding:
    if not path.exists():
        place = next(folder for folder in path.parents if folder.is_dir())
        return ok(name, f"{shown} is made by the first run (in {place})")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_LOCKED_S)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            rows = connection.execute(f"SELECT version_num FROM {schema}").fetchall() if schema else []  # noqa: S608
            connection.execute("PRAGMA schema_version").fetchone()
            connection.rollback()
    except sqlite3.Error as cause:
        return _refused(name, shown, str(cause))
    return _schema(shown, [str(row[0]) for row in rows]) if schema else ok(name, shown)


def _refused(name: str, shown: str, cause: str) -> Finding:
    if "locked" in cause:
        return warning(name, f"{shown} is held by another program", "wait, or end the program that has it open")
    if "no such table" in cause:
        return problem(name, f"{shown} is no store of MLflow", "name another file with MLFLOW_TRACKING_URI")
    if "readonly" in cause or "unable to open" in cause:
        return problem(name, f"{shown} cannot be written", "change the permissions of the file and its folder")
    remedy = (
        "move it away: bench sync fills a new one from the runs"
        if name == "tracking"
        else "restore it, or move it away"
    )
    return problem(name, f"{shown}: {cause}", remedy)


def _schema(shown: str, found: list[str]) -> Finding:
    """Whether the tables are those of the installed MLflow."""
    known = latest_schema()
    if known is None or not found or found[0] == known[0]:
        return ok("tracking", shown)
    if found[0] in known[1]:
        return problem("tracking", f"{shown} was made by an older MLflow", f"mlflow db upgrade {shown}")
    return problem("tracking", f"{shown} was made by a newer MLflow", "pip install --upgrade mlflow")


def latest_schema() -> tuple[str, frozenset[str]] | None:
    """The installed MLflow's newest schema and all that it knows, read from its migrations without importing it."""
    from importlib.util import find_spec

    spec = find_spec("mlflow")
    if spec is None or spec.origin is None:
        return None
    revisions, earlier = set(), set()
    for file in (Path(spec.origin).parent / "store" / "db_migrations" / "versions").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        revisions |= set(re.findall(r'^revision\s*=\s*["\'](\w+)["\']', text, re.MULTILINE))
        earlier |= set(re.findall(r'^down_revision\s*=\s*["\'](\w+)["\']', text, re.MULTILINE))
    newest = revisions - earlier
    return (newest.pop(), frozenset(revisions)) if len(newest) == 1 else None


def _server(uri: str, shown: str, timeout_s: float) -> Finding:
    remedy = "start the server, or unset MLFLOW_TRACKING_URI; runs are recorded all the same, bench sync fills them in"
    try:
        with urllib.request.urlopen(_request(uri), timeout=timeout_s) as answer:  # noqa: S310  # http or https
            answer.read(64)
    except urllib.error.HTTPError as cause:
        if cause.code in {401, 403}:
            user = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            return warning("tracking", f"{shown} wants a user and a password", user)
        return problem("tracking", f"{shown} answers with {cause.code} {cause.reason}", remedy)
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "reason", None) or cause
        return problem("tracking", f"{shown} gives no answer: {_short(reason)}", remedy)
    return ok("tracking", f"{shown} answers")


def _request(uri: str) -> urllib.request.Request:
    """For MLflow's /health, with the user and password of the address or of MLflow's variables."""
    address = urllib.parse.urlsplit(uri)
    place = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path.rstrip('/')}"
    request = urllib.request.Request(f"{place}/health")  # noqa: S310  # http or https
    user = urllib.parse.unquote(address.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = urllib.parse.unquote(address.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    return request


def _database(address: urllib.parse.SplitResult, shown: str, timeout_s: float) -> Finding:
    backend = address.scheme.partition("+")[0]
    try:
        with socket.create_connection((address.hostname or "localhost", address.port or _PORTS[backend]), timeout_s):
            return ok("tracking", f"{shown} answers")
    except (OSError, ValueError) as cause:
        remedy = "start the database, or unset MLFLOW_TRACKING_URI"
        return problem("tracking", f"{shown} gives no answer: {_short(cause)}", remedy)


def _short(cause: object) -> str:
    words: Iterable[str | None] = (getattr(cause, "strerror", None), str(cause), type(cause).__name__)
    return next(word for word in words if word)
