"""The command line: what goes to stdout, what to stderr, and which exit code."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import cli, record
from bench.console import print_json

RECIPE = """
experiment = "tiny"
[dataset]
name = "digits"
[data]
size = 8
[model]
name = "linear"
[train]
epochs = 2
[compute]
precision = "fp32"
memory_format = "contiguous"
threads = 1
"""


class Outcome:
    """Exit code, stdout and stderr of one command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out)
        return value


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command in this process, in an empty folder that holds tiny.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_RUNS", "runs")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BENCH_TRACKING", "off")
    (tmp_path / "tiny.toml").write_text(RECIPE)

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return call


def test_json_has_null_where_there_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"values": [math.nan, math.inf, 1.5, "NaN"]})
    assert json.loads(capsys.readouterr().out)["values"] == [None, None, 1.5, "NaN"]


def test_run_prints_results_on_stdout_and_progress_on_stderr(bench: Any) -> None:
    result = bench("run", "tiny.toml")
    assert result.code == 0
    assert "accuracy [95 %]" in result.out
    assert "recorded in" in result.out
    assert "2/2" in result.err
    assert "epoch " not in result.out


def test_run_as_json_is_one_object_with_a_schema(bench: Any) -> None:
    value = bench("run", "tiny.toml", "--json").json()
    assert value["schema"] == 1
    assert value["runs"][0]["metrics"]["test_accuracy"] > 0.2


def test_several_seeds_end_in_a_mean_with_its_interval(bench: Any) -> None:
    result = bench("run", "tiny.toml", "--set", "seeds=[0,1,2]")
    assert "mean" in result.out
    assert "seed 2" in result.err


def test_resume_starts_what_was_never_started_and_refuses_what_is_finished(bench: Any) -> None:
    started = bench("run", "tiny.toml", "--resume")
    assert started.code == 0
    assert "starting one" in started.err
    again = bench("run", "tiny.toml", "--resume")
    assert again.code == 2
    assert "is finished" in again.err


def test_resume_by_name_takes_the_recorded_recipe(bench: Any, tmp_path: Path) -> None:
    bench("run", "tiny.toml", "--set", "seeds=[0,1]")
    unfinished = next(run for run in record.list_runs() if run.info()["seed"] == 1)
    unfinished.update(status="failed")
    (tmp_path / "tiny.toml").unlink()
    result = bench("run", "--resume", unfinished.name)
    assert result.code == 0, result.err
    assert unfinished.status() == "finished"


def test_a_run_that_is_still_going_is_not_gone_on_with(bench: Any) -> None:
    bench("run", "tiny.toml")
    (run,) = record.list_runs()
    run.update(status="running", process=record.this_process())
    result = bench("run", "tiny.toml", "--resume")
    assert result.code == 1
    assert "still running" in result.err


def test_a_run_whose_process_is_gone_is_listed_as_interrupted(bench: Any) -> None:
    bench("run", "tiny.toml")
    (run,) = record.list_runs()
    run.update(status="running", process={**record.this_process(), "started": 0.0})
    assert "interrupted" in bench("runs").out


def test_runs_lists_accuracy_with_its_interval(bench: Any) -> None:
    assert "start with" in bench("runs").err
    bench("run", "tiny.toml")
    assert "%]" in bench("runs").out
    assert bench("runs", "--json").json()["runs"][0]["status"] == "finished"


def test_plan_needs_no_data_and_plan_full_leaves_nothing_open(bench: Any) -> None:
    short = bench("plan", "tiny.toml")
    assert "open" in short.out
    plan = bench("plan", "tiny.toml", "--full", "--json").json()["plan"]
    reasons = plan.pop("reasons")
    assert None not in plan.values()
    assert set(reasons) >= {"device", "threads", "precision", "steps_per_epoch", "mean"}


def test_plugins_of_one_kind_with_options_in_words(bench: Any) -> None:
    shown = bench("plugins", "model/cnn")
    assert "array of int" in shown.out
    options = bench("plugins", "augmentations/rotation", "--json").json()["options"]
    assert {option["name"] for option in options} >= {"p", "degrees"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("rum",), 2, 'did you mean "run"?'),
        (("run", "none.toml"), 2, "none.toml: cannot be read"),
        (("run",), 2, "Missing argument"),
        (("run", "tiny.toml", "--set", "train.epoch=1"), 2, 'train.epoch: unknown key; did you mean "epochs"?'),
        (("run", "tiny.toml", "--set", "dataset={name='image_folder', root='/none'}"), 1, "/none"),
        (("run", "tiny.toml", "--set", "train.monitor=val_acuracy"), 2, 'did you mean "val_accuracy"?'),
        (("run", "--resume", "nothing"), 2, "bench runs lists them"),
        (("plugins", "models/cn"), 3, 'did you mean "cnn"?'),
        (("sync", "nothing"), 2, "no run 'nothing'"),
    ],
)
def test_mistakes_are_explained(bench: Any, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = bench(*arguments)
    assert result.code == code
    assert words in result.err
    assert "Traceback" not in result.err
