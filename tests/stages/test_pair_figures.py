"""The figures of a verification: written, large enough to read, small enough to send, whatever the scores are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench import record
from bench.files import write_json
from bench.record import Run
from bench.stages.evaluate import Predictions
from bench.stages.pair_figures import draw_roc, draw_scores
from bench.stages.verification import at_threshold, evaluate_pairs


def overlapping(count: int = 1000, *, apart: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 2
    return 1 / (1 + np.exp(-np.random.default_rng(0).normal(labels * apart - apart / 2, 1))), labels


#: Scores and labels as runs have them: good, useless, perfect, all alike, only two pairs.
SCORES: dict[str, tuple[Any, Any]] = {
    "good": overlapping(apart=3),
    "useless": overlapping(200, apart=0),
    "perfect": overlapping(200, apart=20),
    "alike": (np.full(20, 0.5), np.arange(20) % 2),
    "two": (np.array([0.2, 0.7]), np.array([0, 1])),
    "reversed": (np.array([0.7, 0.2, 0.8, 0.1]), np.array([0, 1, 0, 1])),
}


def predictions(name: str) -> Predictions:
    scores, labels = SCORES[name]
    scores = np.asarray(scores, dtype=np.float32)
    table = np.stack([1 - scores, scores], 1)
    return at_threshold(Predictions(table, labels, tuple(map(str, range(len(labels)))), 0.5), 0.5)


def size_of(path: Path) -> tuple[int, int]:
    assert 5_000 < path.stat().st_size < 300_000
    assert [other.name for other in path.parent.iterdir()] == [path.name]  # nothing is left of the writing
    with Image.open(path) as image:
        image.load()
        pixels = np.asarray(image.convert("L"))
        assert pixels.std() > 5  # something is drawn
        return image.size


def recorded(name: str, **values: Any) -> Run:
    run = record.create("faces", group="g", seed=0, recipe_text="", plan={})
    found = predictions(name)
    found.save(run.folder / "predictions" / "test.npz")
    write_json(run.folder / "evaluation.json", {"test": {**evaluate_pairs(found, ("different", "same")), **values}})
    return run


@pytest.mark.parametrize("name", SCORES)
def test_a_curve_is_drawn(name: str, tmp_path: Path) -> None:
    evaluation = json.loads(json.dumps(evaluate_pairs(predictions(name), ("different", "same"))))
    draw_roc(evaluation, tmp_path / "figures" / "roc.png")
    width, height = size_of(tmp_path / "figures" / "roc.png")
    assert width > height > 600


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("threshold", [{}, {"threshold": 0.5}])
def test_scores_are_drawn_with_and_without_a_threshold(name: str, threshold: dict[str, float], tmp_path: Path) -> None:
    run = recorded(name, **threshold)
    draw_scores(run, "test", tmp_path / "figures" / "scores.png")
    width, height = size_of(tmp_path / "figures" / "scores.png")
    assert width > height > 600


def test_another_threshold_is_another_picture(tmp_path: Path) -> None:
    run = recorded("good")
    values = json.loads((run.folder / "evaluation.json").read_text())
    for threshold in (0.3, 0.6):
        write_json(run.folder / "evaluation.json", {"test": {**values["test"], "threshold": threshold}})
        draw_scores(run, "test", tmp_path / f"{threshold}.png")
    assert (tmp_path / "0.3.png").read_bytes() != (tmp_path / "0.6.png").read_bytes()
