"""Models that are computed from the training images instead of trained: a whole run without an epoch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bench import record, registry, run
from bench.errors import Interrupted, RecipeError
from bench.images import Decoding, decode
from bench.kinds import DataSpec
from bench.progress import Progress
from bench.recipe import Recipe, parse
from bench.result_tables import print_result
from bench_plugins.datasets.lfw_pairs import lfw_pairs

COMMON = """
[train]
epochs = 0
batch_size = 50
[compute]
precision = "{precision}"
memory_format = "contiguous"
threads = 1
"""
DIGITS = """
experiment = "means"
[dataset]
name = "digits"
[data]
size = 8
[model]
name = "nearest_mean"
"""
FACES = """
experiment = "whitened"
[dataset]
name = "lfw_pairs"
root = "{root}"
[data]
size = 8
validation = 0.25
[model]
name = "whitened"
"""


class NearestMean(nn.Module):
    """The negative squared distance to the mean of each class; it has no parameter at all."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        height, width = spec.image_size
        self.register_buffer("means", torch.zeros(spec.num_classes, spec.channels * height * width))
        self.dropout = nn.Dropout(0.9)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(images).flatten(1)  # type: ignore[no-any-return]

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return -torch.cdist(features, self.means).square()  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))

    def fit_features(self, batches: Iterable[torch.Tensor], *, labels: torch.Tensor) -> None:
        features = torch.cat([self.forward_features(images) for images in batches])
        for label in range(len(self.means)):  # type: ignore[arg-type]
            self.means[label] = features[labels == label].mean(0)  # type: ignore[index,operator]


class Whitened(nn.Module):
    """The distance of two faces, each pixel's difference divided by its deviation among pairs of one person."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        height, width = spec.image_size
        self.scale = nn.Parameter(torch.ones(spec.channels * height * width), requires_grad=False)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        distance = ((first - second).flatten(1) / self.scale).square().mean(1, keepdim=True).sqrt()
        return 2 - distance  # type: ignore[no-any-return]

    def fit_features(self, batches: Iterable[torch.Tensor], *, pairs: torch.Tensor, labels: torch.Tensor) -> None:
        images = torch.cat(list(batches)).flatten(1)
        first, second = images[pairs[labels == 1]].unbind(1)
        self.scale.copy_((first - second).std(0) + 1e-3)


def nearest_mean(spec: DataSpec) -> nn.Module:
    return NearestMean(spec)


def whitened(spec: DataSpec) -> nn.Module:
    return Whitened(spec)


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = ModuleType("closed_form_toys")
    vars(module).update(nearest_mean=nearest_mean, whitened=whitened)
    monkeypatch.setitem(sys.modules, "closed_form_toys", module)

    def points(*, group: str) -> list[EntryPoint]:
        toys = ("nearest_mean", "whitened") if group == "bench.models" else ()
        return [*entry_points(group=group), *(EntryPoint(name, f"closed_form_toys:{name}", group) for name in toys)]

    monkeypatch.setattr(registry, "entry_points", points)
    registry.installed.cache_clear()
    yield
    registry.installed.cache_clear()


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    lfw_pairs.example(root)  # type: ignore[attr-defined]
    return root


def digits(*changes: str, precision: str = "fp32") -> Recipe:
    return parse(DIGITS + COMMON.format(precision=precision), path=Path("means.toml"), changes=changes)


def of_faces(root: Path, *changes: str) -> Recipe:
    text = FACES.format(root=root) + COMMON.format(precision="fp32")
    return parse(text, path=Path("whitened.toml"), changes=["train.loss=bce", "train.monitor=val_auroc", *changes])


def test_a_run_without_an_epoch_is_recorded_and_finished(capsys: pytest.CaptureFixture[str]) -> None:
    (finished,) = run.run(digits())
    info = finished.info()
    metrics = info["metrics"]
    assert info["status"] == "finished"
    assert (metrics["epochs"], metrics["best_epoch"], metrics["parameters"]) == (0, 0, 0)
    assert metrics["test_accuracy"] > 0.85  # nearest means reach about 90 % on these digits
    assert metrics["fit_seconds"] > 0
    assert finished.epochs() == []
    assert not finished.checkpoints.exists()
    assert {path.name for path in (finished.folder / "figures").iterdir()} >= {"confusion_test.png", "samples.png"}
    print_result([finished], "off")
    assert "test" in capsys.readouterr().out


def test_the_model_saw_each_training_image_once_and_as_it_will_predict() -> None:
    (finished,) = run.run(digits("data.validation=0.0"))
    means = load_file(finished.folder / "model.safetensors")["means"]
    from sklearn.datasets import load_digits

    plan = json.loads((finished.folder / "plan.json").read_text())
    tested = np.load(finished.folder / "predictions" / "test.npz")["ids"].tolist()
    kept = np.ones(1797, dtype=bool)
    kept[[int(name.rpartition("/")[2]) for name in tested]] = False
    bunch = load_digits()
    pixels = (bunch.data * 255 / 16).round().astype(np.uint8) / 255
    expected = [(pixels[kept & (bunch.target == label)].mean(0) - plan["mean"]) / plan["std"] for label in range(10)]
    assert np.allclose(means.numpy(), np.array(expected), atol=1e-4)  # a dropout of 0.9 would be seen


@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_a_model_without_parameters_is_calibrated_too(precision: str) -> None:
    (finished,) = run.run(digits("compute.memory_format=auto", precision=precision))
    plan = json.loads((finished.folder / "plan.json").read_text())
    assert plan["reasons"]["memory_format"].startswith("fastest of a few steps")
    assert finished.info()["metrics"]["test_accuracy"] > 0.85


def test_augmentations_and_averages_do_not_matter() -> None:
    (plain,) = run.run(digits())
    (other,) = run.run(digits('augment=[{name="affine"}]', "train.ema=0.9", "optimizer.name=sgd"))
    first, second = (load_file(known.folder / "model.safetensors") for known in (plain, other))
    assert torch.equal(first["means"], second["means"])


def test_nothing_to_train_needs_no_epochs() -> None:
    with pytest.raises(RecipeError, match=r"train.epochs: 'nearest_mean' has nothing to train") as error:
        run.run(digits("train.epochs=1"))
    assert error.value.hint == "--set train.epochs=0"


def test_a_run_that_was_stopped_goes_on() -> None:
    class Stop(Progress):
        def start_training(self, **_: object) -> None:
            raise KeyboardInterrupt

    (whole,) = run.run(digits())
    with pytest.raises(Interrupted):
        run.run(digits(), progress=Stop())
    (begun,) = run.unfinished(digits())
    assert begun.status() == "interrupted"
    (finished,) = run.resume(digits(), [begun])
    assert (finished, finished.status()) == (begun, "finished")
    assert run.unfinished(digits()) == []
    first, second = (load_file(known.folder / "model.safetensors") for known in (whole, finished))
    assert torch.equal(first["means"], second["means"])
    assert run.resume(digits(), [finished]) == [finished]
    assert len(list(record.list_runs())) == 2


def test_pairs_are_positions_among_the_images_that_are_handed_over(faces: Path) -> None:
    (finished,) = run.run(of_faces(faces, "data.validation=0.0"))
    scale = load_file(finished.folder / "model.safetensors")["scale"]
    plan = json.loads((finished.folder / "plan.json").read_text())
    same = []
    for person in range(12):  # the list pairs photographs 1 and 2 of each
        both = [decode(faces / f"lfw/Person_{person}/Person_{person}_000{n}.jpg", Decoding((8, 8), 1)) for n in (1, 2)]
        same.append((both[0].astype(float) - both[1]).ravel() / 255 / plan["std"][0])
    assert torch.allclose(scale.double(), torch.from_numpy(np.std(same, axis=0, ddof=1)) + 1e-3, atol=1e-4)
    assert finished.info()["metrics"]["test_auroc"] > 0.7


@pytest.mark.parametrize("threshold", [0.001, 0.999])
def test_a_given_threshold_judges_every_split(faces: Path, threshold: float) -> None:
    (finished,) = run.run(of_faces(faces, f"train.threshold={threshold}"))
    metrics = finished.info()["metrics"]
    evaluation = json.loads((finished.folder / "evaluation.json").read_text())
    assert metrics["threshold"] == threshold
    for split, prefix in (("validation", "val"), ("test", "test")):
        stored = np.load(finished.folder / "predictions" / f"{split}.npz")
        judged = stored["probabilities"][:, 1] >= threshold
        assert np.array_equal(stored["guesses"], judged)
        assert metrics[f"{prefix}_accuracy"] == pytest.approx((judged == stored["labels"]).mean())
        assert evaluation[split]["threshold"] == threshold


@pytest.mark.parametrize("given", ["1.0", "-0.1", "best"])
def test_a_threshold_that_no_score_can_have_is_refused(faces: Path, given: str) -> None:
    with pytest.raises(RecipeError) as error:
        of_faces(faces, f"train.threshold={given}")
    assert error.value.problems[0].startswith("train.threshold: ")
