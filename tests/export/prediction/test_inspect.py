"""bench inspect: the card in words and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench_export.card import read_card
from bench_export.prediction.card_text import card_lines

Run = Callable[..., Any]

COUNTS = {"train": {"red": 700, "green": 600}, "test": {"red": 70, "green": 60}}
FIELDS = {
    "gate": {"passed": True, "summary": "accepted on 100 validation samples: agreement 100.00%"},
    "quantisation": {"calibration": "entropy", "calibration_images": 1024, "kept_float": ["features.0", "head"]},
    "tuning": {"intra_op_threads": 2, "spinning": False},
    "dataset": {"name": "gtsrb", "fingerprint": "48d084e1e3f4e910", "counts": COUNTS},
    "plugins": ({"kind": "models", "name": "cnn", "distribution": "visionbench", "version": "0.2.0"},),
    "exporter": {"name": "torchscript", "opset": 18, "fallback_reason": "dynamo failed on roll"},
    "git": {"commit": "abcdef0123456789", "dirty": True},
    "precision": "int8",
}


@pytest.fixture
def described(toy_models: ModuleType, tmp_path: Path) -> Path:
    made: Path = toy_models.classifier(tmp_path / "described.onnx", **FIELDS)
    return made


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_card_says_all_that_is_known(run_bench: Run, described: Path) -> None:
    told = run_bench("inspect", described)
    assert told.code == 0
    shown = words(told.out)
    for said in (
        "answers 3 classes: red, green, blue",
        "preprocessing RGB, resized to 8 x 8 pixels (bilinear), divided by 255, minus 0.5, 0.5, 0.5, over 0.5, 0.5, 0.5",
        "precision int8",
        "test accuracy 97.50% [95.00%, 99.00%]",
        "gate accepted on 100 validation samples: agreement 100.00%",
        "quantisation calibrated by entropy on 1,024 training images; kept in float: features.0, head",
        "tuning intra op threads 2, spinning False",
        "dataset gtsrb, fingerprint 48d084e1e3f4, 1,300 train, 130 test",
        "recipe toy, digest ",
        "run 20261126-000000-0000-s0, seed 0, objective val_accuracy",
        "git abcdef012345 with changes",
        "plugins cnn (visionbench 0.2.0)",
        "versions visionbench 0.2.0",
        "exporter torchscript, opset 18 (the newer one failed: dynamo failed on roll)",
        "created 2026-11-26 00:00 UTC",
        "input images: uint8 N, H, W, 3",
        "output probabilities: float32 N, 3",
        "opset ai.onnx 18",
    ):
        assert said in shown


def test_of_pairs_it_says_the_threshold(run_bench: Run, toy_models: ModuleType, tmp_path: Path) -> None:
    shown = words(run_bench("inspect", toy_models.verifier(tmp_path / "pairs.onnx", threshold=0.7384)).out)
    assert "answers whether two images show the same: same from a score of 0.7384 on" in shown
    assert "first: uint8 N, H1, W1, 3 second: uint8 N, H2, W2, 3" in shown


def test_a_raw_file_says_that_the_caller_prepares(toy_models: ModuleType, tmp_path: Path) -> None:
    card = read_card(toy_models.classifier(tmp_path / "raw.onnx", raw=True))
    assert card is not None
    assert "left to the caller" in dict(card_lines(card))["preprocessing"]


@pytest.mark.parametrize("name", ["described", "foreign"])
def test_it_fits_a_terminal_of_80_columns(toy_models: ModuleType, described: Path, name: str) -> None:
    toy_models.foreign(described.with_name("foreign.onnx"))
    program = (
        "import rich.console; rich.console.Console.is_terminal = True\n"
        f"from bench_export.prediction.showing import show; from pathlib import Path; show(Path({name!r} + '.onnx'), as_json=False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=described.parent, env={"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()) <= 80


def test_json_holds_the_card_whole(run_bench: Run, described: Path) -> None:
    value = json.loads(run_bench("inspect", described, "--json").out)
    card = read_card(described)
    assert card is not None
    assert value["schema"] == 1
    assert value["card"] == json.loads(json.dumps(asdict(card)))
    assert value["file"]["opsets"] == {"ai.onnx": 18}
    assert value["file"]["inputs"] == [{"name": "images", "type": "uint8", "shape": ["N", "H", "W", 3]}]
    assert value["file"]["size_mb"] == pytest.approx(described.stat().st_size / 1e6)
    assert value["missing"] == []


def test_json_leaves_out_what_only_verify_reads(run_bench: Run, toy_models: ModuleType, tmp_path: Path) -> None:
    gate = {"passed": True, "samples": {"total": 7, "answers": "eNoB"}, "probes": {"trained": "eNoB"}}
    value = json.loads(run_bench("inspect", toy_models.classifier(tmp_path / "m.onnx", gate=gate), "--json").out)
    assert value["card"]["gate"] == {"passed": True, "samples": {"total": 7}}


def test_a_size_that_is_no_square_says_which_side_is_which(toy_models: ModuleType, tmp_path: Path) -> None:
    card = read_card(toy_models.classifier(tmp_path / "m.onnx", size=(8, 12)))
    assert card is not None
    assert "12 x 8 pixels (width x height, bilinear)" in dict(card_lines(card))["preprocessing"]


def test_the_recipe_is_printed_as_it_was(
    run_bench: Run, described: Path, toy_models: ModuleType, tmp_path: Path
) -> None:
    card = read_card(described)
    assert card is not None
    assert run_bench("inspect", described, "--recipe").out == card.recipe
    told = run_bench("inspect", toy_models.foreign(tmp_path / "foreign.onnx"), "--recipe")
    assert told.code == 2
    assert "holds no recipe" in told.err


def test_a_file_of_another_program_says_what_it_is_and_lacks(
    run_bench: Run, toy_models: ModuleType, tmp_path: Path
) -> None:
    foreign = toy_models.foreign(tmp_path / "foreign.onnx")
    shown = words(run_bench("inspect", foreign).out)
    for said in ("input x: float32 batch, 3, 8, 8", "output y: float32 batch, 3", "opset ai.onnx 18, IR 10",
                 "made by toy_models", "classes not in the file; bench predict takes --labels"):  # fmt: skip
        assert said in shown
    value = json.loads(run_bench("inspect", foreign, "--json").out)
    assert value["card"] is None
    assert value["missing"] == ["classes", "preprocessing"]


def test_torch_is_not_imported(described: Path) -> None:
    program = f"""
import sys
sys.argv = ["bench", "inspect", {str(described)!r}]
from bench.cli import main
try:
    main()
finally:
    print(*(name for name in sys.modules if "." not in name), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(done.stderr.split()) & {"torch", "mlflow", "onnx", "pydantic", "scipy", "matplotlib"}
