"""A recorded run answers as it did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench import run as stages
from bench.errors import BenchError
from bench.progress import Progress
from bench.recipe import parse
from bench.stages.restore import restore

RECIPE = """
[dataset]
name = "digits"
[data]
size = 8
[model]
name = "linear"
[train]
epochs = 1
[compute]
threads = 1
precision = "fp32"
memory_format = "contiguous"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    (run,) = stages.run(parse(RECIPE, path=tmp_path / "linear.toml"), progress=Progress())
    return run.folder


def test_a_restored_model_gives_the_recorded_predictions(folder: Path) -> None:
    from bench.stages.setup import load_data

    restored = restore(folder)
    test = load_data(restored.recipe, restored.plan, Progress()).splits["test"]
    with np.load(folder / "predictions" / "test.npz") as recorded:
        assert np.abs(restored.predict(test.images[test.rows]) - recorded["probabilities"]).max() < 1e-6
    assert restored.threshold is None
    assert restored.spec.classes == tuple(json.loads((folder / "plan.json").read_text())["classes"])
    assert not restored.model.training


def test_a_run_without_a_model_says_how_to_finish_it(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(BenchError, match="no finished model") as error:
        restore(folder)
    assert "--resume" in str(error.value.hint)


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('name = "linear"', 'name = "mlp"'))
    with pytest.raises(BenchError, match="does not fit the recipe's model"):
        restore(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BenchError, match="sha256"):
        restore(folder)
