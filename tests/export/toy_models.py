"""Small, valid ONNX files of visionbench, built node by node: what an export looks like, without training anything.

The classifier tells red, green and blue images apart by the means of their channels (grey ones by their level); the
verifier calls two images the same where these means are close. Both resize (squash, bilinear, antialiased), normalise
and answer in the graph, for any batch, height and width.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench_export import load
from bench_export.card import Card, Preprocessing, write_card
from bench_export.gate.probes import build_probes

__all__ = ["classifier", "foreign", "prove", "verifier"]

OPSET = 18


def classifier(
    path: Path,
    *,
    classes: int | Sequence[str] = 3,
    size: tuple[int, int] = (8, 8),
    channels: int = 3,
    raw: bool = False,
    resize: str = "squash",
    **card: Any,
) -> Path:
    """A model of `classes` (a number, or names); `raw` leaves pre- and postprocessing out; `card` sets its fields."""
    names = _names(classes, channels)
    preprocessing = _preprocessing(size, channels, raw=raw, resize=resize)
    nodes, constants = [], []
    if not raw:
        _prepare(nodes, constants, "images", "", preprocessing)
    weights, bias = _weights(len(names), channels)
    constants += [_constant("weights", weights), _constant("bias", bias)]
    nodes += [
        helper.make_node("ReduceMean", ["normalised", "visionbench/spatial"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["outputs"]),
    ]
    constants.append(_constant("visionbench/spatial", np.array([2, 3], np.int64)))
    if raw:
        inputs = [_floats("normalised", preprocessing)]
        outputs = [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["N", len(names)])]
    else:
        nodes.append(helper.make_node("Softmax", ["outputs"], ["probabilities"], name="visionbench/softmax", axis=1))
        inputs = [_pixels("images", channels)]
        outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(names)])]
    fields = {"task": "classification", "classes": names, "loss": "cross_entropy", "threshold": None}
    return _save(path, nodes, constants, inputs, outputs, _card(preprocessing, fields | card))


def verifier(
    path: Path,
    *,
    size: tuple[int, int] = (8, 8),
    channels: int = 3,
    threshold: float = 0.5,
    raw: bool = False,
    resize: str = "squash",
    **card: Any,
) -> Path:
    """A model of pairs: logit 4 - 8 * distance of the mean colours, score = sigmoid, same where score >= threshold."""
    preprocessing = _preprocessing(size, channels, raw=raw, resize=resize)
    nodes, constants = [], []
    for side in ("first", "second"):
        if not raw:
            _prepare(nodes, constants, side, f"_{side}", preprocessing)
        means = helper.make_node("ReduceMean", [f"normalised_{side}", "spatial"], [f"means_{side}"], keepdims=0)
        nodes.append(means)
    constants += [
        _constant("spatial", np.array([2, 3], np.int64)),
        _constant("last", np.array([1], np.int64)),
        _constant("slope", np.array(-8.0, np.float32)),
        _constant("start", np.array(4.0, np.float32)),
    ]
    nodes += [
        helper.make_node("Sub", ["means_first", "means_second"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["size"]),
        helper.make_node("ReduceMean", ["size", "last"], ["distance"], keepdims=1),
        helper.make_node("Mul", ["distance", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "start"], ["outputs"]),
    ]
    if raw:
        inputs = [_floats(f"normalised_{side}", preprocessing) for side in ("first", "second")]
        outputs = [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["N", 1])]
    else:
        constants.append(_constant("visionbench/threshold", np.array(threshold, np.float32)))
        nodes += [
            helper.make_node("Sigmoid", ["outputs"], ["visionbench/same"]),
            helper.make_node("Squeeze", ["visionbench/same", "last"], ["score"]),
            helper.make_node("GreaterOrEqual", ["score", "visionbench/threshold"], ["decision"]),
        ]
        inputs = [_pixels("first", channels, "1"), _pixels("second", channels, "2")]
        outputs = [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("decision", TensorProto.BOOL, ["N"]),
        ]
    fields = {"task": "verification", "classes": ("different", "same"), "loss": "bce", "threshold": threshold}
    return _save(path, nodes, constants, inputs, outputs, _card(preprocessing, fields | card))


def foreign(path: Path, *, classes: int = 3, size: tuple[int, int] = (8, 8), logits: bool = True) -> Path:
    """Somebody else's model: float N,3,h,w named `x` to `y` N,classes, and no word about anything else."""
    weights, bias = _weights(classes, 3)
    constants = [_constant("w", weights), _constant("b", bias), _constant("axes", np.array([2, 3], np.int64))]
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["s"]),
        helper.make_node("Add", ["s", "b"], ["y" if logits else "z"]),
    ]
    if not logits:
        nodes.append(helper.make_node("Softmax", ["z"], ["y"], axis=1))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, *size])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", classes])]
    return _save(path, nodes, constants, inputs, outputs, None)


def prove(path: Path) -> Path:
    """Give a file what the gate leaves in it, with the file itself as the trained model: `bench verify` passes."""
    predictor = load(path, device="cpu")
    card = predictor.card
    probes = build_probes(predictor.run, card.preprocessing, card.task, candidate=predictor)
    write_card(path, replace(card, gate={"passed": True, "summary": "accepted on 100 samples", "probes": probes}))
    return path


def _names(classes: int | Sequence[str], channels: int) -> tuple[str, ...]:
    if not isinstance(classes, int):
        return tuple(classes)
    if (classes, channels) == (3, 3):
        return ("red", "green", "blue")
    return tuple(f"class {number}" for number in range(classes))


def _preprocessing(size: tuple[int, int], channels: int, *, raw: bool, resize: str) -> Preprocessing:
    half = (0.5,) * channels
    return Preprocessing(
        size=size, channels=channels, resize=resize, filter="bilinear", mean=half, std=half, in_graph=not raw
    )


def _prepare(nodes: list[Any], constants: list[Any], source: str, suffix: str, how: Preprocessing) -> None:
    """uint8 N,H,W,C -> `pixels` uint8 N,h,w,C -> `normalised` float32 N,C,h,w. Squash only: see the module."""
    own = f"visionbench{suffix}/"
    shape = (1, how.channels, 1, 1)
    constants += [
        _constant(f"{own}size", np.array(how.size, np.int64)),
        _constant(f"{own}zero", np.array(0.0, np.float32)),
        _constant(f"{own}largest", np.array(255.0, np.float32)),
        _constant(f"{own}mean", np.array(how.mean, np.float32).reshape(shape)),
        _constant(f"{own}std", np.array(how.std, np.float32).reshape(shape)),
    ]
    to_float = {"to": TensorProto.FLOAT}
    resized = {"mode": "linear", "antialias": 1, "exclude_outside": 1, "axes": [2, 3]}
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Cast", [source], f"{own}float", to_float),
        ("Transpose", [f"{own}float"], f"{own}planes", {"perm": [0, 3, 1, 2]}),
        ("Resize", [f"{own}planes", "", "", f"{own}size"], f"{own}resized", resized),
        ("Round", [f"{own}resized"], f"{own}rounded", {}),
        ("Clip", [f"{own}rounded", f"{own}zero", f"{own}largest"], f"{own}clipped", {}),
        ("Cast", [f"{own}clipped"], f"{own}bytes", {"to": TensorProto.UINT8}),
        ("Transpose", [f"{own}bytes"], f"pixels{suffix}", {"perm": [0, 2, 3, 1]}),
        ("Transpose", [f"pixels{suffix}"], f"{own}back", {"perm": [0, 3, 1, 2]}),
        ("Cast", [f"{own}back"], f"{own}again", to_float),
        ("Div", [f"{own}again", f"{own}largest"], f"{own}scaled", {}),
        ("Sub", [f"{own}scaled", f"{own}mean"], f"{own}centred", {}),
        ("Div", [f"{own}centred", f"{own}std"], f"normalised{suffix}", {}),
    ]
    nodes += [helper.make_node(kind, ins, [out], name=f"{own}{out}", **more) for kind, ins, out, more in steps]


def _weights(classes: int, channels: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Colour: each class its hue. Grey, -1..1: the nearest of the levels, in the order of the classes."""
    numbers = np.arange(classes)
    if channels > 1:
        angles = 2 * np.pi * (numbers[None] / classes - np.arange(channels)[:, None] / channels)
        return (4 * np.cos(angles)).astype(np.float32), np.zeros(classes, np.float32)
    levels = 2 * numbers / (classes - 1) - 1
    return (16 * levels[None]).astype(np.float32), (-8 * levels**2).astype(np.float32)


def _card(preprocessing: Preprocessing, fields: dict[str, Any]) -> Card:
    recipe = 'experiment = "toy"\n\n[model]\nname = "toy"\n'
    defaults = {
        "preprocessing": preprocessing,
        "precision": "fp32",
        "experiment": "toy",
        "run": "20261126-000000-0000-s0",
        "run_id": "0" * 32,
        "seed": 0,
        "objective": "val_accuracy",
        "recipe": recipe,
        "recipe_digest": hashlib.sha256(json.dumps(tomllib.loads(recipe), sort_keys=True).encode()).hexdigest(),
        "dataset": {"name": "toy", "fingerprint": "f" * 64},
        "metrics": {"test_accuracy": 0.975, "test_accuracy_low": 0.95, "test_accuracy_high": 0.99},
        "git": {"commit": "c" * 40, "dirty": False},
        "plugins": [],
        "versions": {"visionbench": "0.2.0"},
        "exporter": {"name": "toy", "opset": OPSET},
        "quantisation": None,
        "gate": None,
        "tuning": None,
        "created": "2026-11-26T00:00:00+00:00",
    }
    return Card(**(defaults | fields))


def _pixels(name: str, channels: int, side: str = "") -> Any:
    return helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", f"H{side}", f"W{side}", channels])


def _floats(name: str, how: Preprocessing) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", how.channels, *how.size])


def _constant(name: str, value: np.ndarray[Any, Any]) -> Any:
    return numpy_helper.from_array(value, name)


def _save(path: Path, nodes: list[Any], constants: list[Any], inputs: list[Any], outputs: list[Any], card: Any) -> Path:
    graph = helper.make_graph(nodes, "toy", inputs, outputs, constants)
    opset = [helper.make_opsetid("", OPSET)]
    proto = helper.make_model(graph, opset_imports=opset, ir_version=10, producer_name="toy_models")
    if card is not None:
        helper.set_model_props(proto, card.properties())
    onnx.checker.check_model(proto, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, path)
    return path
