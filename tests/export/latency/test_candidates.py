"""Which files and models are measured, and what is said where one is missing."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from bench import record
from bench.errors import BenchError, RecipeError
from bench_export.latency.candidates import find_candidates


@pytest.fixture
def run(toy_models: ModuleType) -> record.Run:
    """A finished run with an fp32 and an int8 export."""
    made = record.create("toy", group="20261126-000000-0000", seed=0, recipe_text="", plan={})
    made.finish("finished")
    (made.folder / "model.safetensors").write_bytes(b"weights")
    for name, precision in (("model.onnx", "fp32"), ("model.int8.onnx", "int8")):
        toy_models.classifier(made.folder / "export" / name, precision=precision, run=made.name)
    return made


def test_a_run_gives_all_its_exports(run: record.Run) -> None:
    found, known = find_candidates([run.name], [])
    assert [(one.name, one.precision, one.runtime) for one in found] == [
        ("ort", "fp32", "ort"),
        ("ort-int8", "int8", "ort"),
    ]
    assert known == run


def test_a_run_gives_the_kinds_that_are_named(run: record.Run) -> None:
    found, _ = find_candidates([run.name], ["torch", "torch-compile", "ort-int8"], threads=2, device="cpu")
    assert [one.name for one in found] == ["torch", "torch-compile", "ort-int8"]
    assert found[0].path == run.folder
    assert found[0].file == run.folder / "model.safetensors"
    assert {(one.threads, one.device) for one in found} == {(2, "cpu")}


def test_a_file_is_measured_with_those_of_its_run(run: record.Run, toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "copy.onnx", run=run.name)
    found, known = find_candidates([str(path)], ["torch", "ort", "ort-int8"])
    assert [one.name for one in found] == ["ort", "torch", "ort-int8"]
    assert found[0].path == path
    assert known == run


def test_files_are_told_apart_by_their_names(toy_models: ModuleType, tmp_path: Path) -> None:
    paths = [str(toy_models.classifier(tmp_path / name)) for name in ("a.onnx", "b.onnx")]
    found, known = find_candidates(paths, [])
    assert [one.name for one in found] == ["a:ort", "b:ort"]
    assert known is None


def test_what_is_not_exported_comes_with_the_command(run: record.Run) -> None:
    with pytest.raises(BenchError, match="fp16 model was not exported") as caught:
        find_candidates([run.name], ["ort-fp16"])
    assert caught.value.hint == f"bench export {run.name} --onnx --precision fp16"


def test_what_missed_the_gate_is_said_to_have(run: record.Run) -> None:
    (run.folder / "export" / "model.fp16.rejected.onnx").write_bytes(b"")
    with pytest.raises(BenchError, match="fp16 model missed the gate"):
        find_candidates([run.name], ["ort-fp16"])


def test_an_unfinished_run_has_no_model_for_torch(run: record.Run) -> None:
    (run.folder / "model.safetensors").unlink()
    with pytest.raises(BenchError, match="has no finished model"):
        find_candidates([run.name], ["torch"])


def test_torch_beside_a_file_needs_its_run(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "model.onnx", run="20251224-000000-ffff-s0")
    with pytest.raises(BenchError, match="needs the run 20251224-000000-ffff-s0") as caught:
        find_candidates([str(path)], ["torch"])
    assert "BENCH_RUNS" in str(caught.value.hint)


def test_an_unknown_kind_names_the_near_miss(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "model.onnx")
    with pytest.raises(RecipeError, match=r"ort-int9.*ort-int8"):
        find_candidates([str(path)], ["ort-int9"])


def test_a_foreign_file_cannot_be_timed(toy_models: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="does not say its preprocessing"):
        find_candidates([str(toy_models.foreign(tmp_path / "theirs.onnx"))], [])


def test_pairs_and_single_images_do_not_mix(toy_models: ModuleType, tmp_path: Path) -> None:
    paths = [toy_models.classifier(tmp_path / "a.onnx"), toy_models.verifier(tmp_path / "b.onnx")]
    with pytest.raises(RecipeError, match="cannot be measured on the same samples"):
        find_candidates([str(path) for path in paths], [])


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        find_candidates([str(tmp_path / "none.onnx")], [])


def test_a_kind_that_is_named_twice_is_measured_once(run: record.Run) -> None:
    path = run.folder / "export" / "model.onnx"
    found, _ = find_candidates([str(path)], ["torch", "ort-int8", "torch"])
    assert [one.name for one in found] == ["ort", "torch", "ort-int8"]


def test_a_file_of_another_run_that_lies_beside_is_no_rival(
    run: record.Run, toy_models: ModuleType, tmp_path: Path
) -> None:
    path = toy_models.classifier(tmp_path / "mine.onnx", run=run.name)
    toy_models.classifier(tmp_path / "model.int8.onnx", precision="int8", run="20251224-000000-ffff-s0")
    found, _ = find_candidates([str(path)], ["ort-int8"])
    assert found[1].path == run.folder / "export" / "model.int8.onnx"


def test_files_of_one_name_are_told_apart_by_their_runs(toy_models: ModuleType, tmp_path: Path) -> None:
    paths = [str(toy_models.classifier(tmp_path / name)) for name in ("a/export/model.onnx", "b/model.onnx")]
    found, _ = find_candidates(paths, [])
    assert [one.name for one in found] == ["a/model:ort", "b/model:ort"]
    with pytest.raises(RecipeError, match="have one name"):
        find_candidates([paths[0], paths[0]], [])


def test_a_trained_model_of_pairs_does_not_meet_single_images() -> None:
    pairs = record.create("toy", group="20261126-000000-0001", seed=0, recipe_text="", plan={"task": "verification"})
    pairs.finish("finished")
    (pairs.folder / "model.safetensors").write_bytes(b"weights")
    single = record.create("toy", group="20261126-000000-0002", seed=0, recipe_text="", plan={"task": "classification"})
    single.finish("finished")
    (single.folder / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(RecipeError, match="cannot be measured on the same samples"):
        find_candidates([pairs.name, single.name], ["torch"])


def test_torch_on_the_cpu_is_no_rival_on_a_gpu(run: record.Run) -> None:
    with pytest.raises(RecipeError, match="--device cuda: torch would run on the CPU"):
        find_candidates([run.name], ["ort", "torch"], device="cuda")
