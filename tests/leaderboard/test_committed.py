"""The leaderboard of this repository is up to date: with its facts, and with the recipes as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.leaderboard import Entry
from bench.leaderboard.keeping import FACTS, kept_board, read_entries
from bench.leaderboard.markdown import render, replaced
from bench.leaderboard.recipes import recipe_files
from bench.recipe import load

RECIPES = Path(__file__).parents[2] / "recipes"
ENTRIES = read_entries(RECIPES / FACTS)
REMEDY = "stale: run `python -m bench.leaderboard.keeping`"
AGAIN = "stale: run `bench run recipes/{0}` and then `bench leaderboard --write`"


def test_the_tables_are_those_of_the_facts() -> None:
    page = RECIPES / "README.md"
    board = kept_board(RECIPES, ENTRIES)
    assert page.read_text(encoding="utf-8") == replaced(page, render(board)), REMEDY


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.recipe)
def test_each_recipe_is_there_and_says_what_was_measured(entry: Entry) -> None:
    digests = {file.name: file.digest for file in recipe_files(RECIPES)}
    assert entry.recipe in digests, f"{entry.recipe} is gone; stale: run `bench leaderboard --write`"
    assert digests[entry.recipe] == entry.recipe_digest, AGAIN.format(entry.recipe)


def test_digests_are_those_of_checked_recipes() -> None:
    [quickstart] = [file for file in recipe_files(RECIPES) if file.name == "quickstart.toml"]
    assert quickstart.digest == load(RECIPES / "quickstart.toml").digest


def test_every_recipe_is_on_the_board_or_not_measured() -> None:
    board = kept_board(RECIPES, ENTRIES)
    on_it = {entry.recipe for entry in board.entries}
    assert on_it.isdisjoint(board.not_measured)
    assert on_it | set(board.not_measured) == {path.name for path in RECIPES.glob("*.toml")}
    text = (RECIPES / "README.md").read_text(encoding="utf-8")
    between = text.partition("<!-- leaderboard: begin -->")[2].partition("<!-- leaderboard: end -->")[0]
    assert all(path.name in between for path in RECIPES.glob("*.toml")), REMEDY


def test_the_ties_are_those_of_the_kept_answers() -> None:
    assert [entry.standing for entry in kept_board(RECIPES, ENTRIES).entries] == [entry.standing for entry in ENTRIES]


def test_the_facts_hold_no_paths_and_only_whole_datasets() -> None:
    text = (RECIPES / FACTS).read_text(encoding="utf-8")
    assert not re.search(r'"(/|[A-Z]:\\\\)|/root|/home|\.toml/', text)
    stand_ins = [entry.recipe for entry in ENTRIES if entry.recipe.startswith("stl10") and entry.dataset != "stl10"]
    assert not stand_ins, "what was measured on a stand-in is not STL-10"
