"""Runs' folders: written in whole, listed, and readable after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import record
from bench.errors import BenchError
from bench.files import sha256
from bench.record import Run


def create(experiment: str = "pets", *, group: str = "20261123-150000-ab12", seed: int = 0, **info: Any) -> Run:
    return record.create(experiment, group=group, seed=seed, recipe_text="a = 1\n", plan={"epochs": 3}, **info)


def test_a_new_run_holds_recipe_plan_and_state(tmp_path: Path) -> None:
    run = create(seed=4, digest="abc")
    assert run.folder == tmp_path / "bench-runs" / "pets" / "20261123-150000-ab12-s4"
    assert (run.folder / "recipe.toml").read_text() == "a = 1\n"
    assert json.loads((run.folder / "plan.json").read_text()) == {"epochs": 3}
    info = run.info()
    assert info["schema"] == record.SCHEMA
    assert (info["seed"], info["group"], info["digest"]) == (4, "20261123-150000-ab12", "abc")
    assert (info["status"], info["experiment"], run.name) == ("running", "pets", "20261123-150000-ab12-s4")
    assert info["id"] != create(seed=5).info()["id"]
    with pytest.raises(FileExistsError):
        create(seed=4)


def test_runs_are_below_the_current_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_RUNS")
    monkeypatch.chdir(tmp_path)
    assert create().folder == tmp_path / "runs" / "pets" / "20261123-150000-ab12-s0"


@pytest.mark.parametrize(
    ("name", "folder"), [("a/../b", "a_.._b"), ("..", "_"), ("", "_"), ("größe 64 ñ", "größe 64 ñ"), (".x.", "x")]
)
def test_experiments_of_any_name_stay_in_the_folder(name: str, folder: str, tmp_path: Path) -> None:
    run = create(name)
    assert run.folder.parent == tmp_path / "bench-runs" / folder
    assert [found.folder for found in record.list_runs(name or None)] == [run.folder]
    assert run.info()["experiment"] == name


def test_update_and_finish(tmp_path: Path) -> None:
    run = create()
    run.update(note="ñ")
    (run.folder / "figures").mkdir()
    (run.folder / "figures" / "a b.png").write_bytes(b"png")
    (run.folder / ".half.partial").write_bytes(b"")
    run.finish("finished", metrics={"test_accuracy": 0.9})
    info = run.info()
    assert (info["status"], info["note"], info["metrics"]) == ("finished", "ñ", {"test_accuracy": 0.9})
    assert info["created"] <= info["ended"]
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert manifest == {name: sha256(run.folder / name) for name in ("figures/a b.png", "plan.json", "recipe.toml")}
    assert not list(tmp_path.rglob("*.partial.partial"))


@pytest.mark.parametrize("content", [None, "", "{", b"\xff\xfe"])
def test_a_damaged_run_says_so(content: Any) -> None:
    run = create()
    path = run.folder / "run.json"
    path.unlink() if content is None else path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BenchError, match=r"s0: no readable run.json"):
        run.info()


def test_a_run_whose_process_is_gone_counts_as_interrupted() -> None:
    run = create()
    assert run.status() == "running"
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    own = run.info()["process"]
    for process, status in (
        ({**own, "id": int(done.stdout)}, "interrupted"),
        ({**own, "id": os.getpid(), "started": own["started"] - 60}, "interrupted"),  # its number was used again
        ({**own, "host": "elsewhere"}, "running"),
        ({}, "interrupted"),
    ):
        run.update(process=process)
        assert run.status() == status
    run.finish("failed")
    assert run.status() == "failed"


# epochs


def test_epochs_are_logged_and_replaced() -> None:
    run = create()
    assert run.epochs() == []
    for number in (1, 2, 3):
        run.log_epoch(number, {"loss": number / 10})
    run.log_epoch(2, {"loss": 0.25})  # a resumed run repeats it
    run.log_epoch(3, {"loss": float("nan")})
    lines = run.epochs()
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["values"]["loss"] for line in lines[:2]] == [0.1, 0.25]
    assert lines[2]["values"]["loss"] != lines[2]["values"]["loss"]
    times = [line["time"] for line in lines]
    assert times == sorted(times)


@pytest.mark.parametrize("torn", ['{"epo', '{"epoch": 3, "time": 1, "values": {}}', "\0\0\0"])
@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_torn_last_line_is_left_out_and_repaired(torn: str, number: int) -> None:
    run = create()
    for epoch in (1, 2):
        run.log_epoch(epoch, {"loss": 0.5})
    path = run.folder / "metrics.jsonl"
    path.write_text(path.read_text() + torn)
    whole = torn.endswith("}")
    assert [line["epoch"] for line in run.epochs()] == [1, 2, 3][: 3 if whole else 2]
    run.log_epoch(number, {"loss": 0.1})
    run.log_epoch(number + 1, {"loss": 0.2})
    kept = [epoch for epoch in (1, 2, *([3] if whole else [])) if epoch < number]
    assert [line["epoch"] for line in run.epochs()] == [*kept, number, number + 1]
    assert path.read_text().count("\n") == len(kept) + 2


# listing


def test_runs_are_listed_oldest_first() -> None:
    for experiment, group in (("b", "20260103"), ("a", "20260102"), ("b", "20260101")):
        create(experiment, group=group)
    assert [run.name for run in record.list_runs()] == ["20260101-s0", "20260102-s0", "20260103-s0"]
    assert [run.name for run in record.list_runs("b")] == ["20260101-s0", "20260103-s0"]
    assert list(record.list_runs("c")) == []


def test_no_runs_at_all() -> None:
    assert list(record.list_runs()) == []


def test_groups_sort_by_time_and_differ() -> None:
    names = [record.new_group() for _ in range(50)]
    assert len(set(names)) == 50
    assert [name[:15] for name in names] == sorted(name[:15] for name in names)


def test_a_fold_stands_in_the_name_and_in_the_record() -> None:
    names = [create(group="20260101-aa", seed=seed, fold=fold).name for fold in (0, 1) for seed in (0, 3)]
    assert names == ["20260101-aa-f0-s0", "20260101-aa-f0-s3", "20260101-aa-f1-s0", "20260101-aa-f1-s3"]
    assert [run.info()["fold"] for run in record.list_runs()] == [0, 0, 1, 1]
    assert "fold" not in create(group="20260101-aa").info()


@pytest.mark.parametrize("content", [None, "", "{", "[]", '"a1"', "{}", '{"run_id": "other"}'])
def test_a_mirrored_run_is_found_among_others_without_a_readable_state(content: str | None) -> None:
    other, run = (create(seed=seed) for seed in (1, 2))
    if content is not None:
        (other.folder / "mlflow.json").write_text(content)
    (run.folder / "mlflow.json").write_text('{"run_id": "a1", "uri": "sqlite:///mlflow.db"}')
    assert record.find_mirrored("a1") == run
    assert record.find_mirrored("a2") is None


def test_the_runs_of_a_group_are_named_by_trial_fold_and_seed() -> None:
    assert record.run_name("g", seed=0) == "g-s0"
    assert record.run_name("g", seed=1, fold=3) == "g-f3-s1"
    assert record.run_name("g", seed=0, trial=7) == "g-t0007-s0"
    assert record.run_name("g", seed=0, trial=7, fold=2) == "g-t0007-f2-s0"


def test_a_trial_takes_the_folder_that_a_kill_left_empty_and_may_be_pruned() -> None:
    record.folder_of("searched", "g-t0007-s0").mkdir(parents=True)
    run = record.create("searched", group="g", seed=0, trial=7, recipe_text="", plan={}, params={"optimizer.lr": 0.1})
    run.finish("pruned", metrics={"val_accuracy": 0.5})
    assert (run.status(), run.info()["trial"], run.info()["params"]) == ("pruned", 7, {"optimizer.lr": 0.1})
