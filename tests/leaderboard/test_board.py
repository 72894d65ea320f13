"""Which runs stand for their recipe, how they are ranked, and what is left out."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from bench.errors import RecipeError
from bench.leaderboard import build
from bench.leaderboard.recipes import identity_of
from bench.record import runs_folder
from bench.statistics import mcnemar, wilson_interval


def test_recipes_are_ranked_and_told_apart_by_mcnemar_with_holm(runs: Any) -> None:
    runs.add("best.toml", runs.right(90))
    runs.add("near.toml", runs.right(88, shift=1))  # 3 images differ, 1 for and 2 against it
    runs.add("far.toml", runs.right(70))
    [section] = build().sections
    assert [entry.label for entry in section.entries] == ["best", "near", "far"]
    assert section.title == "digits: 100 test images"
    best, near, far = section.entries
    assert (best.low, best.high) == wilson_interval(90, 100)
    assert (best.published, best.parameters, best.train_seconds) == (0.705, 1234, 75.0)
    assert best.standing.verdict == "leader"
    alone = mcnemar(20, 0)
    assert alone < 0.05
    assert (far.standing.verdict, far.standing.test) == ("behind", "McNemar")
    assert far.standing.p == pytest.approx(2 * alone, rel=1e-3)
    assert (near.standing.verdict, near.standing.p) == ("tied", 1.0 if mcnemar(2, 0) == 1 else mcnemar(2, 0))


def test_holm_may_turn_a_difference_into_a_tie(runs: Any) -> None:
    runs.add("best.toml", runs.right(90))
    runs.add("second.toml", runs.right(84))
    assert mcnemar(6, 0) < 0.05 < 2 * mcnemar(6, 0)
    assert build().entries[1].standing.verdict == "behind"
    runs.add("third.toml", runs.right(84, shift=6))
    assert [entry.standing.verdict for entry in build().entries] == ["leader", "tied", "tied"]


def test_of_several_runs_the_validation_split_chooses_not_the_test_split(runs: Any) -> None:
    runs.add("toy.toml", runs.right(60), val_accuracy=0.9)
    runs.add("toy.toml", runs.right(95), val_accuracy=0.5)
    [entry] = build().entries
    assert (entry.accuracy, entry.chosen) == (0.6, "the best of 2 by val_accuracy")


def test_an_objective_that_falls_is_best_where_it_is_lowest_and_nan_is_worst(runs: Any) -> None:
    for accuracy, loss in ((60, 0.2), (95, 0.7), (96, math.nan)):
        runs.add("toy.toml", runs.right(accuracy), val_accuracy=0.9, val_loss=loss, objective="val_loss")
    [entry] = build().entries
    assert (entry.accuracy, entry.chosen) == (0.6, "the best of 3 by val_loss")


def test_the_time_of_training_holds_that_of_the_fit(runs: Any) -> None:
    run = runs.add("toy.toml", runs.right(95))
    run.update(metrics={**run.info()["metrics"], "train_seconds": 0.5, "fit_seconds": 232.5})
    assert build().entries[0].train_seconds == 233


def test_without_a_validation_split_the_latest_run_stands(runs: Any) -> None:
    runs.add("toy.toml", runs.right(95), objective="train_loss")
    runs.add("toy.toml", runs.right(60), objective="train_loss")
    [entry] = build().entries
    assert (entry.accuracy, entry.chosen) == (0.6, "the latest of 2: no validation split decides")


def test_seeds_are_one_entry_with_the_mean_and_its_interval_and_go_before_a_single_run(runs: Any) -> None:
    for seed, number in enumerate((80, 84, 88)):
        runs.add("toy.toml", runs.right(number), group="20261126-000000-abcd", seed=seed, val_accuracy=0.1)
    runs.add("toy.toml", runs.right(99), val_accuracy=0.9)
    [entry] = build().entries
    assert (entry.kind, entry.num_runs, entry.chosen) == ("seeds", 3, "the one with the most runs of 2")
    assert entry.accuracy == pytest.approx(0.84)
    half = 4.302653 * 0.04 / math.sqrt(3)  # Student's t of two degrees of freedom
    assert [entry.low, entry.high] == pytest.approx([0.84 - half, 0.84 + half])


def test_seeds_that_overlap_are_tied_and_seeds_far_apart_are_not(runs: Any) -> None:
    for recipe, numbers in {"a.toml": (90, 91, 92), "b.toml": (89, 91, 93), "c.toml": (50, 52, 51)}.items():
        for seed, number in enumerate(numbers):
            runs.add(recipe, runs.right(number), group=f"20261126-000000-{recipe[0]}", seed=seed)
    standings = {entry.label: entry.standing for entry in build().entries}
    assert [standings[name].verdict for name in "abc"] == ["leader", "tied", "behind"]
    assert standings["c"].test == "seeds and images"


def test_folds_come_with_their_standard_error_over_all_test_images(runs: Any) -> None:
    for fold, number in enumerate((8, 6, 7)):
        runs.add("toy.toml", runs.right(number, of=10), group="20261126-000000-f", fold=fold, prefix=f"fold{fold}")
    [section] = build().sections
    [entry] = section.entries
    assert (entry.kind, entry.num_test, entry.low) == ("folds", 30, None)
    assert entry.standard_error == pytest.approx(0.1 / math.sqrt(3))


def test_datasets_and_test_sets_have_sections_of_their_own(runs: Any) -> None:
    runs.add("a.toml", runs.right(90))
    runs.add("b.toml", runs.right(80), prefix="other")
    runs.add("c.toml", runs.right(70), dataset="image_folder", root="/elsewhere/photos", prefix="third")
    sections = build().sections
    assert [section.title for section in sections] == [
        "digits: 100 test images",
        "digits: 100 test images",
        "image_folder (photos): 100 test images",
    ]
    assert all(len(section.entries) == 1 for section in sections)


def test_another_fingerprint_with_the_same_test_images_shares_their_section(runs: Any) -> None:
    runs.add("a.toml", runs.right(90))
    run = runs.add("b.toml", runs.right(40))
    run.update(dataset={**run.info()["dataset"], "fingerprint": "older"})
    [section] = build().sections
    assert [entry.standing.verdict for entry in section.entries] == ["leader", "behind"]


def test_one_recipe_with_two_fingerprints_of_the_same_test_images_is_one_entry(runs: Any) -> None:
    run = runs.add("a.toml", runs.right(90))
    run.update(dataset={**run.info()["dataset"], "fingerprint": "older"})
    runs.add("a.toml", runs.right(40))
    [entry] = build().entries
    assert (entry.accuracy, entry.chosen) == (0.4, "the latest of 2: no validation split decides")


def test_a_run_without_predictions_is_shown_and_not_tested_and_cannot_lead(runs: Any) -> None:
    runs.add("none.toml", runs.right(95), keep_predictions=False)
    runs.add("some.toml", runs.right(90))
    runs.add("less.toml", runs.right(50))
    [section] = build().sections
    assert [(entry.label, entry.standing.verdict) for entry in section.entries] == [
        ("none", "not tested"),
        ("some", "leader"),
        ("less", "behind"),
    ]
    assert section.entries[0].fault == "no predictions of its test split"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half of it"])
def test_damaged_predictions_are_said_without_naming_a_folder(runs: Any, content: bytes) -> None:
    run = runs.add("a.toml", runs.right(90))
    runs.add("b.toml", runs.right(50))
    (run.folder / "predictions" / "test.npz").write_bytes(content)
    entry = next(entry for entry in build().entries if entry.label == "a")
    assert (entry.standing.verdict, entry.fault) == ("not tested", "damaged predictions/test.npz")


def test_predictions_of_another_run_are_not_believed(runs: Any) -> None:
    run = runs.add("a.toml", runs.right(90))
    runs.save(run, runs.right(20))
    [entry] = build().entries
    assert entry.fault == "predictions/test.npz is of another run"


def test_a_deleted_recipe_still_counts_under_its_recorded_digest(runs: Any) -> None:
    run = runs.add("a.toml", runs.right(90))
    (run.folder / "recipe.toml").unlink()
    [entry] = build().entries
    assert (entry.label, entry.recipe_digest) == ("a", run.info()["recipe_digest"])


def test_what_is_unfinished_or_broken_is_counted_by_reason(runs: Any) -> None:
    runs.add("a.toml", runs.right(90))
    for status in ("failed", "interrupted", "pruned", "running"):
        runs.add("a.toml", runs.right(90), status=status)
    runs.add("a.toml", runs.right(90), trial=3)
    runs.add("a.toml", runs.right(90)).update(reproduces="20261126-000000-abcd-s0")
    untested = runs.add("a.toml", runs.right(90))
    untested.update(metrics={"val_accuracy": 0.5})
    for content in ("{", "[]", "{}", '{"status": "finished", "metrics": {"test_accuracy": 1.0}}'):
        broken = runs.add("a.toml", runs.right(90))
        (broken.folder / "run.json").write_text(content)
    board = build()
    assert len(board.entries) == 1
    assert board.left_out == {
        "failed": 1,
        "interrupted": 2,  # the one that is running has no process any more
        "pruned": 1,
        "reproductions": 1,
        "trials of searches": 1,
        "unreadable run.json": 4,
        "without a test split": 1,
    }


def test_seeds_that_did_not_finish_are_told(runs: Any) -> None:
    for seed, status in enumerate(("finished", "finished", "failed")):
        runs.add("a.toml", runs.right(90 + seed), group="20261126-000000-abcd", seed=seed, status=status)
    [entry] = build().entries
    assert (entry.num_runs, entry.unfinished) == (2, 1)


def test_a_copied_folder_counts_once(runs: Any) -> None:
    run = runs.add("a.toml", runs.right(90))
    shutil.copytree(run.folder, run.folder.with_name(f"{run.name}-copy"))
    shutil.copytree(run.folder, runs_folder() / "elsewhere" / run.name)
    board = build()
    assert [entry.chosen for entry in board.entries] == ["the only one"]
    assert board.left_out == {"copies of another run": 2}


def test_a_folder_from_another_machine_counts_by_what_lies_in_it(runs: Any) -> None:
    run = runs.add("a.toml", runs.right(90))
    run.update(recipe="C:\\Users\\somebody\\a.toml", process={"host": "elsewhere", "id": 1, "started": 0.0})
    runs.add("b.toml", runs.right(40))
    assert [entry.label for entry in build().entries] == ["a", "b"]


def test_changes_by_set_are_named_and_edited_files_by_the_keys_that_differ(runs: Any) -> None:
    text = '[dataset]\nname = "digits"\n\n[train]\nepochs = {}\n'
    runs.add("a.toml", runs.right(90), text=text.format(20))
    runs.add("a.toml", runs.right(80), text=text.format(30))
    runs.add("a.toml", runs.right(10), text=text.format(1), changes=["train.epochs=1", "experiment=x"])
    assert [entry.label for entry in build().entries] == [
        "a (train.epochs = 20)",
        "a (train.epochs = 30)",
        "a (train.epochs=1)",
    ]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"experiment": "a", "seeds": [0]}, {"seeds": [0, 1, 2]}, True),
        ({"dataset": {"name": "lfw", "root": "/mnt/lfw"}}, {"dataset": {"name": "lfw"}}, True),
        ({"dataset": {"name": "lfw", "root": "D:\\data\\lfw"}}, {"dataset": {"name": "lfw", "root": "lfw"}}, True),
        ({"dataset": {"name": "photos", "root": "/mnt/cats"}}, {"dataset": {"name": "photos", "root": "dogs"}}, False),
        ({"train": {"epochs": 1}}, {"train": {"epochs": 2}}, False),
    ],
)
def test_a_recipe_is_the_same_whatever_its_label_repetitions_and_place_of_data(
    one: dict[str, Any], other: dict[str, Any], *, same: bool
) -> None:
    assert (identity_of(one) == identity_of(other)) is same


def test_only_the_named_experiments_count_and_unknown_ones_are_an_error(runs: Any) -> None:
    runs.add("a.toml", runs.right(90), experiment="pets")
    runs.add("b.toml", runs.right(80), experiment="signs")
    assert [entry.label for entry in build(["signs"]).entries] == ["b"]
    assert [entry.label for entry in build(["signs", "pets", "signs"]).entries] == ["a", "b"]
    with pytest.raises(RecipeError, match=r"no run of an experiment 'sings'.*signs"):
        build(["sings"])


def test_no_runs_are_an_empty_board() -> None:
    assert build().sections == ()


def test_a_thousand_runs_are_ranked_in_a_moment_without_torch(runs: Any) -> None:
    originals = [runs.add(f"recipe{n}.toml", runs.right(70 + n, of=3000), val_accuracy=0.5) for n in range(5)]
    for number in range(995):
        original = originals[number % 5]
        folder = original.folder.with_name(f"20261127-{number:06}-bbbb-s0")
        (folder / "predictions").mkdir(parents=True)
        for name in ("recipe.toml", "predictions/test.npz"):
            os.link(original.folder / name, folder / name)
        info = original.info() | {"id": str(number), "group": folder.name}
        info["metrics"]["val_accuracy"] = number / 1000
        (folder / "run.json").write_text(json.dumps(info))
    code = (
        "import sys, time; from bench.leaderboard import build; begun = time.process_time(); board = build();"
        "print(len(board.entries), board.entries[0].chosen, 'torch' in sys.modules, time.process_time() - begun)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, _, seconds = done.stdout.rpartition(" ")
    assert said == "5 the best of 200 by val_accuracy False"
    assert float(seconds) < 1.5
