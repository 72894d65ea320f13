"""Saved predictions are read, or it is said what to do."""

from __future__ import annotations

import pytest

from bench import record
from bench.errors import BenchError
from bench.predictions import read_predictions


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("running", "wait until it has ended"),
        ("interrupted", "bench run --resume 20261126-100000-aaaa-s0 finishes it"),
        ("finished", "the run needs to be trained again"),
    ],
)
def test_what_to_do_without_predictions_depends_on_how_far_the_run_has_come(status: str, remedy: str) -> None:
    run = record.create("toys", group="20261126-100000-aaaa", seed=0, recipe_text="", plan={})
    if status != "running":
        run.finish(status)
    with pytest.raises(BenchError, match="has no predictions of its test split") as caught:
        read_predictions(run, "test")
    assert remedy in str(caught.value.hint)


def test_predictions_of_another_split_are_named() -> None:
    run = record.create("toys", group="20261126-100000-aaaa", seed=0, recipe_text="", plan={})
    (run.folder / "predictions").mkdir()
    (run.folder / "predictions" / "test.npz").touch()
    with pytest.raises(BenchError, match="no predictions of its validation split") as caught:
        read_predictions(run, "validation")
    assert caught.value.hint == "it has those of its test split"


def test_a_damaged_file_is_no_remedy_for_itself() -> None:
    run = record.create("toys", group="20261126-100000-aaaa", seed=0, recipe_text="", plan={})
    run.finish("finished")
    (run.folder / "predictions").mkdir()
    (run.folder / "predictions" / "test.npz").write_bytes(b"no zip")
    with pytest.raises(BenchError, match="is damaged") as caught:
        read_predictions(run, "test")
    assert "needs to be trained again" in str(caught.value.hint)
