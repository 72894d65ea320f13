"""What an exported file says of itself: the card, kept in the ONNX file's metadata as one JSON value a field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from bench.errors import BenchError
from bench.images import FILTERS, Decoding
from bench.kinds import Task
from bench_export.metadata import read_properties, write_properties

__all__ = ["PREFIX", "SCHEMA", "Card", "Precision", "Preprocessing", "read_card", "write_card"]

#: The version of the fields below.
SCHEMA = 1

#: What the names of our metadata begin with.
PREFIX = "visionbench."

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From an upright 8-bit image to the model's input: resized to `size` (height, width), over 255, minus mean, over std.

    `resize` and `filter` are the recipe's policy and resampling filter. `in_graph` says whether the file does it itself
    (then it takes uint8 N,H,W,C of any size) or expects the result, float32 N,C,height,width.
    """

    size: tuple[int, int]
    channels: Literal[1, 3]
    resize: Literal["squash", "crop", "pad"]
    filter: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_megapixels: float = 100.0
    in_graph: bool = True

    def decoding(self) -> Decoding:
        """How a file is decoded for this model."""
        return Decoding(self.size, self.channels, self.resize, self.filter, self.max_megapixels)


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of an exported model.

    `threshold` is the score from which on a pair is the same, None for classes. `metrics` are the run's, `gate` the
    report of the comparison with the trained model, `tuning` the session options that `bench latency --tune` found.
    """

    task: Task
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    precision: Precision = "fp32"
    loss: str = "cross_entropy"
    threshold: float | None = None
    experiment: str = ""
    run: str = ""
    run_id: str = ""
    seed: int = 0
    objective: str = ""
    recipe: str = ""
    recipe_digest: str = ""
    dataset: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    git: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[Mapping[str, Any], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    exporter: Mapping[str, Any] = field(default_factory=dict)
    quantisation: Mapping[str, Any] | None = None
    gate: Mapping[str, Any] | None = None
    tuning: Mapping[str, Any] | None = None
    created: str = ""

    def properties(self) -> dict[str, str]:
        """The metadata of a file: visionbench.FIELD -> JSON."""
        values = {name: json.dumps(value, ensure_ascii=False) for name, value in asdict(self).items()}
        return {f"{PREFIX}schema": str(SCHEMA), **{f"{PREFIX}{name}": text for name, text in values.items()}}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> Card | None:
        """The card in a file's metadata; None where the file is not ours.

        Raises BenchError where a newer version has written it, or where it is damaged.
        """
        if f"{PREFIX}schema" not in properties:
            return None
        try:
            schema = int(properties[f"{PREFIX}schema"])
            if schema > SCHEMA:
                raise BenchError(
                    f"its metadata are of version {schema}, and this visionbench knows {SCHEMA}",
                    hint="pip install -U visionbench",
                )
            known = {item.name for item in fields(cls)}
            values = {
                name.removeprefix(PREFIX): json.loads(text)
                for name, text in properties.items()
                if name.startswith(PREFIX) and name.removeprefix(PREFIX) in known
            }
            values["preprocessing"] = Preprocessing(**_with_tuples(values["preprocessing"]))
            card = cls(**_with_tuples(values))
            if wrong := [*_wrong_fields(card), *_wrong_preprocessing(card.preprocessing)]:
                raise ValueError(", ".join(wrong))  # noqa: TRY301  # told as any other damage
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as cause:
            raise BenchError(f"its metadata are damaged: {cause!r}", hint="export it again") from cause
        return card


def read_card(path: Path) -> Card | None:
    """A file's card; None where it is not ours. Raises BenchError where it is damaged or no ONNX model."""
    try:
        return Card.from_properties(read_properties(path))
    except BenchError as error:
        raise BenchError(str(error) if str(path) in str(error) else f"{path}: {error}", hint=error.hint) from error


def write_card(path: Path, card: Card) -> None:
    """Replace a file's metadata of ours; everything else stays, and the file is replaced whole or not at all."""
    kept = {key: value for key, value in read_properties(path).items() if not key.startswith(PREFIX)}
    write_properties(path, {**kept, **card.properties()})


def _wrong_fields(card: Card) -> list[str]:
    """The fields that are of another kind than a card's."""
    texts = ("loss", "experiment", "run", "run_id", "objective", "recipe", "recipe_digest", "created")
    tables = ("dataset", "metrics", "git", "versions", "exporter")
    optional = ("quantisation", "gate", "tuning")
    right = {
        "task": card.task in get_args(Task),
        "classes": _is_tuple(card.classes, str) and len(card.classes) > 0,
        "precision": card.precision in get_args(Precision),
        "threshold": card.threshold is None or _is_number(card.threshold),
        "seed": isinstance(card.seed, int),
        "plugins": _is_tuple(card.plugins, Mapping),
        **{name: isinstance(getattr(card, name), str) for name in texts},
        **{name: isinstance(getattr(card, name), Mapping) for name in tables},
        **{name: isinstance(getattr(card, name), Mapping | None) for name in optional},
    }
    return [name for name, holds in right.items() if not holds]


def _wrong_preprocessing(how: Preprocessing) -> list[str]:
    """The same of how images are prepared."""
    size: tuple[int, ...] = how.size
    right = {
        "size": _is_tuple(size, int) and len(size) == 2 and min(size) > 0,  # noqa: PLR2004
        "channels": how.channels in {1, 3},
        "resize": how.resize in {"squash", "crop", "pad"},
        "filter": how.filter in FILTERS,
        "mean": _is_tuple(how.mean, int | float) and len(how.mean) == how.channels,
        "std": _is_tuple(how.std, int | float) and len(how.std) == how.channels,
        "max_megapixels": _is_number(how.max_megapixels),
        "in_graph": isinstance(how.in_graph, bool),
    }
    return [f"preprocessing.{name}" for name, holds in right.items() if not holds]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _is_tuple(value: object, kind: Any) -> bool:
    """Whether it is a tuple of such values."""
    return isinstance(value, tuple) and all(isinstance(one, kind) for one in value)


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's arrays as the tuples that they were."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
