"""Stores that are down, locked, old, or none."""

from __future__ import annotations

import http.server
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench.doctor import stores
from bench.doctor.finding import Finding


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("BENCH_TRACKING", raising=False)


def _tracking(uri: str, monkeypatch: pytest.MonkeyPatch) -> Finding:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (found,) = stores.check_tracking(timeout_s=2)
    return found


def _store(path: Path, revision: str) -> str:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        connection.commit()
    return f"sqlite:///{path}"


def test_a_store_that_is_not_there_yet_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", monkeypatch)
    assert found.state == "ok"
    assert not (tmp_path / "mlflow.db").exists()


def test_the_schema_is_that_of_the_installed_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latest = stores.latest_schema()
    assert latest is not None
    assert _tracking(_store(tmp_path / "now.db", latest[0]), monkeypatch).state == "ok"
    older = next(one for one in latest[1] if one != latest[0])
    found = _tracking(_store(tmp_path / "old.db", older), monkeypatch)
    assert (found.state, found.remedy) == ("problem", f"mlflow db upgrade sqlite:///{tmp_path / 'old.db'}")
    found = _tracking(_store(tmp_path / "new.db", "fffffffffff1"), monkeypatch)
    assert (found.state, found.remedy) == ("problem", "pip install --upgrade mlflow")


@pytest.mark.slow
def test_a_real_store_of_mlflow_is_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import tracking

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking.connect(uri).search_experiments()
    assert _tracking(uri, monkeypatch).state == "ok"


def test_a_file_that_another_program_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = _store(tmp_path / "mlflow.db", "x")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        start = time.perf_counter()
        found = _tracking(uri, monkeypatch)
        assert time.perf_counter() - start < 10
    assert found.state == "warning"
    assert "held by another program" in found.text


def test_files_that_are_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.db").write_text("hello " * 1000)
    found = _tracking(f"sqlite:///{tmp_path / 'text.db'}", monkeypatch)
    assert (found.state, "bench sync" in found.remedy) == ("problem", True)
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE other (x)")
    assert "no store of MLflow" in _tracking(f"sqlite:///{tmp_path / 'other.db'}", monkeypatch).text
    (tmp_path / "folder.db").mkdir()
    assert _tracking(f"sqlite:///{tmp_path / 'folder.db'}", monkeypatch).state == "problem"


def test_plain_folders_and_no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "sqlite" in _tracking("./mlruns", monkeypatch).remedy
    assert _tracking("file:///tmp/mlruns", monkeypatch).state == "problem"
    monkeypatch.setenv("BENCH_TRACKING", "off")
    (found,) = stores.check_tracking()
    assert found.state == "warning"


def test_a_server_that_is_down_or_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for uri in (f"http://me:secret@127.0.0.1:{port}", f"postgresql://me:secret@127.0.0.1:{port}/db"):
            found = _tracking(uri, monkeypatch)
            assert found.state == "problem"
            assert "Connection refused" in found.text
            assert "secret" not in found.text
    with socket.socket() as silent:  # accepts and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.perf_counter()
        found = _tracking(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        assert time.perf_counter() - start < 10
        assert "timed out" in found.text


class _Answers(http.server.BaseHTTPRequestHandler):
    code = 200

    def do_GET(self) -> None:
        self.send_response(self.code)
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("code", "state", "words"), [(200, "ok", "answers"), (401, "warning", "password"), (503, "problem", "503")]
)
def test_what_a_server_answers(
    code: int, state: str, words: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Answers, "code", code)
    found = _tracking(address, monkeypatch)
    assert found.state == state
    assert words in found.text


def test_the_studies_file(tmp_path: Path) -> None:
    assert stores.check_search() == []
    (tmp_path / "runs").mkdir()
    with closing(sqlite3.connect(tmp_path / "runs" / "search.db")) as connection:
        connection.execute("CREATE TABLE studies (x)")
    (found,) = stores.check_search()
    assert (found.name, found.state) == ("search", "ok")
    (tmp_path / "runs" / "search.db").write_text("torn " * 1000)
    (found,) = stores.check_search()
    assert found.state == "problem"
