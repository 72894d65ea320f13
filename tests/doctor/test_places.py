"""Folders that cannot be written, are full, or are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import record
from bench.doctor.places import check_data, check_disk, check_runs


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)


def test_runs_are_counted_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (found,) = check_runs()
    assert (found.state, found.text) == ("ok", f"{tmp_path / 'runs'} is made by the first run")
    record.create("pets", group="g", seed=0, recipe_text="", plan={})
    (found,) = check_runs()
    assert found.text == f"1 run in {tmp_path / 'runs'}"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["pets"]


def test_damaged_runs_are_named(tmp_path: Path) -> None:
    folder = record.create("pets", group="g", seed=0, recipe_text="", plan={}).folder
    record.create("pets", group="h", seed=0, recipe_text="", plan={})
    (folder / "run.json").write_text("{", encoding="utf-8")
    whole, damaged = check_runs()
    assert whole.text == f"1 run in {tmp_path / 'runs'}"
    assert (damaged.state, damaged.text) == ("warning", "left out, damaged run.json: pets/g-s0")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    (found,) = check_runs()
    assert (found.state, found.text) == ("problem", f"{tmp_path / 'runs'} is a file")


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_RUNS", "/proc/self/fd")  # refuses new files, to root as well
    (found,) = check_runs()
    assert found.state == "problem"
    assert "cannot be written" in found.text
    assert "BENCH_RUNS" in found.remedy


def test_little_disk_space() -> None:
    assert {one.state for one in check_disk(warn_gb=0, least_gb=0)} == {"ok"}
    assert {one.state for one in check_disk(warn_gb=1e9, least_gb=0)} == {"warning"}
    (found, *_) = check_disk(warn_gb=1e9, least_gb=1e9)
    assert found.state == "problem"
    assert "BENCH_CACHE" in found.remedy


def test_each_disk_is_named_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache" / "deep"))
    found = check_disk()
    assert sum("cache" in one.text for one in found) == 1
    assert len({one.text for one in found}) == len(found)


def test_datasets_below_bench_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gtsrb", "other"):
        (tmp_path / "data" / name).mkdir(parents=True)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    (found,) = check_data()
    assert (found.state, found.text.partition(";")[0]) == ("ok", "gtsrb and 1 other folder found")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "nowhere"))
    (found,) = check_data()
    assert found.state == "problem"
    monkeypatch.delenv("BENCH_DATA")
    (found,) = check_data()
    assert "BENCH_DATA is not set" in found.text
