"""Weights beside a model: none from outside its folder, whatever onnxruntime would do."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bench.errors import BenchError
from bench_export.external_data import check_external_data, external_files
from bench_export.session import open_session

WEIGHTS = np.array([1, 2, 3], np.float32)


def model(path: Path, location: str, *, where: str = "initializer") -> Path:
    """The sum x + w, with w in another file; as an initialiser, a constant, or one within a branch."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("length", "12")):
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    float3 = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    constant = helper.make_node("Constant", [], ["w"], value=weights)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])]
    add = helper.make_node("Add", ["x", "w"], ["y"])
    if where == "branch":
        inputs.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
        branches = [helper.make_graph([constant, add], name, [], [float3]) for name in ("then", "else")]
        nodes = [helper.make_node("If", ["which"], ["y"], then_branch=branches[0], else_branch=branches[1])]
    else:
        nodes = [constant, add] if where == "constant" else [add]
    kept = [weights] if where == "initializer" else []
    graph = helper.make_graph(nodes, "sum", inputs, [float3], kept)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if where == "default of a function":
        proto.functions.add(name="add").attribute_proto.append(helper.make_attribute("w", weights))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    place = tmp_path / "outside" / "secret.bin"
    place.parent.mkdir()
    (WEIGHTS * 7).tofile(place)
    return place


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
def test_weights_beside_the_model_are_found_and_used(tmp_path: Path, where: str) -> None:
    path = model(tmp_path / "m" / "model.onnx", "weights.bin", where=where)
    WEIGHTS.tofile(path.with_name("weights.bin"))
    assert external_files(path) == ("weights.bin",)
    session = open_session(path, device="cpu")
    inputs = [np.ones(3, np.float32), *([np.array(True)] if where == "branch" else [])]
    np.testing.assert_array_equal(session.run(*inputs)[0], WEIGHTS + 1)


@pytest.mark.parametrize("where", ["initializer", "constant", "branch", "default of a function"])
@pytest.mark.parametrize("how", ["parent", "absolute", "through a folder", "link", "linked folder"])
def test_weights_outside_the_folder_are_refused_by_us(tmp_path: Path, secret: Path, where: str, how: str) -> None:
    folder = tmp_path / "m"
    (folder / "inner").mkdir(parents=True)
    (folder / "link.bin").symlink_to(secret)
    (folder / "linked").symlink_to(secret.parent)
    location = {
        "parent": "../outside/secret.bin",
        "absolute": str(secret),
        "through a folder": "inner/../../outside/secret.bin",
        "link": "link.bin",
        "linked folder": "linked/secret.bin",
    }[how]
    path = model(folder / "model.onnx", location, where=where)
    for check in (check_external_data, open_session):
        with pytest.raises(BenchError, match="outside its folder") as refused:
            check(path)
        assert location in str(refused.value)


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"its weights lie in gone\.bin, which is not there"):
        open_session(model(tmp_path / "model.onnx", "gone.bin"), device="cpu")


def test_an_address_in_memory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="which is not there"):
        open_session(model(tmp_path / "model.onnx", "*/_ORT_MEM_ADDR_/*"), device="cpu")


def test_weights_that_are_too_short_are_said(tmp_path: Path) -> None:
    path = model(tmp_path / "model.onnx", "weights.bin")
    WEIGHTS[:2].tofile(path.with_name("weights.bin"))
    with pytest.raises(BenchError, match=r"onnxruntime cannot load it|missing, damaged or outside"):
        open_session(path, device="cpu")


def test_a_model_that_is_a_link_may_have_linked_weights_beside_its_real_file(tmp_path: Path) -> None:
    store = tmp_path / "store"
    real = model(store / "model.blob", "weights.bin")
    WEIGHTS.tofile(store / "weights.blob")
    view = tmp_path / "view"
    view.mkdir()
    (view / "model.onnx").symlink_to(real)
    (view / "weights.bin").symlink_to(store / "weights.blob")
    check_external_data(view / "model.onnx")
    assert external_files(view / "model.onnx") == ("weights.bin",)


def test_what_onnx_saves_beside_a_model_is_found(tmp_path: Path, toy_models: ModuleType) -> None:
    path = toy_models.classifier(tmp_path / "m.onnx")
    assert external_files(path) == ()
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.weights", size_threshold=60)
    assert external_files(path) == ("m.weights",)
    check_external_data(path)
    assert len(open_session(path, device="cpu").run(np.zeros((1, 9, 9, 3), np.uint8))[0]) == 1


@pytest.mark.parametrize("size", [3, 40, 90, -1])
def test_a_torn_file_is_said(tmp_path: Path, size: int) -> None:
    path = model(tmp_path / "model.onnx", "weights.bin")
    torn = path.read_bytes()[:size] + b"location"
    path.write_bytes(torn)
    with pytest.raises(BenchError, match="truncated, or no ONNX model"):
        external_files(path)


def test_endless_nesting_is_refused(tmp_path: Path) -> None:
    def field(number: int, content: bytes) -> bytes:
        length = bytearray()
        rest = len(content)
        while rest >= 0x80:
            length.append(rest & 0x7F | 0x80)
            rest >>= 7
        return bytes([number << 3 | 2, *length, rest]) + content

    graph = b"location"
    for _ in range(300):
        graph = field(1, field(5, field(6, graph)))
    (tmp_path / "deep.onnx").write_bytes(field(7, graph))
    with pytest.raises(BenchError, match="truncated, or no ONNX model"):
        external_files(tmp_path / "deep.onnx")


def test_a_kind_of_location_that_protobuf_cuts_to_external_is_external(tmp_path: Path) -> None:
    path = model(tmp_path / "model.onnx", "../secret.bin")
    tensor = onnx.load(path, load_external_data=False).graph.initializer[0].SerializeToString()
    assert tensor.endswith(b"\x70\x01")  # data_location = EXTERNAL
    disguised = tensor[:-1] + b"\x81\x80\x80\x80\x10"  # 2^32 + 1
    assert TensorProto.FromString(disguised).data_location == TensorProto.EXTERNAL
    graph = bytes([5 << 3 | 2, len(disguised)]) + disguised
    path.write_bytes(bytes([7 << 3 | 2, len(graph)]) + graph)
    with pytest.raises(BenchError, match="outside its folder"):
        check_external_data(path)
