"""The processor, its limits, memory and the clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.doctor import machine


def test_the_machine_is_described() -> None:
    found = {one.name: one for one in machine.check_machine({})}
    assert "usable threads" in found["processor"].text
    assert "GiB free" in found["memory"].text
    assert "threads" not in found


def test_more_threads_than_there_are() -> None:
    found = {one.name: one for one in machine.check_machine({"OMP_NUM_THREADS": "4096"})}
    assert (found["threads"].state, found["threads"].remedy[:21]) == ("warning", "unset OMP_NUM_THREADS")


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000", None), ("150000 100000", 1.5), ("nonsense", None), ("1 0", None)]
)
def test_the_quota_of_a_container(text: str, quota: float | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert machine.cpu_quota(tmp_path / "cpu.max") == quota
    assert machine.cpu_quota(tmp_path / "none") is None


def test_a_quota_below_the_cores_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_quota", lambda: 0.5)
    found = {one.name: one for one in machine.check_machine({})}
    assert "0.5 of" in found["threads"].text
    assert "compute.threads = 1" in found["threads"].remedy


def test_a_clock_that_is_right(tmp_path: Path) -> None:
    (found,) = machine.check_clock(tmp_path)
    assert (found.name, found.state) == ("clock", "ok")
    (found,) = machine.check_clock(tmp_path / "none")
    assert found.state == "ok"


def test_a_clock_that_stands_before_the_latest_run(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    (found,) = machine.check_clock(tmp_path, now=now, least=now + timedelta(hours=1))
    assert found.state == "warning"
    (found,) = machine.check_clock(tmp_path, now=datetime(1970, 1, 2, tzinfo=UTC))
    assert "1970" in found.text


def test_a_file_system_with_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 60)
    (found,) = machine.check_clock(tmp_path, now=datetime.now(UTC))
    assert found.state == "warning"
    assert "-60 s" in found.text
    assert list(tmp_path.iterdir()) == []
