"""The place of studies: made once by any number of processes, and every fault of it told in a person's words."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from bench.errors import BenchError
from bench.search.locking import exclusive
from bench.search.patience import patiently
from bench.search.storage import default_url, open_storage
from bench.search.storage_errors import is_transient

_OPENED_AT_ONCE = """
import sys
from bench.search.storage import open_storage
import optuna, alembic.command, sqlalchemy.dialects.sqlite
print("ready", flush=True)
for url in sys.stdin:
    storage = open_storage(url.strip())
    study = optuna.create_study(storage=storage, study_name="one", load_if_exists=True)
    study.add_trial(optuna.create_trial(value=1.0))
    print("done", flush=True)
"""


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def write_locked(path: Path) -> Iterator[None]:
    """Another program in the middle of a transaction."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.close()


def open_at_once(folder: Path, *, processes: int, times: int) -> None:
    """Processes that are ready and wait for the shot, then open a storage that is not there yet."""
    running = [start(_OPENED_AT_ONCE) for _ in range(processes)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
    for attempt in range(times):
        url = url_of(folder / str(attempt) / "search.db")
        for process in running:
            assert process.stdin is not None
            process.stdin.write(f"{url}\n")
            process.stdin.flush()
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n", process.communicate()
        study = optuna.load_study(storage=open_storage(url), study_name="one")
        assert [trial.number for trial in study.trials] == list(range(processes))
    for process in running:
        process.communicate(timeout=60)
    assert [process.returncode for process in running] == [0] * processes


def test_eight_processes_make_one_new_storage_at_once(tmp_path: Path) -> None:
    open_at_once(tmp_path, processes=8, times=3)


@pytest.mark.slow
def test_eight_processes_make_one_new_storage_at_once_ten_times(tmp_path: Path) -> None:
    open_at_once(tmp_path, processes=8, times=10)


def test_the_default_lies_beside_the_runs_and_has_a_write_ahead_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "mine"))
    storage = open_storage()
    assert default_url() == storage.url == f"sqlite:///{tmp_path}/mine/search.db"
    with sqlite3.connect(tmp_path / "mine" / "search.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_relative_path_means_the_same_place_to_every_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_storage("sqlite:///here.db").url == f"sqlite:///{tmp_path}/here.db"


def test_running_trials_have_a_heartbeat(tmp_path: Path) -> None:
    storage = open_storage(url_of(tmp_path / "a.db"))
    assert storage.get_heartbeat_interval() == 10
    assert storage.grace_period == 60


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("search.db", "sqlite:///search.db"),
        ("redis://user:secret@host/0", "redis://..."),
        ("postgresql://user:secret@host:none/db", "postgresql://..."),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_what_is_no_usable_address_is_refused(given: str, said: str) -> None:
    with pytest.raises(BenchError) as caught:
        open_storage(given)
    assert said in str(caught.value)
    assert "sqlite:///" in str(caught.value.hint)
    assert "secret" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize("password", ["secret", "sec%40ret%7Bx%7D", "s3cr%2Fet"])
def test_an_unreachable_server_is_named_without_its_password(password: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(BenchError) as caught:
        open_storage(f"postgres://me:{password}@127.0.0.1:{port}/studies?passfile=/secret")
    message = f"{caught.value} {caught.value.hint}"
    assert f"postgresql+psycopg://127.0.0.1:{port}/studies: it cannot be reached" in message
    assert "secret" not in message
    assert password not in message


def test_a_missing_driver_comes_with_what_to_install() -> None:
    with pytest.raises(BenchError) as caught:
        open_storage("mysql+mysqlconnector://me:secret@host/db")
    assert "no driver for mysql" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.hint == "pip install pymysql"


def test_a_locked_file_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.db"
    begin = time.monotonic()
    with write_locked(path), pytest.raises(BenchError) as caught:
        open_storage(url_of(path), locked_s=0.5)
    assert 0.5 <= time.monotonic() - begin < 30
    assert "another program holds it" in str(caught.value)
    assert "database browser" in str(caught.value.hint)
    assert open_storage(url_of(path)).get_all_studies() == []


def test_a_file_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.db"
    open_storage(url_of(path)).engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    connection.close()
    with pytest.raises(BenchError) as caught:
        open_storage(url_of(path))
    assert "newer version" in str(caught.value)
    assert "pip install -U optuna" in str(caught.value.hint)


def test_a_file_of_an_older_schema_comes_with_the_command_that_upgrades_it(tmp_path: Path) -> None:
    path = tmp_path / "search.db"
    open_storage(url_of(path)).engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
    connection.close()
    with pytest.raises(BenchError) as caught:
        open_storage(url_of(path))
    assert "older version" in str(caught.value)
    assert "optuna storage upgrade" in str(caught.value.hint)


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("CREATE TABLE experiments (name TEXT)")
    connection.close()
    with pytest.raises(BenchError, match="tables of another program"):
        open_storage(url_of(path))
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    assert tables == [("alembic_version",), ("experiments",)]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.db"
    path.write_text("not a database, but long enough to look at its header " * 40, encoding="utf-8")
    with pytest.raises(BenchError, match="damaged or no database"):
        open_storage(url_of(path))
    assert path.read_text(encoding="utf-8").startswith("not a database")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder that nobody may write in, not even root")
def test_a_folder_that_cannot_be_written_comes_with_another_place() -> None:
    with pytest.raises(BenchError) as caught:
        open_storage("sqlite:////proc/search.db")
    assert "cannot be written" in str(caught.value)
    assert "BENCH_RUNS" in str(caught.value.hint)


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("", encoding="utf-8")
    with pytest.raises(BenchError, match="cannot be written"):
        open_storage(url_of(tmp_path / "runs" / "search.db"))


def test_a_read_only_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "search.db"
    open_storage(url_of(path)).engine.dispose()
    storage = open_storage(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(BenchError, match="cannot be written") as caught:
        patiently(lambda: optuna.create_study(storage=storage))
    assert "BENCH_RUNS" in str(caught.value.hint)


def test_a_full_disk_ends_the_search_at_once_and_loses_nothing(tmp_path: Path) -> None:
    storage = open_storage(url_of(tmp_path / "search.db"))
    study = optuna.create_study(storage=storage, study_name="one")
    study.add_trial(optuna.create_trial(value=1.0))

    @sqlalchemy.event.listens_for(storage.engine, "checkout")
    def fill(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # sqlite says SQLITE_FULL, as it does on a full disk

    begin = time.monotonic()
    with pytest.raises(BenchError, match="the disk is full") as caught:
        patiently(lambda: study.set_user_attr("large", "x" * 1_000_000))
    assert time.monotonic() - begin < 5
    assert "make room" in str(caught.value.hint)
    sqlalchemy.event.remove(storage.engine, "checkout", fill)
    storage.engine.dispose()
    again = optuna.load_study(storage=open_storage(url_of(tmp_path / "search.db")), study_name="one")
    assert [trial.value for trial in again.trials] == [1.0]


def test_a_call_is_repeated_until_a_lock_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "search.db"
    storage = open_storage(url_of(path), locked_s=0.1)
    study = optuna.create_study(storage=storage)
    warned: list[str] = []
    with write_locked(path):
        waiting = threading.Thread(target=lambda: patiently(lambda: study.set_user_attr("a", 1), warn=warned.append))
        waiting.start()
        time.sleep(1.0)
    waiting.join(timeout=30)
    assert study.user_attrs == {"a": 1}
    assert warned[0] == "the study's storage does not answer (another program holds it); trying again"


def test_patience_ends_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "search.db"
    study = optuna.create_study(storage=open_storage(url_of(path), locked_s=0.1))
    with write_locked(path):
        with pytest.raises(BenchError, match="another program holds it") as caught:
            patiently(lambda: study.set_user_attr("a", 1), seconds=0.5)
        with pytest.raises(BenchError):
            patiently(lambda: study.set_user_attr("a", 1), should_stop=lambda: True)
    assert "no finished trial is lost" in str(caught.value.hint)


def test_errors_that_are_none_of_the_storages_pass_at_once() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        patiently(fail)
    assert not is_transient(ZeroDivisionError())


_COUNT = """
import sys, time
from pathlib import Path
from bench.search.storage import open_storage
from bench.search.locking import exclusive
import optuna
study = optuna.load_study(storage=open_storage(sys.argv[1]), study_name="one")
path = Path(sys.argv[2])
for _ in range(int(sys.argv[3])):
    with exclusive(study), exclusive(study):
        number = int(path.read_text())
        time.sleep(0.002)
        path.write_text(str(number + 1))
"""


def test_only_one_process_at_a_time_is_alone_with_a_study(tmp_path: Path) -> None:
    storage, path = open_storage(url_of(tmp_path / "a.db")), tmp_path / "number"
    optuna.create_study(storage=storage, study_name="one")
    path.write_text("0", encoding="utf-8")
    running = [start(_COUNT, storage.url, path, 40) for _ in range(4)]
    for process in running:
        assert process.wait(timeout=60) == 0, process.communicate()
        process.communicate()
    assert path.read_text(encoding="utf-8") == "160"


def test_a_killed_process_leaves_the_lock_to_the_others(tmp_path: Path) -> None:
    storage = open_storage(url_of(tmp_path / "a.db"))
    study = optuna.create_study(storage=storage, study_name="one")
    hold = _COUNT.replace("time.sleep(0.002)", "print(number, flush=True); time.sleep(60)")
    (tmp_path / "number").write_text("7", encoding="utf-8")
    process = start(hold, storage.url, tmp_path / "number", 1)
    assert process.stdout is not None
    assert process.stdout.readline() == "7\n"
    process.kill()
    process.communicate()
    with exclusive(study):
        study.add_trial(optuna.create_trial(state=TrialState.WAITING))
    assert len(study.trials) == 1
