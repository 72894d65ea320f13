"""Recorded runs with answers of any accuracy, made in no time."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import record
from bench.recipe import digest_of
from bench.record import Run
from bench.statistics import wilson_interval

RECIPE = '# A toy. The report reached 70.5 %.\n[dataset]\nname = "digits"\n\n[model]\nname = "{model}"\n'


@dataclass
class Runs:
    """Records runs below BENCH_RUNS, each later than the one before."""

    count: int = 0

    def right(self, number: int, *, of: int = 100, shift: int = 0) -> list[bool]:
        """Which of the images are right: a row of `number`, from `shift` on."""
        return [(index - shift) % of < number for index in range(of)]

    def add(
        self,
        recipe: str,
        right: Sequence[bool],
        *,
        text: str | None = None,
        group: str | None = None,
        seed: int = 0,
        fold: int | None = None,
        trial: int | None = None,
        status: str = "finished",
        experiment: str = "pets",
        dataset: str = "digits",
        root: str = "/data/digits",
        prefix: str = "test",
        val_accuracy: float | None = None,
        val_loss: float | None = None,
        objective: str = "val_accuracy",
        changes: Sequence[str] = (),
        host: str = "a-host-of-ours",
        keep_predictions: bool = True,
    ) -> Run:
        """One run; its images are called PREFIX/NUMBER."""
        self.count += 1
        text = RECIPE.format(model=recipe.removesuffix(".toml")) if text is None else text
        metrics: dict[str, Any] = {"parameters": 1234.0, "train_seconds": 75.0, "test_macro_f1": 0.5, "test_auroc": 0.6}
        metrics |= {"val_accuracy": val_accuracy} if val_accuracy is not None else {}
        metrics |= {"val_loss": val_loss} if val_loss is not None else {}
        metrics |= {"test_accuracy": sum(right) / len(right)}
        metrics |= dict(
            zip(("test_accuracy_low", "test_accuracy_high"), wilson_interval(sum(right), len(right)), strict=True)
        )
        run = record.create(
            experiment,
            group=group or f"20261126-{self.count:06}-aaaa",
            seed=seed,
            fold=fold,
            trial=trial,
            recipe_text=text,
            plan={},
            recipe=f"/elsewhere/recipes/{recipe}",
            recipe_digest=digest_of(tomllib.loads(text)),
            objective=objective,
            dataset={"name": dataset, "root": root, "fingerprint": prefix * 8, "counts": {"test": {"cat": len(right)}}},
            environment={
                "argv": ["bench", "run", recipe, *(word for change in changes for word in ("--set", change))],
                "versions": {"visionbench": "0.1.0", "torch": "2.14.1", "numpy": "2.4.6"},
                "machine": {"cpu": "Intel(R) Xeon(R) Processor", "cores": 2, "gpu": ""},
                "host": host,
            },
        )
        if status == "running":
            run.update(process={**record.this_process(), "id": 2**22 + 1})
            return run
        if keep_predictions and status == "finished":
            self.save(run, right, prefix=prefix)
        run.finish(status, **({"metrics": metrics} if status == "finished" else {}))
        return run

    def save(self, run: Run, right: Sequence[bool], *, prefix: str = "test") -> None:
        """predictions/test.npz, with the images in an order of the run's own."""
        order = np.random.default_rng(len(run.name)).permutation(len(right))
        labels = np.arange(len(right)) % 2
        guesses = np.where(np.array(right), labels, 1 - labels)
        ids = np.array([f"{prefix}/{index:04}" for index in range(len(right))])
        folder = run.folder / "predictions"
        folder.mkdir(exist_ok=True)
        probabilities = np.eye(2, dtype=np.float32)[guesses]
        np.savez(
            folder / "test.npz",
            ids=ids[order],
            labels=labels[order],
            guesses=guesses[order],
            probabilities=probabilities[order],
        )


@pytest.fixture
def runs() -> Runs:
    """An empty folder of runs."""
    return Runs()


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """A folder with three recipes and a page with the marks."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name in ("big", "small", "tiny"):
        (folder / f"{name}.toml").write_text(RECIPE.format(model=name))
    (folder / "README.md").write_text(
        "# Recipes\n\n<!-- leaderboard: begin -->\n<!-- leaderboard: end -->\n\nThe end.\n"
    )
    return folder
