"""Planted faults are found, all of them, and little else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.exploration.command import Exploration, explore
from bench.progress import Progress
from bench.recipe import Recipe, load

Recipes = Callable[..., Recipe]


def found(exploration: Exploration, key: str) -> set[frozenset[str]]:
    """The names in each case of a finding."""
    names = exploration.survey.names
    return {
        frozenset(names[index] for index in case.images)
        for finding in exploration.findings
        if finding.key == key
        for case in finding.cases
    }


def everything(exploration: Exploration) -> dict[str, set[frozenset[str]]]:
    keys = ("unreadable", "exact_duplicates", "near_duplicates", "exact_leaks", "near_leaks")
    return {key: found(exploration, key) for key in keys}


def expected(planted: Any) -> dict[str, set[frozenset[str]]]:
    return {
        "unreadable": {frozenset([name]) for name in planted.unreadable},
        "exact_duplicates": planted.exact,
        "near_duplicates": planted.near,
        "exact_leaks": planted.exact_leaks,
        "near_leaks": planted.near_leaks,
    }


def test_every_planted_fault_is_found_and_nothing_else(
    tmp_path: Path, texture: Callable[[int], Image.Image], folder_recipe: Recipes, plant: Callable[..., Any]
) -> None:
    seed = 0
    for split, count in (("train", 24), ("test", 8)):
        for name in ("with space", "plain"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                texture(seed).save(tmp_path / split / name / f"{number:02d}.jpg", quality=95)
                seed += 1
    planted = plant(tmp_path, "train", "test")
    exploration = explore(folder_recipe(tmp_path), Progress())
    assert everything(exploration) == expected(planted)
    assert [finding.key for finding in exploration.findings][:3] == ["exact_leaks", "near_leaks", "unreadable"]


@pytest.mark.real_data
def test_every_fault_planted_into_photographs_is_found(tmp_path: Path, plant: Callable[..., Any]) -> None:
    shutil.copytree(Path(os.environ["BENCH_DATA"]) / "smoking", tmp_path / "smoking")
    changes = [f"dataset.root={tmp_path / 'smoking'}", "model.weights="]
    recipe = load(Path("recipes/smoking_mobilenet.toml"), changes)
    before = everything(explore(recipe, Progress()))
    assert {key: len(cases) for key, cases in before.items()} == {
        "unreadable": 0,
        "exact_duplicates": 0,
        "near_duplicates": 1,
        "exact_leaks": 0,
        "near_leaks": 2,
    }
    planted = expected(plant(tmp_path / "smoking", "Training", "Validation"))
    after = everything(explore(recipe, Progress()))
    assert after == {key: cases | planted[key] for key, cases in before.items()}
