"""What a person sees: the terminal, Markdown, JSON, the page, and errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bench.errors import RecipeError
from bench.leaderboard.command import leaderboard


def call(*arguments: str, width: int = 80, colour: bool = False) -> Result:
    environment = {"COLUMNS": str(width)} | ({"FORCE_COLOR": "1", "TERM": "xterm"} if colour else {"NO_COLOR": "1"})
    return CliRunner().invoke(leaderboard, arguments, env=environment, catch_exceptions=False)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture
def board(runs: Any) -> None:
    """A leader, a tie with a long name, and one far behind."""
    runs.add("best.toml", runs.right(90))
    runs.add("stl10_mobilenet_frozen_with_a_long_name.toml", runs.right(89), changes=["train.epochs=1"])
    runs.add("far.toml", runs.right(40))
    runs.add("far.toml", runs.right(40), status="failed")


@pytest.mark.usefixtures("board")
def test_a_terminal_of_80_columns_shows_whole_lines_and_ties_are_dim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = call(colour=True).stdout
    lines = plain(text).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "digits: 100 test images"
    assert re.match(r"recipe +accuracy \[95 %\] +report  params  train", lines[1])
    assert re.match(r"best +90\.00% \[82\.56, 94\.48\]  leader   70\.5%   1\.23k   1:15", lines[2])
    assert re.match(r"stl10_.*…\S+ \[1\]  89\.00% .* tied", lines[3])
    assert re.match(r"far +40\.00% .* behind", lines[4])
    tied = next(line for line in text.splitlines() if "tied" in line)
    assert "\x1b[2m" in tied
    assert "\x1b[2m" not in next(line for line in text.splitlines() if "behind" in line)
    assert "[1] train.epochs=1" in lines
    assert "1 run left out: 1 failed." in lines


@pytest.mark.usefixtures("board")
def test_a_wide_terminal_shows_p_values_and_scores() -> None:
    text = call(width=140).stdout
    assert "tied (p = 1.00)" in text
    assert "behind (p < 0.0001)" in text
    assert "macro F1" in text


@pytest.mark.usefixtures("board")
def test_json_is_one_object_with_everything() -> None:
    values = json.loads(call("--json").stdout)
    [section] = values["sections"]
    assert values["schema"] == 1
    assert [entry["standing"]["verdict"] for entry in section["entries"]] == ["leader", "tied", "behind"]
    assert values["left_out"] == {"failed": 1}


@pytest.mark.usefixtures("board")
def test_markdown_goes_to_stdout() -> None:
    text = call("--markdown").stdout
    assert "| **best.toml** | **90.00 % [82.56, 94.48]** | leader |" in text
    assert "\n| *stl10_mobilenet_frozen_with_a_long_name.toml (train.epochs=1)* |" in text


@pytest.mark.usefixtures("board")
def test_the_page_needs_no_network_follows_the_scheme_and_greys_ties(tmp_path: Path) -> None:
    said = call("--html", str(tmp_path / "page.html")).stdout
    assert f"page: {tmp_path / 'page.html'}" in said
    text = (tmp_path / "page.html").read_text()
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", text)
    assert "<script" not in text
    assert re.search(r'<tr class="tied"><td class="name">stl10_<wbr>mobilenet', text)
    assert text.count("<svg") == 1
    assert "1 run left out: 1 failed." in text


def test_what_comes_from_outside_is_escaped_on_the_page(runs: Any, tmp_path: Path) -> None:
    runs.add("<b>bold<x>.toml", runs.right(90), changes=["train.epochs=<i>1"], dataset="<u>digits")
    runs.add("$a_b$.toml", runs.right(10), dataset="<u>digits")
    call("--html", str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert not re.search(r"<(b|x|i|u)>", text)
    assert "&lt;b&gt;bold" in text
    assert "$a_<wbr>b$" in text
    assert "$a_b$" in text[text.index("<svg") : text.index("</svg>")]  # no mathematics


def test_no_runs_are_no_error_and_say_how_to_start() -> None:
    done = call()
    assert (done.exit_code, done.stdout) == (0, "")
    assert "start with: bench run recipes/quickstart.toml" in done.stderr
    assert json.loads(call("--json").stdout)["sections"] == []


@pytest.mark.usefixtures("board")
def test_an_unknown_experiment_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r'pet.*did you mean "pets"'):
        call("pet")


def test_write_keeps_the_page_and_says_what_it_did(runs: Any, recipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipes.parent)
    runs.add("big.toml", runs.right(90))
    runs.add("small.toml", runs.right(60), experiment="signs")
    said = call("--write", "pets").stdout
    assert "from the runs: big.toml" in said
    assert "recipes/README.md: rewritten" in said
    said = call("--write", "recipes/README.md", "--json").stdout
    assert json.loads(said)["written"] == {
        "page": str(recipes / "README.md"),
        "measured": ["big.toml", "small.toml"],
        "kept": [],
        "dropped": [],
        "changed": True,
    }
    said = call("signs", "--write").stdout
    assert "kept as they were: big.toml" in said
    assert "recipes/README.md: up to date" in said
