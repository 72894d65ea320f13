"""A recorded run's trained model, as it answered when it was evaluated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bench.errors import BenchError
from bench.kinds import DataSpec
from bench.plan import Plan, from_json
from bench.recipe import Chosen, Recipe, parse
from bench.stages import checkpoint
from bench.stages.batches import Preprocessing
from bench.stages.model import build, forward_of
from bench.stages.optim import probabilities

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Restored", "restore"]


@dataclass(frozen=True, slots=True)
class Restored:
    """A trained model in evaluation mode on the CPU, with the recipe and the plan that made it.

    `threshold` is the score from which on a pair is the same; None for classes.
    """

    recipe: Recipe
    plan: Plan
    spec: DataSpec
    model: torch.nn.Module
    threshold: float | None

    @torch.inference_mode()
    def predict(self, *batches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 N,H,W,C of the run's size (of pairs two of these) -> probabilities N,num_classes, in fp32."""
        preprocessing = Preprocessing(self.plan.mean or (), self.plan.std or (), torch.contiguous_format)
        pixels = preprocessing.scale(torch.cat([torch.from_numpy(batch.copy()) for batch in batches]))
        outputs = forward_of(self.model, task=self.spec.task)(preprocessing.normalise(pixels))
        return probabilities(outputs, self.recipe.train.loss).numpy()


def restore(folder: Path) -> Restored:
    """The model of a run's folder, from recipe.toml, plan.json and model.safetensors.

    Raises BenchError where the folder has no finished model.
    """
    path, weights = folder / "recipe.toml", folder / "model.safetensors"
    if not weights.is_file():
        raise BenchError(f"{folder}: no model.safetensors, so no finished model", hint="bench run RECIPE --resume")
    recipe = parse(path.read_text(encoding="utf-8"), path=path)
    plan = from_json(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
    spec = DataSpec(plan.task, plan.classes or (), plan.channels or 3, plan.image_size)
    options = {name: False if name == "pretrained" else value for name, value in recipe.model.options.items()}
    model = build(Chosen(recipe.model.name, options), spec).eval()
    tensors, state = checkpoint.load(weights)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as cause:
        raise BenchError(f"{weights}: does not fit the recipe's model: {str(cause)[:300]}") from cause
    return Restored(recipe, plan, spec, model.eval(), state.get("threshold"))
