"""What a run.json must be, and that one which is not is in no other run's way."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import cli, recipe, record, run
from bench.errors import BenchError, RecipeError
from bench.progress import Progress
from bench.record import Run, group_of
from bench.resuming import to_resume
from bench.run_info import left_out, readable

RECIPE = """
experiment = "pets"
[dataset]
name = "digits"
[model]
name = "linear"
"""

WHOLE = {"status": "finished", "experiment": "pets", "group": "20260101-000000-aaaa", "seed": 0}

#: Files that are no run.json: torn, no JSON, of another type, without what every run has, with entries of wrong types.
DAMAGED = {
    "": "no readable run.json",
    '{"status": "fin': "no readable run.json",
    "<html>": "no readable run.json",
    "[" * 100_000: "no readable run.json",
    "[]": "damaged run.json: no status, experiment, group, seed",
    "{}": "damaged run.json: no status, experiment, group, seed",
    "null": "damaged run.json: no status, experiment, group, seed",
    json.dumps({**WHOLE, "seed": "0", "group": 1}): "damaged run.json: no group, seed",
    json.dumps({**WHOLE, "status": "done"}): "damaged run.json: no known status",
    json.dumps({**WHOLE, "metrics": [0.5]}): "damaged run.json: no metrics",
    json.dumps({**WHOLE, "metrics": {"test_accuracy": "high"}}): "damaged run.json: no numbers as metrics",
    json.dumps({**WHOLE, "recipe_digest": 7, "process": "me"}): "damaged run.json: no recipe_digest, process",
}

DEAD, STOPPED, DONE = "20260103-000000-cccc", "20260102-000000-bbbb", "20260101-000000-aaaa"


class Told(Progress):
    """Remembers the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def make(group: str, status: str = "finished", *, seed: int = 0, experiment: str = "pets", **info: Any) -> Run:
    checked = recipe.parse(RECIPE, path=Path("pets.toml"))
    facts = {"recipe": "pets.toml", "recipe_digest": checked.digest, "dataset": {"name": "digits"}, **info}
    made = record.create(experiment, group=group, seed=seed, recipe_text=RECIPE, plan=_plan(), **facts)
    made.log_epoch(1, {"train_loss": 0.5, "val_loss": 0.4, "val_accuracy": 0.9})
    made.finish(status, metrics={"val_accuracy": 0.9, "test_accuracy": 0.8, "train_seconds": 1.0, "best_epoch": 1.0})
    return made


def _plan() -> dict[str, Any]:
    from bench import environment
    from bench.plan import draft

    return draft(recipe.parse(RECIPE, path=Path("pets.toml")), environment.detect()).as_json()


@pytest.fixture(params=DAMAGED)
def damaged(request: pytest.FixtureRequest) -> Run:
    """The latest of three runs, whose record is damaged; one was stopped, and one is finished."""
    make(DONE)
    make(STOPPED, "interrupted")
    dead = make(DEAD)
    (dead.folder / "run.json").write_text(request.param, encoding="utf-8")
    return dead


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command in this process, and returns (exit code, stdout, stderr without line breaks)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets.toml").write_text(RECIPE, encoding="utf-8")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, " ".join(captured.err.split())

    return call


# what a run.json must be


@pytest.mark.parametrize(("content", "message"), DAMAGED.items())
def test_what_is_wrong_is_said_with_a_remedy(content: str, message: str) -> None:
    dead = make(DEAD)
    (dead.folder / "run.json").write_text(content, encoding="utf-8")
    for read in (dead.info, dead.status, lambda: dead.update(note="")):
        with pytest.raises(BenchError) as caught:
            read()
        assert str(caught.value).startswith(f"{dead.folder}: {message}")
        assert "remove the run's folder" in str(caught.value.hint)
    assert (dead.folder / "run.json").read_text(encoding="utf-8") == content


def test_what_cannot_be_opened_is_damaged() -> None:
    dead = make(DEAD)
    (dead.folder / "run.json").unlink()
    (dead.folder / "run.json").mkdir()
    with pytest.raises(BenchError, match=r"no readable run\.json: .*Is a directory"):
        dead.info()


def test_entries_that_only_some_runs_have_are_asked_for() -> None:
    made = make(DONE)
    assert made.info("metrics", "dataset")["seed"] == 0
    with pytest.raises(BenchError, match=r"damaged run\.json: no parent, anything$"):
        made.info("metrics", "parent", "anything")
    made.update(anything=[1, None])
    assert made.info("anything")["anything"] == [1, None]


@pytest.mark.parametrize(
    "process", [{"id": "x"}, {"id": -1}, {"id": 1}, {"id": 2**80, "started": 0.0}, {"started": "?"}]
)
def test_a_process_that_cannot_be_is_not_alive(process: dict[str, Any]) -> None:
    assert not record.is_alive({**process, "host": record.this_process()["host"]})


def test_the_damaged_are_collected_and_the_others_read(damaged: Run) -> None:
    dead: list[Run] = []
    assert [found.name for found, info in readable(record.list_runs(), dead) if info["seed"] == 0] == [
        f"{DONE}-s0",
        f"{STOPPED}-s0",
    ]
    assert dead == [damaged]
    assert left_out(dead) == f"left out, damaged run.json: pets/{DEAD}-s0"
    assert left_out([damaged] * 5).endswith(f"pets/{DEAD}-s0, pets/{DEAD}-s0 and 2 more")
    assert left_out([]) == ""
    assert [found.name for found, _ in readable(record.list_runs(), needed=["ended"])] == [
        f"{DONE}-s0",
        f"{STOPPED}-s0",
    ]
    assert list(readable(record.list_runs(), dead, needed=["study"])) == []


# the commands


@pytest.mark.parametrize("arguments", [(), ("pets",)])
def test_runs_lists_the_others_and_names_the_damaged(damaged: Run, bench: Any, arguments: tuple[str, ...]) -> None:
    code, out, err = bench("runs", *arguments)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()[1:]] == [f"{DONE}-s0", f"{STOPPED}-s0"]
    assert "80.00%" in out  # no interval is recorded
    assert err == f"warning: left out, damaged run.json: pets/{DEAD}-s0"
    code, out, _ = bench("runs", *arguments, "--json")
    found = json.loads(out)
    assert [one["name"] for one in found["runs"]] == [f"{DONE}-s0", f"{STOPPED}-s0"]
    assert found["damaged"] == [{"name": damaged.name, "folder": str(damaged.folder)}]


def test_runs_of_an_experiment_whose_only_run_is_damaged_names_it(bench: Any) -> None:
    dead = make(DEAD, experiment="birds")
    (dead.folder / "run.json").write_text("{", encoding="utf-8")
    for arguments in ((), ("birds",)):
        assert bench("runs", *arguments) == (0, "", f"warning: left out, damaged run.json: birds/{dead.name}")


def test_runs_of_an_unknown_experiment_is_an_error_with_the_near_miss(bench: Any) -> None:
    code, out, err = bench("runs", "petz")
    assert (code, out) == (0, "")
    assert "no runs in" in err
    assert "start with: bench run" in err
    make(DONE)
    code, out, err = bench("runs", "petz")
    assert (code, out) == (2, "")
    assert "no runs of an experiment 'petz' in" in err
    assert 'did you mean "pets"? hint: bench runs lists those of all experiments' in err


def test_curves_of_an_experiment_draws_the_others(damaged: Run, bench: Any) -> None:
    code, out, err = bench("curves", "pets", "--json")
    assert code == 0
    assert [one["name"] for one in json.loads(out)["runs"]] == [f"{DONE}-s0", f"{STOPPED}-s0"]
    assert err == f"warning: left out, damaged run.json: pets/{DEAD}-s0"
    code, out, err = bench("curves", damaged.name)
    assert (code, out) == (1, "")
    assert "run.json" in err
    assert "hint: restore it" in err


# --resume


def test_the_latest_stopped_run_is_resumed_beside_a_damaged_one(damaged: Run) -> None:
    told = Told()
    checked, begun = to_resume(None, (), "latest", progress=told)
    assert (checked.experiment, [one.name for one in begun]) == ("pets", [f"{STOPPED}-s0"])
    assert told.warnings == [f"left out, damaged run.json: pets/{damaged.name}"]


def test_a_recipe_is_resumed_beside_a_damaged_run(damaged: Run, tmp_path: Path) -> None:
    path = tmp_path / "pets.toml"
    path.write_text(RECIPE, encoding="utf-8")
    told = Told()
    _, begun = to_resume(path, (), "latest", progress=told)
    assert [one.name for one in begun] == [f"{STOPPED}-s0"]
    assert told.warnings == [f"left out, damaged run.json: pets/{damaged.name}"]
    begun[0].finish("finished")
    with pytest.raises(RecipeError, match=f"{STOPPED}-s0 is finished"):
        to_resume(path, (), "latest")
    assert run.unfinished(recipe.load(path)) == []


@pytest.mark.parametrize("how", ["latest", "recipe", "name"])
def test_a_group_is_not_resumed_without_its_damaged_run(how: str, tmp_path: Path) -> None:
    """Whether that one was finished is not known, and its folder is in the way of a new one."""
    make(DONE)
    whole, dead = (make(STOPPED, "interrupted", seed=seed) for seed in (0, 1))
    (dead.folder / "run.json").write_text("{", encoding="utf-8")
    path = tmp_path / "pets.toml"
    path.write_text(RECIPE, encoding="utf-8")
    with pytest.raises(BenchError, match=f"{dead.name}: no readable"):
        to_resume(path if how == "recipe" else None, (), whole.name if how == "name" else "latest")


@pytest.mark.parametrize("whose", [{"study": "s", "trial": 0}, {"reproduces": f"{DONE}-s0"}])
def test_trials_and_reproductions_are_not_the_latest_stopped_run(whose: dict[str, Any]) -> None:
    make(STOPPED, "interrupted")
    make(DEAD, "pruned" if "trial" in whose else "interrupted", **whose)
    assert [one.name for one in to_resume(None, (), "latest")[1]] == [f"{STOPPED}-s0"]


def test_a_group_lies_where_its_runs_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (make(STOPPED, "interrupted", seed=seed) for seed in (0, 1))
    make(DEAD, "interrupted")
    (first.folder.parent / "favourite").symlink_to(second.folder)
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "elsewhere"))
    assert group_of(second) == [first, second]
    assert to_resume(None, (), str(second.folder))[1] == [first, second]
