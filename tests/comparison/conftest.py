"""Recorded runs without any training: what `bench run` leaves behind, as far as a comparison reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import record
from bench.record import Run
from bench.statistics import wilson_interval

Recorder = Callable[..., Run]

RECIPE = """
experiment = "toys"
[model]
name = "linear"
[optimizer]
name = "adamw"
lr = {lr}
"""


def labels_of(count: int) -> NDArray[np.int64]:
    return np.arange(count, dtype=np.int64) % 3


def save(run: Run, split: str, right: NDArray[np.bool_], ids: Sequence[str], labels: NDArray[np.int64]) -> None:
    """Predictions as `bench run` saves them."""
    path = run.folder / "predictions" / f"{split}.npz"
    path.parent.mkdir(exist_ok=True)
    guesses = np.where(right, labels, (labels + 1) % 3)
    probabilities = np.eye(3, dtype=np.float32)[guesses]
    np.savez_compressed(path, ids=np.array(ids), labels=labels, guesses=guesses, probabilities=probabilities)


@pytest.fixture
def recorded() -> Recorder:
    """Makes a finished run whose answers are right as given, N; `split` also names the prefix of its metrics."""

    def make(
        right: Sequence[bool] | NDArray[np.bool_],
        *,
        group: str = "20261126-100000-aaaa",
        experiment: str = "toys",
        seed: int = 0,
        fold: int | None = None,
        trial: int | None = None,
        recipe: str = "recipes/toy.toml",
        text: str = RECIPE.format(lr=0.001),
        dataset: str = "digits",
        fingerprint: str = "f" * 64,
        ids: Sequence[str] | None = None,
        labels: NDArray[np.int64] | None = None,
        metrics: dict[str, Any] | None = None,
        split: str = "test",
        **info: Any,
    ) -> Run:
        answers = np.asarray(right, bool)
        run = record.create(
            experiment,
            group=group,
            seed=seed,
            fold=fold,
            trial=trial,
            recipe_text=text,
            plan={},
            recipe=recipe,
            dataset={"name": dataset, "fingerprint": fingerprint},
            **info,
        )
        save(
            run,
            split,
            answers,
            [f"image{n:05}" for n in range(len(answers))] if ids is None else ids,
            labels_of(len(answers)) if labels is None else labels,
        )
        prefix = {"test": "test", "validation": "val"}[split]
        low, high = wilson_interval(int(answers.sum()), len(answers))
        own = {"accuracy": float(answers.mean()), "accuracy_low": low, "accuracy_high": high, "macro_f1": 0.5}
        run.finish(
            "finished",
            metrics={
                "parameters": 100.0,
                "train_seconds": 3.0,
                "images_per_second": 50.0,
                **{f"{prefix}_{name}": value for name, value in own.items()},
                **(metrics or {}),
            },
        )
        return run

    return make


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(3)
