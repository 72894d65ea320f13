"""The card: what is written into a file is what is read from it, and nothing else of the file changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import onnx
import pytest

from bench.errors import BenchError
from bench.images import Decoding
from bench_export.card import PREFIX, SCHEMA, Card, Preprocessing, read_card, write_card

CARD = Card(
    task="classification",
    classes=("Straße", "道", 'with "quotes"'),
    preprocessing=Preprocessing((32, 48), 3, "crop", "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 50.0),
    precision="int8",
    recipe='experiment = "x"\n# ü\n',
    metrics={"test_accuracy": 0.996},
    plugins=({"name": "cnn"}, {"name": "gtsrb"}),
    quantisation={"kept_float": ["a"]},
    gate={"passed": True, "worst": [{"id": "1"}]},
)


def test_a_card_is_what_it_was() -> None:
    assert Card.from_properties(CARD.properties()) == CARD


def test_defaults_are_read_where_a_field_is_missing_and_unknown_ones_are_left() -> None:
    properties = CARD.properties()
    del properties[f"{PREFIX}quantisation"]
    read = Card.from_properties({**properties, f"{PREFIX}of_later": "1", "other": "text"})
    assert read == replace(CARD, quantisation=None)


def test_the_decoding_is_that_of_training() -> None:
    assert CARD.preprocessing.decoding() == Decoding((32, 48), 3, "crop", "bicubic", 50.0)


def test_metadata_of_others_are_no_card() -> None:
    assert Card.from_properties({}) is None
    assert Card.from_properties({"classes": '["a"]'}) is None


def test_a_newer_version_is_said() -> None:
    with pytest.raises(BenchError, match=f"version {SCHEMA + 1}") as refused:
        Card.from_properties({**CARD.properties(), f"{PREFIX}schema": str(SCHEMA + 1)})
    assert "pip install -U" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("name", "text"),
    [("schema", "one"), ("classes", "[torn"), ("preprocessing", '{"size": [8, 8]}'), ("preprocessing", "null"),
     ("preprocessing", "3"), ("classes", None), ("task", None), ("classes", "5"), ("classes", "[]"),
     ("classes", "[1, 2]"), ("task", '"segmentation"'), ("precision", '"fp8"'), ("threshold", '"0.5"'),
     ("recipe", "3"), ("gate", "[]"), ("tuning", "1"), ("plugins", '["cnn"]'), ("gate", "[" * 100_000)],
)  # fmt: skip
def test_damaged_metadata_are_said(name: str, text: str | None) -> None:
    properties = CARD.properties()
    del properties[f"{PREFIX}{name}"]
    if text is not None:
        properties[f"{PREFIX}{name}"] = text
    with pytest.raises(BenchError, match="damaged"):
        Card.from_properties(properties)


# In a file


def test_it_is_written_into_a_file_that_otherwise_stays(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "m.onnx")
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"author": "someone", f"{PREFIX}old": "1"})
    onnx.save(proto, path)
    write_card(path, CARD)
    assert read_card(path) == CARD
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    assert written.graph == proto.graph
    assert written.opset_import == proto.opset_import
    properties = {entry.key: entry.value for entry in written.metadata_props}
    assert properties.pop("author") == "someone"
    assert properties == CARD.properties()
    assert [file.name for file in tmp_path.glob(".*")] == []


def test_writing_it_twice_leaves_one(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "m.onnx")
    write_card(path, CARD)
    once = path.read_bytes()
    write_card(path, replace(CARD, tuning={"intra_op_threads": 2}))
    write_card(path, CARD)
    assert path.read_bytes() == once


def test_onnxruntime_and_onnx_read_the_same(toy_models: ModuleType, tmp_path: Path) -> None:
    import onnxruntime

    path = toy_models.classifier(tmp_path / "m.onnx", recipe="x" * 100_000)
    card = read_card(path)
    assert card is not None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == card.properties()
    assert json.loads(session.get_modelmeta().custom_metadata_map[f"{PREFIX}recipe"]) == "x" * 100_000


def test_a_file_that_is_not_ours_has_none(toy_models: ModuleType, tmp_path: Path) -> None:
    assert read_card(toy_models.foreign(tmp_path / "m.onnx")) is None


def test_an_error_names_the_file(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "m.onnx")
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"classification"', b'"classification '))
    with pytest.raises(BenchError, match=r"m\.onnx: its metadata are damaged"):
        read_card(path)
    path.write_bytes(content[:-5])
    with pytest.raises(BenchError, match=r"m\.onnx: truncated"):
        read_card(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", [8]), ("size", [0, 8]), ("size", ["8", 8]), ("channels", 2), ("resize", "stretch"), ("filter", "cubic"),
     ("mean", [0.5]), ("std", ["a", "b", "c"]), ("max_megapixels", "1"), ("in_graph", 1)],
)  # fmt: skip
def test_damaged_preprocessing_is_said_with_the_name_of_what_is_wrong(name: str, value: object) -> None:
    properties = CARD.properties()
    given = json.loads(properties[f"{PREFIX}preprocessing"])
    properties[f"{PREFIX}preprocessing"] = json.dumps({**given, name: value})
    with pytest.raises(BenchError, match=rf"damaged: .*preprocessing\.{name}"):
        Card.from_properties(properties)
