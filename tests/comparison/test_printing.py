"""`bench compare` as a person sees it: within 80 columns, without colours, as CSV, as JSON."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from bench.comparison.command import compare
from bench.errors import RecipeError
from bench.record import Run

Recorder = Callable[..., Run]

A, B, C = "20261126-100000-aaaa", "20261126-100001-bbbb", "20261126-100002-cccc"
RECIPE = '[model]\nname = "cnn"\nchannels = [{width}, 64, 128]\n[optimizer]\nlr = {lr}\n'


@pytest.fixture
def three(recorded: Recorder) -> None:
    """A good run, seeds that are as good, and a poor run."""
    full = {"macs": 12.3e6, "train_seconds": 300.0, "images_per_second": 12345.0}
    recorded(np.arange(300) < 290, group=A, recipe="a_recipe_with_quite_a_long_name.toml", metrics=full,
             text=RECIPE.format(width=32, lr=0.001))  # fmt: skip
    for seed in range(3):
        recorded(
            np.arange(300) < 288 + seed, group=B, seed=seed, recipe="seeds.toml", text=RECIPE.format(width=16, lr=0.001)
        )
    recorded(np.arange(300) < 200, group=C, recipe="poor.toml", metrics=full, text=RECIPE.format(width=8, lr=0.01))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(compare, list(arguments), catch_exceptions=False, standalone_mode=False)


def on_terminal(*arguments: str, width: int = 80) -> str:
    """What a terminal of that width shows that has no colours; bold and dim are taken out."""
    environment = {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": str(width), "TERM": "xterm"}
    runner = CliRunner(env=environment)
    ended = runner.invoke(compare, list(arguments), catch_exceptions=False, standalone_mode=False, color=True)
    assert not re.search(r"\x1b\[[\d;]*3\d", ended.stdout)
    return re.sub(r"\x1b\[[\d;]*m", "", ended.stdout)


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = on_terminal("toys", width=width).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert any("12.3M" in line for line in lines)


@pytest.mark.usefixtures("three")
def test_words_say_what_colours_say() -> None:
    text = on_terminal("toys")
    assert "1 and 2: no difference detectable" in text
    assert "1 better than 3" in text
    assert "most accurate: 1 a_recipe_with_quite_a_long_name; no difference to 2 seeds is" in text
    assert "p is corrected for all 3 pairs (Holm)" in text
    assert f"{B} x3" in text
    row = next(line for line in text.splitlines() if "poor" in line)
    assert row.split()[-1] == "b"


@pytest.mark.usefixtures("three")
def test_a_figure_without_room_is_named() -> None:
    assert "no room for img/s" in on_terminal("toys", width=40)


@pytest.mark.usefixtures("three")
def test_only_what_differs_is_printed() -> None:
    text = run("toys").output
    assert "model.channels" in text
    assert "[32, 64, 128]" in text
    assert "optimizer.lr" in text
    assert "model.name" not in text


@pytest.mark.usefixtures("three")
def test_entries_are_sorted_by_any_column() -> None:
    def order(column: str) -> list[str]:
        return [one["label"] for one in json.loads(run("toys", "--sort", column, "--json").stdout)["entries"]]

    long = "a_recipe_with_quite_a_long_name"
    assert order("accuracy") == [long, "seeds", "poor"]
    assert order("-accuracy") == ["poor", "seeds", long]
    assert order("recipe") == [long, "poor", "seeds"]
    assert order("macs") == [long, "poor", "seeds"]  # what has no figure comes last
    assert order("speed") == [long, "poor", "seeds"]
    assert order("train") == ["seeds", long, "poor"]


@pytest.mark.usefixtures("three")
def test_sorting_keeps_numbers_and_differences_together() -> None:
    found = json.loads(run("toys", "--sort", "-accuracy", "--json").stdout)
    assert [one["number"] for one in found["entries"]] == [3, 2, 1]
    assert found["differences"]["optimizer.lr"] == [0.01, 0.001, 0.001]


def test_an_unknown_column_is_told_before_anything_is_read() -> None:
    with pytest.raises(RecipeError, match='did you mean "accuracy"') as caught:
        run("--sort", "acuracy")
    assert "p50" in str(caught.value.hint)


@pytest.mark.usefixtures("three")
def test_csv_has_plain_numbers_and_the_keys_that_differ() -> None:
    rows = list(csv.DictReader(io.StringIO(run("toys", "--csv").stdout)))
    assert [row["tie"] for row in rows] == ["a", "a", "b"]
    assert float(rows[0]["accuracy"]) == pytest.approx(290 / 300)
    assert (rows[0]["macs"], rows[1]["macs"], rows[1]["runs"]) == ("12300000.0", "", "3")
    assert rows[2]["optimizer.lr"] == "0.01"


def test_values_that_look_alike_are_shown_with_all_their_digits(recorded: Recorder) -> None:
    for group, rate in ((A, 0.00123456), (B, 0.00123461), (C, 0.00123461)):
        recorded(np.arange(300) < 290, group=group, text=RECIPE.format(width=8, lr=rate))
    assert re.search(r"optimizer.lr +0.00123456 +0.00123461 +0.00123461", on_terminal("toys", width=120))
    assert re.search(r"optimizer.lr +0.00123456 \(1\), 0.00123461 \(2-3\)", on_terminal("toys", width=60))
    rows = list(csv.DictReader(io.StringIO(run("toys", "--csv").stdout)))
    assert [float(row["optimizer.lr"]) for row in rows] == [0.00123456, 0.00123461, 0.00123461]


def test_json_and_csv_exclude_each_other() -> None:
    from click import UsageError

    with pytest.raises(UsageError, match="exclude"):
        run("--json", "--csv")


def test_what_is_left_out_is_listed_apart_and_many_as_one(recorded: Recorder) -> None:
    recorded(np.arange(30) < 20, group=A)
    for number in range(5):
        recorded(np.arange(30) < 20, group=B, trial=number, study="find")
    failed = recorded(np.arange(30) < 20, group=C)
    failed.update(status="failed", error="[red]out of memory")
    text = run("toys").output
    assert "5 runs" in text
    assert "failed: [red]out of memory" in text
    assert text.index("Left out") > text.index("accuracy")
    assert "stands alone" in text


def test_runs_of_different_test_sets_are_told_apart(recorded: Recorder) -> None:
    recorded(np.arange(30) < 20, group=A)
    recorded(np.arange(40) < 20, group=B)
    text = run("toys").output
    assert "digits, 30 images of the test split" in text
    assert "digits, 40 images of the test split" in text
    assert "Entries of different test sets are not compared with each other." in text


def test_nothing_to_compare_is_said_and_no_error(recorded: Recorder) -> None:
    recorded(np.arange(30) < 20, group=A).update(status="failed", error="no luck")
    text = run("toys").output
    assert "nothing to compare" in text
    assert "no luck" in text


def test_pairs_show_auroc_and_eer(recorded: Recorder) -> None:
    metrics = {"test_auroc": 0.961, "test_eer": 0.1}
    recorded(np.arange(30) < 20, group=A, metrics=metrics)
    recorded(np.arange(30) < 21, group=B, metrics=metrics)
    text = run("toys").output
    assert "30 pairs of the test split" in text
    assert "0.9610" in text
    assert "10.00%" in text
    assert "F1" not in text


@pytest.mark.usefixtures("three")
def test_comparing_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from bench.comparison.command import compare\n"
        "compare(['toys'], standalone_mode=False)\n"
        "heavy = {'torch', 'mlflow', 'pandas', 'matplotlib', 'sklearn', 'jinja2'}\n"
        "sys.stderr.write(' '.join(sorted(heavy & set(sys.modules))) + '|' + str('scipy.stats' in sys.modules))\n"
    )
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert ended.stderr.splitlines()[-1] == "|False"


def test_the_command_is_installed_and_explains_itself() -> None:
    command: list[Any] = [sys.executable, "-m", "bench", "compare", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "bench compare gtsrb smoking --sort p50" in text
