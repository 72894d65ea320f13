"""The samples of a run: the ones that it held out, as they were and as the model takes them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.errors import DataError
from bench.images import decode, fit
from bench.progress import Progress
from bench.recipe import parse
from bench.record import Run
from bench.run import run as train
from bench.stages.restore import restore
from bench_export.gate.samples import open_material, samples_of


def test_originals_are_the_files_that_the_fitted_ones_were_made_of(finished: Any) -> None:
    samples = finished.material.gate()
    assert (samples.name, samples.note) == ("validation", "")
    assert len({samples.original(position).shape for position in range(len(samples))}) > 5
    for position in range(len(samples)):
        with Image.open(finished.root / samples.ids[position]) as image:
            assert np.array_equal(samples.original(position), np.asarray(image))
        expected = decode(finished.root / samples.ids[position], samples.decoding)
        assert np.array_equal(samples.fitted(position), expected)
        assert samples.classes[samples.labels[position]] == samples.ids[position].split("/")[0]


def test_calibration_sees_training_images_alone(finished: Any) -> None:
    held = set(finished.material.gate().ids)
    training, selection = finished.material.training(40, seed=1), finished.material.selection(10, seed=1)
    assert len(training) == 40
    assert not held & set(training.ids)
    assert len(selection) == 10
    assert set(selection.ids) <= held
    assert finished.material.training(40, seed=1).ids == training.ids
    assert finished.material.training(40, seed=2).ids != training.ids


def test_a_dataset_that_has_changed_is_refused(finished: Any, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished.run.folder, folder)
    run = Run(folder)
    run.update(dataset={**run.info()["dataset"], "fingerprint": "0" * 64})
    with pytest.raises(DataError, match="the dataset has changed since copy was made"):
        samples_of(run)


_DIGITS = """
experiment = "digits"
[dataset]
name = "digits"
[data]
size = 12
channels = 3
validation = 0.0
[model]
name = "linear"
[train]
epochs = 1
monitor = "train_loss"
keep = "last"
[compute]
precision = "fp32"
memory_format = "contiguous"
threads = 1
"""


def test_arrays_and_runs_without_validation_images(tmp_path: Path) -> None:
    (run,) = train(parse(_DIGITS, path=tmp_path / "digits.toml"))
    restored = restore(run.folder)
    material = open_material(run, restored.recipe, restored.plan, Progress())
    samples = material.gate()
    assert samples.name == "test"
    assert samples.note == "the run has no validation split: judged on the test split"
    for position in range(5):
        original = samples.original(position)
        assert isinstance(original, np.ndarray)
        assert original.shape == (8, 8, 3)
        assert np.array_equal(fit(Image.fromarray(original), samples.decoding), samples.fitted(position))
    training, selection = material.training(10_000), material.selection(10_000)
    assert not set(training.ids) & set(selection.ids)
    assert len(training) + len(selection) == len(material.data.splits["train"])
    assert selection.note == "chosen on training samples that were not calibrated on"
