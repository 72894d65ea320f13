"""Metadata of ONNX files, against the onnx package."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import onnx
import pytest

from bench.errors import BenchError
from bench_export.metadata import read_properties, write_properties


@pytest.fixture
def model(tmp_path: Path, toy_models: ModuleType) -> Path:
    path: Path = toy_models.classifier(tmp_path / "model.onnx")
    return path


def by_onnx(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}


def test_reading_gives_what_the_onnx_package_gives(model: Path) -> None:
    assert read_properties(model) == by_onnx(model) != {}


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 70_000])
def test_writing_replaces_the_metadata_and_nothing_else(model: Path, size: int) -> None:
    before = onnx.load(str(model))
    wanted = {"": "", "a": "ä" * size, "b.c": "line\nline"}
    write_properties(model, wanted)
    assert read_properties(model) == by_onnx(model) == wanted
    after = onnx.load(str(model))
    del before.metadata_props[:], after.metadata_props[:]
    assert before == after
    onnx.checker.check_model(str(model), full_check=True)


def test_entries_between_other_fields_are_replaced_too(model: Path) -> None:
    parsed = onnx.load(str(model))
    entry = onnx.ModelProto()
    entry.metadata_props.add(key="early", value="x" * 200)
    model.write_bytes(entry.SerializeToString() + parsed.SerializeToString())
    assert read_properties(model)["early"] == "x" * 200
    write_properties(model, {"only": "this"})
    assert by_onnx(model) == {"only": "this"}


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_an_error_and_stays_as_it_is(model: Path, share: float) -> None:
    content = model.read_bytes()[: max(1, int(share * model.stat().st_size))]
    model.write_bytes(content)
    with pytest.raises(BenchError, match="truncated"):
        read_properties(model)
    with pytest.raises(BenchError, match="truncated"):
        write_properties(model, {"a": "b"})
    assert model.read_bytes() == content
    assert [path.name for path in model.parent.iterdir()] == [model.name]


@pytest.mark.parametrize("content", [b"no model at all", b"\xff" * 40, b"\x00\x00", b"{}"])
def test_other_files_are_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(BenchError, match="no ONNX model"):
        read_properties(path)
