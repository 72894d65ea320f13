"""A file that is not ours: what it lacks is taken from the command line, or said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bench.errors import BenchError, RecipeError
from bench_export.card import Card, Preprocessing
from bench_export.prediction.foreign_options import (
    KEYS,
    as_size,
    by_channel,
    parse_labels,
    parse_preprocess,
    wrong_values,
)
from bench_export.prediction.numpy_steps import normalise, to_probabilities
from bench_export.predictor import Predictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench_export.session import Session

__all__ = ["ForeignPredictor", "describe_foreign"]

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


@dataclass(frozen=True, slots=True)
class ForeignPredictor(Predictor):
    """Feeds a file as the command line says: `layout` and `order` of its input, its number type, its fixed batch."""

    layout: str = "nchw"
    order: str = "rgb"
    scale: float = 255.0
    output: str = "logits"
    number_type: Any = np.float32
    fixed_batch: int | None = None

    def run(self, *batches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 N,h,w,C -> probabilities N,K. Raises BenchError where the file answers in another shape."""
        [batch] = batches
        inputs = self._inputs(batch)
        size = self.fixed_batch or len(inputs)
        parts = [self._run_batch(inputs[start : start + size], size) for start in range(0, len(inputs), size)]
        outputs = np.concatenate(parts).astype(np.float32)
        if self.output == "logits" or outputs.shape[1] == 1:
            loss = self.card.loss if self.output == "logits" else ""
            outputs = to_probabilities(outputs, loss) if loss else np.concatenate([1 - outputs, outputs], axis=1)
        if outputs.shape[1] != len(self.classes):
            raise RecipeError(
                f"{self.session.path}: {outputs.shape[1]} classes, but --labels names {len(self.classes)}"
            )
        return outputs

    def _inputs(self, batch: NDArray[np.uint8]) -> NDArray[Any]:
        pixels = batch[..., ::-1] if self.order == "bgr" else batch
        if self.number_type is np.uint8:
            values: NDArray[Any] = pixels.transpose(0, 3, 1, 2)
        else:
            values = normalise(pixels, self.card.preprocessing, scale=self.scale).astype(self.number_type)
        return np.ascontiguousarray(values.transpose(0, 2, 3, 1) if self.layout == "nhwc" else values)

    def _run_batch(self, inputs: NDArray[Any], size: int) -> NDArray[Any]:
        """At most `size` rows, filled up with zeros where the file takes no fewer."""
        missing = size - len(inputs)
        filled = np.concatenate([inputs, np.zeros((missing, *inputs.shape[1:]), inputs.dtype)]) if missing else inputs
        try:
            outputs = np.asarray(self.session.run(filled)[0])
        except Exception as cause:  # onnxruntime's own classes share no base but Exception
            text = " ".join(str(cause).split())
            raise BenchError(
                f"{self.session.path}: it does not take {filled.dtype} {filled.shape}: {text[:200]}"
            ) from cause
        outputs = outputs.reshape(len(filled), -1) if outputs.size % len(filled) == 0 else outputs
        if outputs.ndim != 2:  # noqa: PLR2004
            raise BenchError(f"{self.session.path}: outputs of shape {outputs.shape} are no scores of {size} images")
        return outputs[: len(inputs)]


def describe_foreign(session: Session, *, labels: str | None, preprocess: str | None) -> ForeignPredictor:
    """A predictor from --labels (a file of one name a line, or names) and --preprocess (a TOML file, or key=value ...).

    Raises RecipeError with everything that is missing or wrong, and an example that fits the file.
    """
    values = parse_preprocess(preprocess) if preprocess else {}
    known = _from_file(session)
    problems = wrong_values(values)
    names = parse_labels(labels) if labels else ()
    merged = {**known, **values}
    problems += [f"--preprocess {key}=...: {KEYS[key]}" for key in _missing(merged)]
    if not names:
        problems.insert(0, "--labels: the class names in the order of its outputs, a,b,c or a file of one name a line")
    if problems:
        raise RecipeError(
            f"{session.path} is no file of bench export, so it does not say what it needs; to use it, give",
            problems=problems,
            hint=f"for example: {_example(session, known, values)}",
        )
    return _build(session, names, merged)


def _build(session: Session, names: tuple[str, ...], values: Mapping[str, Any]) -> ForeignPredictor:
    channels: Literal[1, 3] = 1 if int(values["channels"]) == 1 else 3
    mean, std = (by_channel(values.get(key, default), channels, key) for key, default in (("mean", 0), ("std", 1)))
    size = as_size(values["size"])
    preprocessing = Preprocessing(
        size=size, channels=channels, resize=values.get("resize", "squash"), filter=values.get("filter", "bilinear"),
        mean=mean, std=std, in_graph=False,
    )  # fmt: skip
    width = values.get("outputs")
    if width not in {None, len(names)} and not (width == 1 and len(names) == 2):  # noqa: PLR2004
        raise RecipeError(f"{session.path} has {width} outputs, but --labels names {len(names)} classes")
    card = Card("classification", names, preprocessing, loss="bce" if width == 1 else "cross_entropy")
    return ForeignPredictor(
        session, card, layout=values["layout"], order=values.get("order", "rgb"),
        scale=float(values.get("scale", 255)), output=values["output"], number_type=values["number_type"],
        fixed_batch=values.get("batch"),
    )  # fmt: skip


def _from_file(session: Session) -> dict[str, Any]:
    """What the shapes of its input and output say."""
    inputs, outputs = session.inference.get_inputs(), session.inference.get_outputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _TYPES:  # noqa: PLR2004
        shown = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        raise BenchError(f"{session.path}: no model of single images: its inputs are {shown}")
    batch, *rest = inputs[0].shape
    known: dict[str, Any] = {"number_type": _TYPES[inputs[0].type]}
    if rest[0] in {1, 3}:
        known |= {"layout": "nchw", "channels": rest[0]}
        sides = rest[1:]
    else:
        sides = rest[:2]
        if rest[2] in {1, 3}:
            known |= {"layout": "nhwc", "channels": rest[2]}
    if "layout" in known and all(isinstance(side, int) for side in sides):
        known["size"] = list(sides)
    if isinstance(batch, int):
        known["batch"] = batch
    last = outputs[0].shape[-1] if outputs[0].shape else None
    if isinstance(last, int) and len(outputs[0].shape) == 2:  # noqa: PLR2004
        known["outputs"] = last
    return known


def _missing(values: Mapping[str, Any]) -> list[str]:
    needed = ["size", "channels", "layout", "mean", "std", "output"]
    if values["number_type"] is np.uint8:  # it normalises by itself
        needed = ["size", "channels", "layout", "output"]
    return [key for key in needed if key not in values]


def _example(session: Session, known: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """A command line that would do, with what was given and what the file says."""
    grey = known.get("channels", given.get("channels", 3)) in {1, "1"}
    usual = {
        **({} if "size" in known else {"size": "224"}),
        "resize": "crop",
        "mean": "0.5" if grey else "0.485,0.456,0.406",
        "std": "0.5" if grey else "0.229,0.224,0.225",
        **({} if "layout" in known else {"channels": "3", "layout": "nchw"}),
        "output": "logits",
    }
    good = {key: value for key, value in given.items() if isinstance(value, str) and not wrong_values({key: value})}
    shown = " ".join(f"{key}={value}" for key, value in {**usual, **good}.items())
    return f'bench predict {session.path} IMAGE --labels labels.txt --preprocess "{shown}"'
