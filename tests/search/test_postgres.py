"""A study on a real PostgreSQL server, started here on loopback, restarted in the middle: nothing is lost."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from bench.errors import BenchError
from bench.recipe import load
from bench.search.claim import claim
from bench.search.objectives import objectives
from bench.search.patience import patiently
from bench.search.space import parse_space
from bench.search.storage import open_storage
from bench.search.study import finished, open_study

pytestmark = pytest.mark.slow

PASSWORD = "p@ss/w{o}rd%"  # noqa: S105  # of the server that this file starts
ESCAPED = "p%40ss%2Fw%7Bo%7Drd%25"

RECIPE = """
experiment = "toy"
[dataset]
name = "digits"
[model]
name = "cnn"
[search]
sampler = "tpe"
[search.space]
"optimizer.lr" = {float = [1e-4, 1e-1], log = true}
"""

#: As in test_study.py: claims trials, takes a while over each, and tells them, until so many are finished.
WORKER = """
import sys, time
from pathlib import Path
from bench.recipe import load
from bench.search.claim import Heartbeat, claim, is_mine
from bench.search.locking import exclusive
from bench.search.objectives import objectives
from bench.search.space import parse_space
from bench.search.patience import patiently
from bench.search.storage import open_storage
from bench.search.study import finished, open_study, sweep

recipe = load(Path(sys.argv[2]))
space, total = parse_space(recipe), int(sys.argv[3])
study = open_study(open_storage(sys.argv[1]), recipe, space, objectives(recipe))
warn = lambda text: print("waits:", text, flush=True)

def tell(trial, value):
    with exclusive(study):
        if is_mine(study, trial):
            study.tell(trial, value)

while True:
    trial = patiently(lambda: claim(study, total), warn=warn)
    if trial is None:
        if patiently(lambda: finished(study), warn=warn) >= total:
            break
        time.sleep(0.2)
        patiently(lambda: sweep(study), warn=warn)
        continue
    with Heartbeat(study, trial):
        values = patiently(lambda: space.suggest(trial), warn=warn)
        time.sleep(0.1)
        patiently(lambda: trial.set_user_attr("run", f"run-{trial.number}"), warn=warn)
    patiently(lambda: tell(trial, float(values["optimizer.lr"])), warn=warn)
    print("told", trial.number, flush=True)
"""


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, which Debian keeps off the PATH."""
    found = [Path(name).resolve().parent for name in [shutil.which("initdb")] if name]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


class Server:
    """A server of its own in a folder of its own, run by a user without rights: PostgreSQL refuses root."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self.folder, self.bin = folder, bin_folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.user = "nobody" if os.geteuid() == 0 else None
        if self.user:
            entry = pwd.getpwnam(self.user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        (folder / "password").write_text(PASSWORD, encoding="utf-8")
        (folder / "password").chmod(0o644)
        access = ("--username=bench", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}")
        self.call("initdb", "-D", str(folder / "data"), "--no-sync", *access)

    @property
    def url(self) -> str:
        """The address of its database, with user and password."""
        return f"postgresql://bench:{ESCAPED}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories={self.folder}"
        log = str(self.folder / "log")
        self.call("pg_ctl", "-D", str(self.folder / "data"), "-o", options, "-l", log, "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; every connection is cut."""
        self.call("pg_ctl", "-D", str(self.folder / "data"), "-m", mode, "-w", "stop")

    def call(self, program: str, *arguments: str) -> None:
        """Run one of its programs as the user without rights."""
        who = {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []} if self.user else {}
        output = self.folder / "output"
        with output.open("ab") as file:
            done = subprocess.run(
                [str(self.bin / program), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=120,
                **who,
            )
        assert done.returncode == 0, output.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:  # pytest's own folders are closed to other users
        one = Server(Path(folder), bin_folder)
        one.start()
        yield one
        one.stop("immediate")


@pytest.fixture
def recipe(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(RECIPE.replace('"toy"', f'"{request.node.name}"'), encoding="utf-8")
    return path


def start_worker(server: Server, recipe: Path, *, total: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", WORKER, server.url, str(recipe), str(total)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until_told(worker: subprocess.Popen[str]) -> None:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    assert line.startswith("told"), line + worker.communicate()[0]


@contextmanager
def opened(server: Server, path: Path) -> Iterator[optuna.Study]:
    """The recipe's study; its connections are closed at the end."""
    storage, recipe = open_storage(server.url), load(path)
    try:
        yield open_study(storage, recipe, parse_space(recipe), objectives(recipe))
    finally:
        storage.remove_session()
        storage.engine.dispose()


def assert_whole(server: Server, path: Path, total: int) -> None:
    with opened(server, path) as study:
        _assert_whole(study, total)


def _assert_whole(study: optuna.Study, total: int) -> None:
    states = [trial.state for trial in study.trials]
    assert [state for state in states if state != TrialState.WAITING] == [TrialState.COMPLETE] * total
    assert finished(study) == total
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert [trial.value for trial in done] == [trial.params["optimizer.lr"] for trial in done]
    assert len({trial.user_attrs["run"] for trial in done}) == total


def test_a_server_restarted_under_two_processes_loses_nothing(server: Server, recipe: Path) -> None:
    workers = [start_worker(server, recipe, total=40) for _ in range(2)]
    for worker in workers:
        wait_until_told(worker)
    server.stop("fast")
    time.sleep(3.0)
    server.start()
    time.sleep(2.0)
    server.stop("immediate")  # as after a crash
    server.start()
    outputs = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert any("waits: the study's storage does not answer" in output for output in outputs)
    assert PASSWORD not in "".join(outputs)
    told = [line for output in outputs for line in output.splitlines() if line.startswith("told")]
    assert len(told) == len(set(told))
    assert_whole(server, recipe, 40)


def test_a_killed_process_leaves_its_trial_to_the_other(server: Server, recipe: Path) -> None:
    workers = [start_worker(server, recipe, total=12) for _ in range(2)]
    wait_until_told(workers[0])
    workers[0].kill()
    workers[0].communicate()
    output, _ = workers[1].communicate(timeout=240)
    assert workers[1].returncode == 0, output
    assert_whole(server, recipe, 12)


def test_four_processes_make_one_new_study_at_once(server: Server, recipe: Path) -> None:
    workers = [start_worker(server, recipe, total=12) for _ in range(4)]
    outputs = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, outputs
    assert_whole(server, recipe, 12)


def test_a_refused_password_is_not_shown(server: Server) -> None:
    with pytest.raises(BenchError) as caught:
        open_storage(server.url.replace(ESCAPED, "wr%40ng"))
    assert "refuses this user or password" in str(caught.value)
    assert f"127.0.0.1:{server.port}/postgres" in str(caught.value)
    assert "wr@ng" not in str(caught.value)
    assert "wr%40ng" not in str(caught.value)


def test_a_missing_database_comes_with_the_command_that_makes_it(server: Server) -> None:
    with pytest.raises(BenchError, match="no such database") as caught:
        open_storage(server.url.replace("/postgres", "/elsewhere"))
    assert "createdb" in str(caught.value.hint)


def test_a_stopped_server_is_an_error_once_patience_ends(server: Server, recipe: Path) -> None:
    with opened(server, recipe) as study:
        server.stop()
        try:
            with pytest.raises(BenchError, match="cannot be reached") as caught:
                patiently(lambda: claim(study, 10), seconds=1.0)
            assert "no finished trial is lost" in str(caught.value.hint)
        finally:
            server.start()
        assert patiently(lambda: finished(study)) == 0
