"""Studies as searches leave them behind: real ones in memory or in sqlite, with recorded runs of their trials."""

from __future__ import annotations

import math
import random
import secrets
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from bench import record

RECIPE = """\
# what people write stays
experiment = "toy"
seeds = [7]

[dataset]
name = "digits"

[data]
size = 8

[model]
name = "mlp"

[train]
epochs = 6
batch_size = 256

[search]
trials = 20
seeds = [0, 1]
metrics = ["val_accuracy", "size_mb"]

[search.space]
"optimizer.lr" = {float = [1e-4, 1e-1], log = true}
"data.size" = {int = [8, 16]}
"optimizer.name" = {choice = ["adamw", "sgd"]}
"""

_SPACE = {
    "optimizer.lr": {"float": [1e-4, 1e-1], "log": True},
    "data.size": {"int": [8, 16]},
    "optimizer.name": {"choice": ["adamw", "sgd"]},
}
_DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True),
    "data.size": IntDistribution(8, 16),
    "optimizer.name": CategoricalDistribution(["adamw", "sgd"]),
}
_DIRECTIONS = {"val_accuracy": "maximize"}
_START = datetime(2026, 11, 26, 4, 0, 0)  # noqa: DTZ001  # naive, as Optuna's times


class Builder:
    """Makes a study of these objectives and adds trials, as the parts of a search do."""

    def __init__(
        self, metrics: Sequence[str] = ("val_accuracy",), *, storage: str | None = None, name: str = "toy"
    ) -> None:
        directions = [_DIRECTIONS.get(metric, "minimize") for metric in metrics]
        self.study = optuna.create_study(study_name=name, storage=storage, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.study.set_metric_names(list(metrics))
        self.identity = secrets.token_hex(8)
        facts = {"id": self.identity, "group": "20261126-040000-ab12", "space": _SPACE, "experiment": "toy"}
        facts |= {"metrics": [{"metric": m, "direction": d} for m, d in zip(metrics, directions, strict=True)]}
        for key, value in facts.items():
            self.study.set_user_attr(key, value)

    def add(self, *values: float, state: str = "COMPLETE", epochs: int = 0, right: Sequence[bool] = (),
            constraints: dict[str, float] | None = None, params: dict[str, Any] | None = None, retry_of: int | None = None, **attrs: Any) -> int:  # fmt: skip
        """One trial; with `epochs` it has a run, with `right` validation predictions. Returns its number."""
        number = len(self.study.trials)
        params = params or {"optimizer.lr": 1e-3, "data.size": 8, "optimizer.name": "adamw"}
        if epochs:
            attrs["run"] = self._record(number, params, epochs, right, values, state).name
        several = len(self.study.directions) > 1
        curve = {epoch: 0.9 - 0.5 / epoch for epoch in range(1, epochs + 1)}
        if several and curve:
            attrs["curve"] = {str(epoch): value for epoch, value in curve.items()}
        done = state in {"COMPLETE", "PRUNED", "FAIL"}
        trial = create_trial(
            state=TrialState[state],
            values=list(values) if state == "COMPLETE" else None,
            params=params if state != "WAITING" else {},
            distributions={key: _DISTRIBUTIONS[key] for key in params} if state != "WAITING" else {},
            user_attrs=attrs,
            intermediate_values={} if several else curve,
            system_attrs={} if retry_of is None else {"retry_history": [retry_of]},
            constraints=constraints,
        )
        trial.datetime_start = _START + timedelta(minutes=number) if state != "WAITING" else None
        trial.datetime_complete = _START + timedelta(minutes=number, seconds=40 + number) if done else None
        self.study.add_trial(trial)
        return number

    def _record(self, number: int, params: dict[str, Any], epochs: int, right: Sequence[bool],
                values: Sequence[float], state: str) -> record.Run:  # fmt: skip
        from bench.recipe import changed, parse

        recipe = changed(parse(RECIPE, path=Path("toy.toml")), params)
        run = record.create(
            "toy", group="20261126-040000-ab12", seed=7, trial=number, recipe_text=recipe.text,
            plan={"epochs": 6, "image_size": [8, 8]}, recipe="toy.toml", recipe_digest=recipe.digest,
            objective="val_accuracy", study="toy", parent=self.identity, params=params,
        )  # fmt: skip
        for epoch in range(1, epochs + 1):
            run.log_epoch(epoch, {"train_loss": 1 / epoch, "val_accuracy": 0.9 - 0.5 / epoch})
        if right:
            (run.folder / "predictions").mkdir()
            guesses = np.where(np.array(right), 1, 0)
            np.savez_compressed(
                run.folder / "predictions" / "validation.npz",
                ids=np.array([f"image {place}" for place in range(len(right))]),
                labels=np.ones(len(right), dtype=np.int64),
                guesses=guesses,
            )
        ended = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}[state]
        metrics = {"val_accuracy": values[0], "val_loss": 1 - values[0]} if values else {}
        if ended != "running":
            run.finish(ended, metrics=metrics)
        return run

    def fill(self, count: int, *, seed: int = 0, records: bool = False) -> None:
        """Trials as a search of a real space gives them: accuracy by learning rate and size, some pruned or infeasible."""
        draw = random.Random(seed)
        several = len(self.study.directions) > 1
        for number in range(count):
            lr, size = 10 ** draw.uniform(-4, -1), draw.randint(8, 16)
            accuracy = 0.99 - 0.06 * (math.log10(lr) + 2.5) ** 2 - 0.3 / size**1.5 - 0.005 * draw.random()
            params = {"optimizer.lr": lr, "data.size": size, "optimizer.name": draw.choice(["adamw", "sgd"])}
            values = (accuracy, 0.002 * size**3 * (0.9 + 0.2 * draw.random()))[: 2 if several else 1]
            epochs = draw.randint(1, 4) if number % 5 == 4 else 6
            limits = {"latency_ms <= 5": (size - 15) / 2} if number % 7 else None
            right = [draw.random() < accuracy for _ in range(200)] if records and epochs == 6 else []
            self.add(*values, state="PRUNED" if epochs < 6 else "COMPLETE", epochs=epochs if records else 0,
                     right=right, params=params, constraints=limits)  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def new_study() -> Callable[..., Builder]:
    """Builder(metrics, storage=..., name=...)."""
    return Builder
