"""Sessions: what they run on, what they are tuned by, and what they say of files that are none."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bench.environment import processor
from bench.errors import BenchError, RecipeError
from bench_export.session import open_session

IMAGES = np.zeros((2, 20, 30, 3), np.uint8)


def tuned(**values: Any) -> dict[str, Any]:
    return {"intra_op_threads": 1, "machine": processor()[0], "device": "cpu", **values}


def test_it_runs_and_says_where(toy_models: ModuleType, tmp_path: Path) -> None:
    session = open_session(toy_models.classifier(tmp_path / "m.onnx"))
    [answer] = session.run(IMAGES)
    assert (answer.shape, answer.dtype) == ((2, 3), np.float32)
    assert session.providers_used[-1] == "CPUExecutionProvider"
    assert (session.inputs, session.outputs) == (("images",), ("probabilities",))
    assert session.card is not None
    assert session.card.classes == ("red", "green", "blue")


def test_inputs_are_in_the_order_of_the_file(toy_models: ModuleType, tmp_path: Path) -> None:
    session = open_session(toy_models.verifier(tmp_path / "m.onnx"), device="cpu")
    assert (session.inputs, session.outputs) == (("first", "second"), ("score", "decision"))
    score, decision = session.run(IMAGES, np.full((2, 9, 9, 3), 255, np.uint8))
    assert decision.tolist() == [False, False]
    assert float(score.max()) < 0.5
    with pytest.raises(ValueError, match="shorter"):
        session.run(IMAGES)


def test_a_file_that_is_not_ours_has_no_card(toy_models: ModuleType, tmp_path: Path) -> None:
    assert open_session(toy_models.foreign(tmp_path / "m.onnx"), device="cpu").card is None


def test_nodes_are_counted_by_provider_where_that_was_asked_for(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "m.onnx")
    nodes = open_session(path, device="cpu", profile_nodes=True).nodes()
    assert list(nodes) == ["CPUExecutionProvider"]
    assert nodes["CPUExecutionProvider"] > 3
    assert open_session(path, device="cpu").nodes() == {}


# Tuning


def test_the_cards_tuning_is_used_on_the_machine_that_it_was_found_on(toy_models: ModuleType, tmp_path: Path) -> None:
    here = open_session(toy_models.classifier(tmp_path / "here.onnx", tuning=tuned()), device="cpu")
    assert here.threads == 1
    assert here.inference.get_session_options().intra_op_num_threads == 1
    elsewhere = toy_models.classifier(tmp_path / "elsewhere.onnx", tuning=tuned(machine="Another CPU"))
    assert open_session(elsewhere, device="cpu").threads is None
    gpu = toy_models.classifier(tmp_path / "gpu.onnx", tuning=tuned(device="cuda"))
    assert open_session(gpu, device="cpu").threads is None


def test_what_is_asked_for_replaces_the_cards_tuning(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "m.onnx", tuning=tuned())
    assert open_session(path, device="cpu", threads=2).threads == 2
    assert open_session(path, device="cpu", tuning={}).threads is None
    spun = open_session(path, device="cpu", tuning={"spinning": False, "graph_level": "basic", "unknown": 1})
    options = spun.inference.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"


# What cannot be opened


def test_a_missing_path_and_a_folder_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no such file"):
        open_session(tmp_path / "gone.onnx")
    with pytest.raises(RecipeError, match="a folder, not an ONNX file"):
        open_session(tmp_path)
    with pytest.raises(RecipeError, match="cannot be read: File name too long"):
        open_session(tmp_path / ("x" * 300))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_said(toy_models: ModuleType, tmp_path: Path, share: float) -> None:
    path = toy_models.classifier(tmp_path / "m.onnx")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BenchError, match=r"m\.onnx: (empty|truncated|its metadata are damaged)"):
        open_session(path)


@pytest.mark.parametrize(
    "content", [b"I am not a model.\n", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"{}\n", os.urandom(999)]
)
def test_something_else_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BenchError, match=r"m\.onnx: (truncated, or no ONNX model|onnxruntime cannot load it)"):
        open_session(tmp_path / "m.onnx")


def test_flipped_bytes_never_leave_a_traceback_of_another_kind(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "m.onnx")
    content = path.read_bytes()
    random = np.random.default_rng(0)
    opened = refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            open_session(path, device="cpu")
            opened += 1
        except BenchError:
            refused += 1
    assert opened + refused == 150
    assert refused > 20


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error(toy_models: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="CUDA") as refused:
        open_session(toy_models.classifier(tmp_path / "m.onnx"), device="cuda")
    assert "--device cpu" in str(refused.value.hint)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_auto_takes_the_cpu_without_a_word(
    toy_models: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    session = open_session(toy_models.classifier(tmp_path / "m.onnx"), device="auto")
    assert session.providers_asked == session.providers_used == ("CPUExecutionProvider",)
    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
def test_cuda_runs_every_node(toy_models: ModuleType, tmp_path: Path) -> None:
    session = open_session(toy_models.classifier(tmp_path / "m.onnx", raw=True), device="cuda")
    assert list(session.nodes()) == ["CUDAExecutionProvider"]
