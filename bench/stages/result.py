"""What training came to: predictions of every split that was held out, their evaluation, and the weights."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch

from bench.environment import peak_memory_gb
from bench.errors import PluginError
from bench.files import write_json
from bench.stages import checkpoint
from bench.stages.batches import hold
from bench.stages.evaluate import Predictions, evaluate, predict, tracked
from bench.stages.model import forward_of
from bench.stages.setup import make_batches
from bench.stages.verification import at_threshold, best_threshold, cross_fitted, evaluate_pairs

if TYPE_CHECKING:
    from bench.record import Run
    from bench.stages.data import Data
    from bench.stages.state import Outcome
    from bench.stages.train import Trainer

__all__ = ["judged", "write_result"]

#: Split -> the prefix of its metrics.
_PREFIXES = {"validation": "val", "test": "test"}


def write_result(run: Run, trainer: Trainer, data: Data, outcome: Outcome) -> dict[str, float]:
    """Write predictions, evaluation.json and model.safetensors into the run's folder; returns the final metrics.

    The test split is read here, once, and nowhere else. The threshold for pairs is chosen on the validation pairs, or
    on the training pairs where there are none, and kept with the weights. Metrics that are no number, such as the
    AUROC of a single class, are left out.
    """
    threshold, judgements = judged(trainer, data)
    model = trainer.model
    evaluation: dict[str, Any] = {}
    metrics: dict[str, float] = {
        "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
        "epochs": float(outcome.epochs),
        "best_epoch": float(outcome.best_epoch),
        "train_seconds": outcome.seconds,
        "images_per_second": outcome.images_per_second,
        "fit_seconds": trainer.fit_seconds,
        "peak_memory_gb": peak_memory_gb(trainer.plan.device),
    }
    if threshold is not None:
        metrics["threshold"] = threshold
    if "test" in data.splits:  # a search's trials have none, and no time for this either
        metrics |= _macs(model, data)
    for split, predictions in judgements.items():
        predictions.save(run.folder / "predictions" / f"{split}.npz")
        values = evaluation[split] = _evaluate(predictions, data)
        if threshold is not None:
            values["threshold"] = threshold
        low, high = values["accuracy_interval"]
        metrics |= tracked(_PREFIXES[split], {**values["metrics"], "accuracy_low": low, "accuracy_high": high})
        for name, (lowest, highest) in values.get("intervals", {}).items():
            metrics |= tracked(_PREFIXES[split], {f"{name}_low": lowest, f"{name}_high": highest})
    write_json(run.folder / "evaluation.json", evaluation)
    kept = {} if threshold is None else {"threshold": threshold}
    checkpoint.save(run.folder / "model.safetensors", model.state_dict(), {"run": run.name, **kept})
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _macs(model: torch.nn.Module, data: Data) -> dict[str, float]:
    """The multiply-accumulates of one image or pair; nothing where a pass over plain images does not tell."""
    from bench.stages.layers import examine

    try:
        return {"macs": float(examine(copy.deepcopy(model).cpu(), data.spec).totals()["macs"])}
    except PluginError:
        return {}


def judged(trainer: Trainer, data: Data) -> tuple[float | None, dict[str, Predictions]]:
    """The threshold for pairs, and the predictions of each held-out split; every process of a team computes a part."""
    trainer.model.eval()
    held = hold(data, torch.device(trainer.plan.device))
    threshold = _threshold(trainer, data, held) if data.spec.task == "verification" else None
    splits = (name for name in _PREFIXES if name in data.splits)
    return threshold, {split: _judged(trainer, data, split, held, threshold) for split in splits}


def _predicted(trainer: Trainer, data: Data, split: str, held: dict[int, torch.Tensor]) -> Predictions:
    """The whole model on a split, without augmentation."""
    return predict(
        forward_of(trainer.model, task=data.spec.task),
        make_batches(trainer.plan, data, split, held=held),
        loss=trainer.loss,
        loss_name=trainer.recipe.train.loss,
        autocast=trainer.autocast(),
        team=trainer.team,
    )


def _threshold(trainer: Trainer, data: Data, held: dict[int, torch.Tensor]) -> float:
    given = trainer.recipe.train.threshold
    if not isinstance(given, str):
        return float(given)
    if "validation" in data.splits and trainer.validated is None:
        trainer.validated = cross_fitted(_predicted(trainer, data, "validation", held))
    chosen_on = trainer.validated or _predicted(trainer, data, "train", held)
    return best_threshold(chosen_on.probabilities[:, 1], chosen_on.labels)


def _judged(
    trainer: Trainer, data: Data, split: str, held: dict[int, torch.Tensor], threshold: float | None
) -> Predictions:
    """Predictions of a split; those of the validation split are known where this process has trained."""
    if split == "validation":
        known = trainer.validated or _predicted(trainer, data, split, held)
        if threshold is not None and isinstance(trainer.recipe.train.threshold, str):
            return cross_fitted(known)  # the threshold was chosen on these very pairs
        return known if threshold is None else at_threshold(known, threshold)
    predictions = _predicted(trainer, data, split, held)
    return predictions if threshold is None else at_threshold(predictions, threshold)


def _evaluate(predictions: Predictions, data: Data) -> dict[str, Any]:
    if data.spec.task == "verification":
        return evaluate_pairs(predictions, data.spec.classes)
    return evaluate(predictions, data.spec.classes)
