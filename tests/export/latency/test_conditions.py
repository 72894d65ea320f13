"""The conditions of a measurement, read from this machine and from made-up files."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench_export.latency import conditions, counters, hardware
from bench_export.latency.counters import Counters

_BUSY = "import time\nwhile time.process_time() < {seconds}: pass"


def _counters(total: float, busy: float, own: float, steal: float = 0.0) -> Counters:
    return Counters(total, busy, steal, own, 0, 0, 0.0)


def test_the_machine_is_described_in_plain_values() -> None:
    machine = conditions.machine()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["cpu"]
    assert machine["cores_usable"] == len(machine["cores"]) >= 1
    assert machine["memory_gb"] > 0
    assert machine["versions"]["python"]
    assert "numpy" in machine["versions"]


def test_the_load_now_is_described_in_plain_values() -> None:
    now = conditions.now()
    assert json.loads(json.dumps(now)) == now
    assert 0 <= now["busy_percent"] <= 100
    assert len(now["busiest"]) <= 3


def test_the_watch_counts_descendants_as_the_measurement() -> None:
    with conditions.Watch() as watch:
        subprocess.run([sys.executable, "-c", _BUSY.format(seconds=0.7)], check=True)
    summary = watch.summary()
    assert json.loads(json.dumps(summary)) == summary
    spent = summary["own_percent"] / 100 * summary["seconds"] * (os.cpu_count() or 1)
    assert spent > 0.6  # the kernel counts in hundredths


def test_the_watch_takes_next_to_no_time() -> None:
    for _ in range(3):  # the first time loads what it needs
        start = time.perf_counter()
        counters.read()
        counters.clocks_mhz()
        looked_s = time.perf_counter() - start
    assert looked_s < 0.02


def test_shares_add_up_and_others_are_what_is_left() -> None:
    shares = counters.shares(_counters(100, 50, 10), _counters(200, 130, 60, steal=5))
    assert shares == {"busy_percent": 80.0, "own_percent": 50.0, "others_percent": 30.0, "steal_percent": 5.0}


def test_no_time_between_two_looks_gives_no_shares() -> None:
    same = _counters(100, 50, 10)
    assert set(counters.shares(same, same).values()) == {None}


_QUIET = {
    "others_percent": 0.4,
    "others_percent_worst_second": 2.0,
    "steal_percent": 0.0,
    "throttled_periods": 0,
    "clock_mhz": {"min": 2600.0, "tenth": 2600.0, "median": 2600.0, "max": 2600.0},
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, None),
        ({"others_percent": 14.2}, "other processes took 14 % of the CPU"),
        ({"others_percent_worst_second": 61.0}, "other processes took 61 % of the CPU for a second"),
        ({"steal_percent": 2.5}, "the hypervisor took away 2.5 % of the CPU (steal)"),
        ({"throttled_periods": 12}, "the control group's CPU quota stopped the processes 12 times"),
        (
            {"clock_mhz": {"min": 1200.0, "tenth": 1800.0, "median": 2600.0, "max": 2610.0}},
            "the clock fell from 2,600 to 1,800 MHz for a tenth of the time",
        ),
        ({"clock_mhz": {"min": 800.0, "tenth": 3300.0, "median": 3400.0, "max": 3900.0}}, None),
        (dict.fromkeys(_QUIET), None),
    ],
)
def test_a_disturbance_is_said_in_a_sentence(change: dict[str, object], sentence: str | None) -> None:
    assert conditions._disturbances({**_QUIET, **change}) == ([sentence] if sentence else [])


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_both_versions_of_control_groups_is_read(
    files: dict[str, str], expected: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(
        hardware, "cgroup_file", lambda *names: [tmp_path / n for n in names if (tmp_path / n).exists()][:1]
    )
    assert hardware._cpu_quota() == expected


def test_energy_is_read_over_a_counter_that_wraps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("1000000\n")
    monkeypatch.setattr(counters, "_RAPL", tmp_path)
    readings = []
    for microjoules in (900_000, 990_000, 20_000, 120_000):
        (package / "energy_uj").write_text(f"{microjoules}\n")
        found = conditions.energy()
        assert found is not None
        readings.append(found)
    steps = [later - earlier for earlier, later in itertools.pairwise(readings)]
    assert all(math.isclose(step, want) for step, want in zip(steps, (0.09, 0.03, 0.1), strict=True))
    assert conditions.energy_source() == ("rapl", "1 processor packages, by RAPL")


def test_energy_that_cannot_be_read_is_none_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "_RAPL", tmp_path / "absent")
    monkeypatch.setattr(counters, "gpu_joules", lambda: None)
    assert conditions.energy() is None
    assert conditions.energy_source()[0] is None
    assert "no energy counter" in conditions.energy_source()[1]


def test_a_system_that_hides_everything_gives_none_and_raises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tmp_path / "absent"
    monkeypatch.setattr(hardware, "_CPU", absent)
    monkeypatch.setattr(hardware, "_CGROUP", absent)
    monkeypatch.setattr(counters, "_CPU", absent)
    monkeypatch.setattr(hardware, "read_text", lambda _path: None)
    monkeypatch.setattr(counters, "read_text", lambda _path: None)
    monkeypatch.setenv("PATH", str(absent))
    machine = conditions.machine()
    assert {machine[name] for name in ("governor", "turbo", "clock_max_mhz", "threads_per_core", "cpu_quota")} == {None}
    assert machine["gpu"] is None
    with conditions.Watch() as watch:
        pass
    summary = watch.summary()
    assert summary["clock_mhz"] is None
    assert summary["context_switches"] is None


def test_what_nvidia_smi_says_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100, 570.1, 81559, 70.5, 700.00, 1980, 1980, 2619, 31, 0, [N/A]'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = hardware.gpu()
    assert found is not None
    assert found["name"] == "NVIDIA H100"
    assert found["power_limit_w"] == 700.0
    assert found["persistence"] is None
    program.write_text("#!/bin/sh\nexit 9\n")
    assert hardware.gpu() is None


def test_nothing_heavy_is_imported() -> None:
    code = "import sys; from bench_export.latency import conditions, table, page, tune, tracking; "
    code += (
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'mlflow', 'matplotlib', 'pydantic') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
