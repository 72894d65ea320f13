"""A run on photographs of several sizes, trained for a moment, and its export taken apart to plant faults in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto
from PIL import Image

from bench.progress import Progress
from bench.recipe import parse
from bench.record import Run
from bench.run import run as train
from bench.stages.restore import Restored, restore
from bench_export.card import Card, Preprocessing
from bench_export.conversion.core import Core, convert_core
from bench_export.conversion.join import join
from bench_export.conversion.write import write
from bench_export.export_steps import make_card, preprocessing_of
from bench_export.gate.departures import Trained, first_departure
from bench_export.gate.judge import judge
from bench_export.gate.matching import Departure
from bench_export.gate.report import GateReport
from bench_export.gate.samples import Material, open_material
from bench_export.predictor import Predictor, load

RECIPE = """
experiment = "shapes"
[dataset]
name = "image_folder"
root = "{root}"
[data]
size = 16
validation = 0.3
test = 0.0
[model]
name = "cnn"
channels = [8, 12]
[train]
epochs = 6
batch_size = 8
[optimizer]
name = "adam"
lr = 1e-2
[compute]
precision = "fp32"
memory_format = "contiguous"
threads = 1
"""


@dataclass(frozen=True)
class Finished:
    """A finished run with all that a gate needs; `write` makes a file of a graph, `ask` judges it."""

    run: Run
    root: Path
    restored: Restored
    material: Material
    core: ModelProto
    card: Card
    folder: Path

    @property
    def preprocessing(self) -> Preprocessing:
        return preprocessing_of(self.restored)

    def joined(self, core: ModelProto | None = None, **changes: Any) -> ModelProto:
        """The full graph of a core, with a preprocessing that may be another one."""
        return join(
            core or self.core,
            preprocessing=replace(self.preprocessing, **changes),
            task="classification",
            num_classes=3,
            loss="cross_entropy",
            threshold=None,
        )

    def write(self, proto: ModelProto, **changes: Any) -> Predictor:
        path = self.folder / "model.onnx"
        write(proto, path, replace(self.card, **changes))
        return load(path, threads=1)

    def ask(self, candidate: Predictor, precision: str = "fp32", **limits: float) -> GateReport:
        samples = self.material.gate()
        return judge(self.restored.predict, candidate, samples, precision=precision, limits=limits)

    def departure(self, candidate: Predictor, report: GateReport, exact: ModelProto | None = None) -> Departure | None:
        trained = Trained(self.restored.predict, self.restored.model, exact)
        return first_departure(
            candidate.session.path,
            self.material.gate(),
            report,
            preprocessing=self.preprocessing,
            trained=trained,
        )


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of coloured, textured photographs of many sizes, as PNG."""
    root = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for label, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir()
        for number in range(30):
            height, width = random.integers(16, 60, 2) if number % 3 else (40, 30)
            soft = Image.fromarray(random.integers(0, 200, (7, 7, 3), dtype=np.uint8)).resize((width, height), 3)
            pixels = np.asarray(soft, dtype=np.int64) + random.integers(0, 30, (height, width, 3))
            pixels[..., label] += 25
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{number:02d}.png")
    return root


@pytest.fixture(scope="session")
def _trained(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Restored, ModelProto]:
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("gate")
        patch.setenv("BENCH_RUNS", str(place / "runs"))
        patch.setenv("BENCH_CACHE", str(place / "cache"))
        patch.setenv("BENCH_TRACKING", "off")
        (run,) = train(parse(RECIPE.format(root=photographs), path=place / "shapes.toml"))
    restored = restore(run.folder)
    return run, restored, convert_core(restored.model, restored.spec).proto


@pytest.fixture
def finished(_trained: tuple[Run, Restored, ModelProto], photographs: Path, tmp_path: Path) -> Finished:
    """The run, its dataset opened and its model converted."""
    run, restored, proto = _trained
    core = ModelProto()
    core.CopyFrom(proto)
    material = open_material(run, restored.recipe, restored.plan, Progress())
    card = make_card(run, restored, Core(proto, "dynamo", 18, None), "fp32", raw=False, quantisation=None)
    return Finished(run, photographs, restored, material, core, card, tmp_path)


@pytest.fixture
def plant() -> Callable[..., ModelProto]:
    """Changes the constant that a node of an operator takes, in a copy of a graph."""
    from onnx import numpy_helper

    def change(
        proto: ModelProto, op: str, edit: Callable[[Any], Any], *, operand: int = 1, which: int = 0
    ) -> ModelProto:
        copy = ModelProto()
        copy.CopyFrom(proto)
        node = [node for node in copy.graph.node if node.op_type == op][which]
        (constant,) = [entry for entry in copy.graph.initializer if entry.name == node.input[operand]]
        value = np.asarray(edit(numpy_helper.to_array(constant).copy()))
        constant.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), constant.name))
        return copy

    return change
