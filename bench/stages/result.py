"""What training came to: predictions of every split that was held out, their evaluation, and the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bench.files import write_json
from bench.stages import checkpoint
from bench.stages.batches import hold
from bench.stages.evaluate import evaluate, predict, tracked
from bench.stages.setup import make_batches

if TYPE_CHECKING:
    from bench.record import Run
    from bench.stages.data import Data
    from bench.stages.state import Outcome
    from bench.stages.train import Trainer

__all__ = ["write_result"]

#: Split -> the prefix of its metrics.
_PREFIXES = {"validation": "val", "test": "test"}


def write_result(run: Run, trainer: Trainer, data: Data, outcome: Outcome) -> dict[str, float]:
    """Write predictions, evaluation.json and model.safetensors into the run's folder; returns the final metrics.

    The test split is read here, once, and nowhere else. Metrics that are no number, such as the AUROC of a single
    class, are left out.
    """
    model = trainer.model.eval()
    held = hold(data, next(model.parameters()).device)
    evaluation: dict[str, Any] = {}
    metrics: dict[str, float] = {
        "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
        "epochs": float(outcome.epochs),
        "best_epoch": float(outcome.best_epoch),
        "train_seconds": outcome.seconds,
        "images_per_second": outcome.images_per_second,
    }
    for split in (name for name in _PREFIXES if name in data.splits):
        batches = make_batches(trainer.recipe, trainer.plan, data, split, held=held)
        known = trainer.validated if split == "validation" else None
        predictions = known or predict(
            model,
            batches,
            batches.images.labels,
            batches.images.ids,
            loss=trainer.loss,
            loss_name=trainer.recipe.train.loss,
            autocast=trainer.autocast(),
        )
        predictions.save(run.folder / "predictions" / f"{split}.npz")
        evaluation[split] = evaluate(predictions, data.spec.classes)
        low, high = evaluation[split]["accuracy_interval"]
        values = {**evaluation[split]["metrics"], "accuracy_low": low, "accuracy_high": high}
        metrics |= tracked(_PREFIXES[split], values)
    write_json(run.folder / "evaluation.json", evaluation)
    checkpoint.save(run.folder / "model.safetensors", model.state_dict(), {"run": run.name})
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
