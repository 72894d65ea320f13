"""A recipe's dataset as its plugin returns it, without looking at an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.kinds import Dataset
    from bench.recipe import Recipe

__all__ = ["open_recipe"]


def open_recipe(recipe: Recipe) -> tuple[Dataset, Path]:
    """The dataset that a recipe names, and its root. Raises DataError where it is missing or unusable."""
    from bench import environment
    from bench.plan import draft
    from bench.registry import find
    from bench.stages.dataset import open_dataset
    from bench.tables import Compute

    anywhere = replace(
        recipe, compute=Compute.model_validate({})
    )  # the hardware that the recipe trains on need not be here
    root = Path(draft(anywhere, environment.detect()).dataset_root)
    return open_dataset(find("datasets", recipe.dataset.name).load(), root, recipe.dataset.options), root
