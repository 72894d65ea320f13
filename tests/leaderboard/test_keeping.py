"""The leaderboard that is kept beside the recipes: updated from runs, never by halves, and stale when a recipe changes."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError, RecipeError
from bench.leaderboard.keeping import FACTS, read_entries, refresh, update
from bench.recipe import digest_of

MARKS = "<!-- leaderboard: begin -->\n<!-- leaderboard: end -->"


def page_of(recipes: Path) -> str:
    return (recipes / "README.md").read_text()


def test_runs_of_the_recipes_come_into_page_and_facts(runs: Any, recipes: Path) -> None:
    runs.add("big.toml", runs.right(90))
    runs.add("small.toml", runs.right(89))
    runs.add("other.toml", runs.right(99))
    kept = update(recipes / "README.md")
    assert (kept.measured, kept.kept, kept.dropped, kept.changed) == (("big.toml", "small.toml"), (), (), True)
    assert kept.board.left_out == {"of other or changed recipes": 1}
    page = page_of(recipes)
    assert page.startswith("# Recipes\n\n<!-- leaderboard: begin -->\n\n")
    assert page.endswith("\n\n<!-- leaderboard: end -->\n\nThe end.\n")
    head = "| recipe | test accuracy [95 %] | against the leader | published | macro F1 | parameters | training |"
    big = "| **big.toml** | **90.00 % [82.56, 94.48]** | leader | 70.5 % | 0.500 | 1,234 | 1:15 |"
    assert f"### digits: 100 test images\n\n{head}\n|---|---|---|---|---|---|---|\n{big}\n| *small.toml* |" in page
    assert "*tied (p = 1.00)*" in page
    assert "Measured " in page
    assert "Intel Xeon Processor, 2 cores; visionbench 0.1.0; torch 2.14.1." in page
    assert "Not measured: tiny.toml." in page
    assert not update(recipes / "README.md").changed


def test_the_facts_name_no_host_no_path_and_the_digest_of_the_file(runs: Any, recipes: Path) -> None:
    runs.add("big.toml", runs.right(90), host="a-host-of-ours", root="/data/digits")
    update(recipes / "README.md")
    text = (recipes / FACTS).read_text()
    assert not re.search(r"a-host-of-ours|somebody|elsewhere|/data|/home", text)
    [entry] = json.loads(text)["entries"]
    assert entry["recipe_digest"] == digest_of(tomllib.loads((recipes / "big.toml").read_text()))
    assert (entry["dataset"], entry["num_test"], entry["published"]) == ("digits", 100, 0.705)


def test_a_run_with_more_seeds_and_another_place_of_data_is_of_the_recipe(runs: Any, recipes: Path) -> None:
    text = 'seeds = [0, 1]\n[dataset]\nname = "digits"\nroot = "/mnt/digits"\n[model]\nname = "big"\n'
    for seed in (0, 1):
        runs.add("big.toml", runs.right(90 + seed), text=text, group="20261126-000000-abcd", seed=seed)
    kept = update(recipes / "README.md")
    assert kept.measured == ("big.toml",)
    assert "| 2 seeds |" in page_of(recipes)


def test_recipes_that_are_not_in_the_runs_keep_their_entry_and_are_tested_against_new_ones(
    runs: Any, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.add("big.toml", runs.right(60))
    update(recipes / "README.md")
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "others"))
    runs.add("small.toml", runs.right(90))
    kept = update(recipes / "README.md")
    assert (kept.measured, kept.kept) == (("small.toml",), ("big.toml",))
    small, big = read_entries(recipes / FACTS)
    assert (small.recipe, small.standing.verdict) == ("small.toml", "leader")
    assert (big.recipe, big.standing.verdict, big.standing.test) == ("big.toml", "behind", "McNemar")
    assert f"{big.standing.p:.3g}" == f"{2 * 0.5**30:.3g}"  # 30 images lost, none gained


def test_kept_seeds_are_tested_against_new_seeds(
    runs: Any, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(3):
        runs.add("big.toml", runs.right(60 + seed), group="20261126-000000-abcd", seed=seed)
    update(recipes / "README.md")
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "others"))
    for seed in range(3):
        runs.add("small.toml", runs.right(90 + seed % 2), group="20261126-000000-abce", seed=seed)
    update(recipes / "README.md")
    assert [entry.standing.verdict for entry in read_entries(recipes / FACTS)] == ["leader", "behind"]


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_an_entry_whose_recipe_changed_since_is_dropped(change: str, runs: Any, recipes: Path) -> None:
    run = runs.add("big.toml", runs.right(90))
    runs.add("small.toml", runs.right(80))
    update(recipes / "README.md")
    run.update(status="failed")
    if change == "edited":
        (recipes / "big.toml").write_text('[dataset]\nname = "digits"\n\n[train]\nepochs = 3\n')
    else:
        (recipes / "big.toml").unlink()
    kept = update(recipes / "README.md")
    assert (kept.measured, kept.dropped) == (("small.toml",), ("big.toml",))
    assert ("big.toml" in page_of(recipes)) is (change == "edited")
    assert "| **big.toml**" not in page_of(recipes)


def test_a_comment_in_a_recipe_does_not_make_it_another_one(runs: Any, recipes: Path) -> None:
    runs.add("big.toml", runs.right(90)).update(seed=0)
    (recipes / "big.toml").write_text((recipes / "big.toml").read_text() + "# a comment\n")
    assert update(recipes / "README.md").measured == ("big.toml",)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("# Recipes\n", "<!-- leaderboard: begin --> and <!-- leaderboard: end --> is missing"),
        ("<!-- leaderboard: begin -->\n", "<!-- leaderboard: end --> is missing"),
        ("<!-- leaderboard: end -->\n<!-- leaderboard: begin -->\n", "<!-- leaderboard: end --> is missing"),
    ],
)
def test_a_page_without_marks_is_an_error_that_says_what_to_add(
    text: str, missing: str, runs: Any, recipes: Path
) -> None:
    runs.add("big.toml", runs.right(90))
    (recipes / "README.md").write_text(text)
    with pytest.raises(BenchError, match=re.escape(missing)) as caught:
        update(recipes / "README.md")
    assert caught.value.hint == (
        "add the two lines <!-- leaderboard: begin --> and <!-- leaderboard: end --> where it shall stand, in this order"
    )
    assert page_of(recipes) == text
    assert not (recipes / FACTS).exists()


def test_a_page_that_is_not_there_is_an_error(recipes: Path) -> None:
    with pytest.raises(BenchError, match=r"NOWHERE\.md: cannot be read: No such file"):
        update(recipes / "NOWHERE.md")


def test_a_page_without_recipes_beside_it_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(MARKS)
    with pytest.raises(RecipeError, match="there are no recipes"):
        update(tmp_path / "README.md")


def test_a_recipe_that_is_no_toml_is_an_error(recipes: Path) -> None:
    (recipes / "bad.toml").write_text("a = \n")
    with pytest.raises(RecipeError, match=r"bad\.toml: not valid TOML"):
        update(recipes / "README.md")


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "{",
        lambda _: "[]",
        lambda _: json.dumps({"schema": 2, "entries": []}),
        lambda _: json.dumps({"schema": 1, "entries": [{"recipe": "big.toml"}]}),
        lambda facts: facts.replace('"accuracy": 0.9,', '"accuracy": "0.9",'),
        lambda facts: facts.replace('"right": "', '"right": "AAAA'),
        lambda facts: facts.replace('"samples": 100', '"samples": 101'),
    ],
)
def test_damaged_facts_are_an_error_and_nothing_is_written(damage: Any, runs: Any, recipes: Path) -> None:
    runs.add("big.toml", runs.right(90))
    update(recipes / "README.md")
    damaged = damage((recipes / FACTS).read_text())
    (recipes / FACTS).write_text(damaged)
    before = page_of(recipes)
    with pytest.raises(BenchError, match=r"leaderboard\.json"):
        update(recipes / "README.md")
    assert (page_of(recipes), (recipes / FACTS).read_text()) == (before, damaged)


def test_the_tables_can_be_written_anew_from_the_facts_alone(runs: Any, recipes: Path) -> None:
    run = runs.add("big.toml", runs.right(90))
    update(recipes / "README.md")
    page = page_of(recipes)
    assert not refresh(recipes / "README.md")
    (recipes / "README.md").write_text(page.replace("90.00", "99.00"))
    run.update(status="failed")
    assert refresh(recipes / "README.md")
    assert page_of(recipes) == page


def test_a_new_recipe_is_not_measured_yet(recipes: Path) -> None:
    update(recipes / "README.md")
    assert "Nothing has been measured yet." in page_of(recipes)
    assert "Not measured: big.toml, small.toml, tiny.toml." in page_of(recipes)
    (recipes / "new.toml").write_text('[dataset]\nname = "digits"\n')
    assert refresh(recipes / "README.md")
    assert "big.toml, new.toml, small.toml" in page_of(recipes)
