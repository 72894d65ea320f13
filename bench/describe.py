"""`bench describe`: a model's layers with shapes, parameters and MACs, without weights and without decoding an image."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, DataError, RecipeError
from bench.kinds import PAIR_CLASSES, DataSpec
from bench.words import shorten

if TYPE_CHECKING:
    from bench.recipe import Recipe
    from bench.stages.layers import Layer, ModelTable

__all__ = ["data_spec", "describe", "model_table"]

_NARROWEST = 60
_WIDEST = 120
_NARROWEST_NAME = 12
_WIDEST_KIND = 18


def describe(recipe: Recipe, *, as_json: bool, num_classes: int | None = None, pairs: bool = False) -> None:
    """Print the table of a recipe's model. `num_classes` and `pairs` stand in for the dataset, which is not opened."""
    spec = data_spec(recipe, num_classes=num_classes, pairs=pairs)
    table = model_table(recipe, spec)
    if as_json:
        from bench.console import print_json

        print_json(_as_json(recipe, spec, table))
    else:
        _print(recipe, spec, table)


def data_spec(recipe: Recipe, *, num_classes: int | None = None, pairs: bool = False) -> DataSpec:
    """What the recipe's model is built for, from the dataset plugin; no image is decoded.

    With `num_classes` (or `pairs`, for verification) the dataset is not touched. Raises DataError where it is missing,
    RecipeError for fewer than two classes.
    """
    image_size = recipe.data.image_size
    channels = recipe.data.channels
    if pairs:
        return DataSpec("verification", PAIR_CLASSES, 3 if channels == "auto" else channels, image_size)
    if num_classes is not None:
        if num_classes < 2:  # noqa: PLR2004  # classes to tell apart
            raise RecipeError(f"--classes {num_classes}: at least 2 are needed")
        names = tuple(f"class {number}" for number in range(num_classes))
        return DataSpec("classification", names, 3 if channels == "auto" else channels, image_size)
    from bench.exploration.opening import open_recipe

    try:
        dataset, _ = open_recipe(recipe)
    except BenchError as cause:
        remedy = "without the data: --classes 10, or --pairs for a model of two images"
        hint = f"{cause.hint}; {remedy}" if cause.hint else remedy
        raise DataError(f"the model's classes are the dataset's: {cause}", hint=hint) from cause
    return DataSpec(
        dataset.task,
        tuple(dataset.classes),
        dataset.channels if channels == "auto" else channels,
        image_size,
    )


def model_table(recipe: Recipe, spec: DataSpec) -> ModelTable:
    """Build the recipe's model without its weights, freeze its parts and look at its layers."""
    from bench.stages.layers import examine
    from bench.stages.model import build, freeze

    chosen = recipe.model
    if "pretrained" in chosen.options:  # the weights change no shape, and fetching them may need the network
        chosen = replace(chosen, options={**chosen.options, "pretrained": False})
    model = build(chosen, spec)
    freeze(model, recipe.freeze)
    return examine(model, spec)


def _as_json(recipe: Recipe, spec: DataSpec, table: ModelTable) -> dict[str, Any]:
    return {
        "recipe": str(recipe.path),
        "model": recipe.model.name,
        "spec": asdict(spec),
        "kind": table.kind,
        "macs_per": table.unit,
        "inputs": [list(shape) for shape in table.inputs],
        "layers": [asdict(layer) for layer in table.layers],
        "totals": table.totals(),
    }


def _print(recipe: Recipe, spec: DataSpec, table: ModelTable) -> None:
    from rich.text import Text

    from bench.console import print_table

    inputs = " and ".join(_shape(shape) for shape in table.inputs)
    answer = "same or different" if spec.task == "verification" else f"{spec.num_classes} classes"
    print_table((f"{recipe.model.name}: {inputs} -> {answer}",), [])
    rows = [_row(layer) for layer in table.layers]
    heads: tuple[str, ...] = ("layer", "kind", "output", "parameters", "MACs", "")
    if not any(row[-1] for row in rows):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    columns = min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST)
    others = sum(max(len(head), *(len(row[index]) for row in rows)) + 2 for index, head in enumerate(heads) if index)
    width = max(columns - others - 2, _NARROWEST_NAME)
    named = [(Text(shorten(row[0], width, head=1 / 3)), *map(Text, row[1:])) for row in rows]
    print_table(heads, named, right=(3, 4))
    print_table(("", ""), [tuple(map(Text, row)) for row in _totals(table)], right=(1,))


def _row(layer: Layer) -> tuple[str, ...]:
    notes = [f"x{layer.calls}"] if layer.calls > 1 else ["not called"] if not layer.calls else []
    if layer.frozen:
        notes.append("frozen" if layer.frozen == layer.parameters else "part frozen")
    output = "" if layer.output is None else _shape(layer.output)
    parameters = f"{layer.parameters:,}" if layer.parameters else ""
    return (
        layer.name,
        shorten(layer.kind, _WIDEST_KIND, head=1 / 3),
        output,
        parameters,
        _count(layer.macs),
        " ".join(notes),
    )


def _totals(table: ModelTable) -> Sequence[tuple[str, str]]:
    totals = table.totals()
    rows = [
        ("parameters", f"{totals['parameters']:,}"),
        ("  trained", f"{totals['trained']:,}"),
        ("  not trained (frozen)", f"{totals['frozen']:,}"),
        ("buffers", f"{totals['buffers']:,}"),
        (f"MACs per {table.unit}", f"{totals['macs']:,}"),
    ]
    sizes = (("input", "input"), ("activations", "activations forward"), ("parameters", "parameters and buffers"))
    rows += [(f"{name}, fp32", f"{totals[f'{key}_mb']:,.2f} MB") for key, name in sizes]
    return [*rows, (f"together, one {table.unit}", f"{totals['total_mb']:,.2f} MB")]


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "1"


def _count(value: int) -> str:
    """Three digits with a unit: 12.3 M."""
    if not value:
        return ""
    power = min(int(math.log10(value) / 3), 4)
    return f"{value:,}" if not power else f"{value / 1000**power:.3g} {' kMGT'[power]}"
