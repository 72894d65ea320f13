"""The quickstart: its accuracy, and its losses bit for bit.

A change that claims no numeric effect must reproduce the losses. They depend on the processor and on torch, so that each
pair has an entry of its own in golden/quickstart_losses.json; `python tests/test_quickstart.py` adds this machine's.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench import environment, run
from bench.files import write_json
from bench.recipe import load

RECIPE = Path(__file__).parent.parent / "recipes" / "quickstart.toml"
GOLDEN = Path(__file__).parent / "golden" / "quickstart_losses.json"


def _losses(epochs: int) -> list[float]:
    (finished,) = run.run(load(RECIPE, [f"train.epochs={epochs}"]))
    return [line["values"]["train_loss"] for line in finished.epochs()]


def _key() -> str:
    machine = environment.detect()
    return f"torch {torch.__version__.partition('+')[0]}, {machine.cpu}, {' '.join(machine.cpu_flags)}"


def test_the_losses_are_the_recorded_ones_bit_for_bit() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    if _key() not in golden:
        pytest.skip(f"no losses are recorded for {_key()}; add them: python {Path(__file__).name}")
    assert _losses(3) == golden[_key()]


@pytest.mark.slow
def test_the_quickstart_reaches_its_accuracy() -> None:
    (finished,) = run.run(load(RECIPE))
    assert finished.info()["metrics"]["test_accuracy"] >= 0.985


if __name__ == "__main__":
    known = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {}
    write_json(GOLDEN, {**known, _key(): _losses(3)})
