"""Pairs of images through a whole run: recorded, judged at one threshold, fold by fold, and gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from bench import record, run
from bench.errors import BenchError, DataError, Interrupted, PluginError, RecipeError
from bench.group import summarise
from bench.progress import Progress
from bench.recipe import Recipe, parse
from bench.result_tables import print_result
from bench.stages.train import Trainer

_PERSONS, _PHOTOS, _FOLDS = 24, 4, 4

RECIPE = """
experiment = "faces"
[dataset]
name = "lfw_pairs"
root = "{root}"
[data]
size = 16
validation = 0.25
[model]
name = "siamese"
embedding = [16]
[[model.blocks]]
channels = 8
kernel = 3
pool = 2
batch_norm = true
[[augment]]
name = "horizontal_flip"
[train]
epochs = 3
batch_size = 8
loss = "bce"
monitor = "val_auroc"
[optimizer]
name = "adam"
lr = 1e-2
[compute]
precision = "fp32"
memory_format = "contiguous"
threads = 1
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs whose brightness and stripes tell persons apart, with the lists of both views."""
    root = tmp_path_factory.mktemp("faces")
    random = np.random.default_rng(0)
    for person in range(_PERSONS):
        place = root / "lfw" / f"P_{person}"
        place.mkdir(parents=True)
        stripes = np.sin(np.arange(16) * (0.4 + person % 6 / 3))[:, None] * 40
        for number in range(1, _PHOTOS + 1):
            pixels = 60 + person * 6 + stripes + random.normal(0, 6, (16, 16))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"P_{person}_{number:04d}.png")
            (place / f"P_{person}_{number:04d}.png").rename(place / f"P_{person}_{number:04d}.jpg")
    write_list(root / "pairsDevTrain.txt", [range(16)])
    write_list(root / "pairsDevTest.txt", [range(16, _PERSONS)])
    size = _PERSONS // _FOLDS
    write_list(root / "pairs.txt", [range(fold * size, (fold + 1) * size) for fold in range(_FOLDS)], folds=True)
    return root


def write_list(path: Path, parts: list[range], *, folds: bool = False) -> None:
    """A list of pairs in LFW's form: for each part two matched pairs a person, then as many mismatched ones."""
    lines = [f"{len(parts)}\t{2 * len(parts[0])}" if folds else f"{2 * len(parts[0])}"]
    for persons in parts:
        lines += [f"P_{person}\t{a}\t{b}" for person in persons for a, b in ((1, 2), (3, 4))]
        lines += [
            f"P_{person}\t{photo}\tP_{persons[(index + photo) % len(persons)]}\t{photo + 1}"
            for index, person in enumerate(persons)
            for photo in (1, 2)
        ]
    path.write_text("\n".join(lines), encoding="utf-8")


def recipe(root: Path, *changes: str) -> Recipe:
    return parse(RECIPE.format(root=root), path=Path("faces.toml"), changes=changes)


def test_a_run_of_pairs_records_scores_a_threshold_and_the_curve(faces: Path) -> None:
    (finished,) = run.run(recipe(faces))
    metrics = finished.info()["metrics"]
    evaluation = json.loads((finished.folder / "evaluation.json").read_text())
    assert metrics["test_auroc"] > 0.6
    assert finished.info()["dataset"]["counts"]["test"] == {"different": 16, "same": 16}
    for name in ("accuracy", "auroc", "eer", "tar_at_far_0.01", "tar_at_far_0.001"):
        assert metrics[f"test_{name}_low"] <= metrics[f"test_{name}"] <= metrics[f"test_{name}_high"]
    assert evaluation["test"]["threshold"] == metrics["threshold"]
    assert evaluation["test"]["far_step"] == 1 / 16
    figures = {path.name for path in (finished.folder / "figures").glob("*.png")}
    assert {"roc_test.png", "scores_test.png", "samples.png", "augmentations.png", "curves.png"} <= figures


def test_the_threshold_is_kept_with_the_weights_and_decides_the_test(faces: Path) -> None:
    (finished,) = run.run(recipe(faces))
    threshold = finished.info()["metrics"]["threshold"]
    with safe_open(finished.folder / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["state"])["threshold"] == threshold
    with np.load(finished.folder / "predictions" / "test.npz") as stored:
        assert np.array_equal(stored["guesses"], stored["probabilities"][:, 1] >= threshold)
        assert (stored["guesses"] == stored["labels"]).mean() == pytest.approx(
            finished.info()["metrics"]["test_accuracy"]
        )
        assert len(set(stored["ids"].tolist())) == 32


def test_without_validation_pairs_the_training_pairs_choose_the_threshold(faces: Path) -> None:
    (finished,) = run.run(recipe(faces, "data.validation=0.0", "train.monitor=train_loss", "train.keep=last"))
    assert set(json.loads((finished.folder / "evaluation.json").read_text())) == {"test"}
    assert 0 < finished.info()["metrics"]["threshold"] < 1


def test_distances_are_learnt_with_the_contrastive_loss(faces: Path) -> None:
    (finished,) = run.run(recipe(faces, "model.distance=euclidean", "train.loss=contrastive", "train.margin=2.0"))
    losses = [line["values"]["train_loss"] for line in finished.epochs()]
    assert losses[-1] < losses[0]
    assert finished.info()["metrics"]["test_auroc"] > 0.6


def test_ten_folds_are_runs_of_their_own_and_every_pair_is_tested_once(
    faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = run.run(recipe(faces, "dataset.view=2", "train.epochs=1", "seeds=[0, 1]"))
    assert [(known.info()["fold"], known.info()["seed"]) for known in runs] == [
        (fold, seed) for fold in range(_FOLDS) for seed in (0, 1)
    ]
    tested = [
        name for known in runs[::2] for name in np.load(known.folder / "predictions" / "test.npz")["ids"].tolist()
    ]
    assert len(tested) == len(set(tested)) == _FOLDS * 24
    print_result([record.Run(known.folder) for known in runs], "off")
    accuracies = np.reshape([known.info()["metrics"]["test_accuracy"] for known in runs], (_FOLDS, 2)).mean(1)
    error = np.std(accuracies, ddof=1) / _FOLDS**0.5  # seeds of one fold share its test pairs
    assert f"{np.mean(accuracies):.2%} ± {error:.2%}" in capsys.readouterr().out
    summary = summarise([known.info() for known in runs])
    assert summary["test"] == {
        "mean": pytest.approx(np.mean(accuracies)),
        "standard_error": pytest.approx(error),
        "folds": _FOLDS,
    }


def test_the_mean_and_deviation_of_a_fold_are_those_of_its_training_images(faces: Path) -> None:
    runs = run.run(recipe(faces, "dataset.view=2", "train.epochs=1"))
    means = {json.dumps(json.loads((known.folder / "plan.json").read_text())["mean"]) for known in runs}
    assert len(means) == _FOLDS


def test_stopped_folds_go_on_and_those_not_begun_are_started(faces: Path) -> None:
    given = recipe(faces, "dataset.view=2", "train.epochs=2")
    whole = run.run(given)

    class Stop(Progress):
        def epoch(self, *_: object, **__: object) -> None:
            if len(list(record.list_runs())) == _FOLDS + 2:
                raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        run.run(given, progress=Stop())
    begun = run.unfinished(given)
    assert len(begun) == 2
    finished = run.resume(given, begun)
    assert len(finished) == _FOLDS
    assert not run.unfinished(given)
    for first, second in zip(whole, finished, strict=True):
        one, two = (load_file(known.folder / "model.safetensors") for known in (first, second))
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_features_of_a_frozen_twin_are_cached_once_an_image(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    from bench_plugins.models.siamese import Siamese

    original = Siamese.forward_features

    def counted(self: Siamese, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return original(self, images)

    monkeypatch.setattr(Siamese, "forward_features", counted)
    epochs: list[int] = []
    fit = Trainer.fit

    def noted(self: Trainer, *, resume: bool = False) -> object:
        epochs.append(sum(seen))
        result = fit(self, resume=resume)
        epochs.append(sum(seen))
        return result

    monkeypatch.setattr(Trainer, "fit", noted)
    run.run(recipe(faces, 'model.freeze=["twin"]', "train.views=2", "train.epochs=4"))
    before, after = epochs
    assert after == before  # no epoch has computed a feature
    assert before <= 2 * 16 * _PHOTOS + 16 * _PHOTOS


def test_training_goes_on_from_the_weights_of_a_recorded_run(faces: Path) -> None:
    (first,) = run.run(recipe(faces))
    (second,) = run.run(recipe(faces, f"model.weights=runs:/{first.name}", "train.epochs=1", "optimizer.lr=1e-12"))
    one, two = (load_file(known.folder / "model.safetensors") for known in (first, second))
    assert all(
        torch.allclose(one[name], two[name], atol=1e-6) for name in one if "running" not in name and "num" not in name
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.loss=cross_entropy"], "train.loss: 'cross_entropy' is not for verification"),
        (["train.monitor=val_macro_f1"], "train.monitor: 'val_macro_f1' is not tracked for verification"),
        (["augment.0.name=mixup"], "mixup mixes images and their targets"),
        (["train.loss=contrastive"], "'contrastive' takes a distance, but the model returns a logit"),
        (["model.distance=euclidean"], "'bce' takes a logit, but the model returns a distance"),
    ],
)
def test_what_does_not_go_with_pairs_is_refused(faces: Path, changes: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        run.run(recipe(faces, *changes))


def test_too_few_identities_for_a_validation_split_are_explained(faces: Path) -> None:
    with pytest.raises(DataError, match="too few identities"):
        run.run(recipe(faces, "data.validation=0.001"))


def test_a_fold_that_cannot_be_divided_is_noticed_before_the_first_trains(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "lfw").symlink_to(faces / "lfw")
    write_list(tmp_path / "pairs.txt", [range(3), range(3, 6)], folds=True)
    with pytest.raises(DataError, match="too few identities"):
        run.run(recipe(tmp_path, "dataset.view=2", "data.validation=0.4"))
    assert not list(record.list_runs())


@pytest.mark.parametrize("box", ["[8, 0, 4, 16]", "[0, 0, 40, 16]"])
def test_a_box_that_is_no_part_of_the_photographs_names_the_option(faces: Path, box: str) -> None:
    with pytest.raises(DataError, match="is no part of the 16 x 16 pixels") as error:
        run.run(recipe(faces, f"dataset.box={box}"))
    assert "--set dataset.box" in str(error.value.hint)


def test_a_model_of_one_image_is_refused(faces: Path) -> None:
    text = RECIPE.format(root=faces)
    start, end = text.index("[model]"), text.index("[[augment]]")
    given = parse(text[:start] + '[model]\nname = "cnn"\n' + text[end:], path=Path("faces.toml"))
    with pytest.raises(RecipeError, match="'cnn' takes 1 batch of images; verification needs a model of 2"):
        run.run(given)


def test_a_model_of_two_images_declines_a_classification() -> None:
    text = RECIPE.format(root="x").replace('name = "lfw_pairs"', 'name = "digits"')
    given = parse(text, path=Path("digits.toml"), changes=["train.loss=cross_entropy", "train.monitor=val_accuracy"])
    with pytest.raises(PluginError, match="siamese compares pairs of images"):
        run.run(given)


def test_an_identity_in_both_splits_is_an_error(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "lfw").symlink_to(faces / "lfw")
    write_list(tmp_path / "pairsDevTrain.txt", [range(16)])
    write_list(tmp_path / "pairsDevTest.txt", [range(14, 20)])
    with pytest.raises(DataError, match="P_14"):
        run.run(recipe(tmp_path))


def test_a_run_whose_weights_are_asked_for_must_exist(faces: Path) -> None:
    with pytest.raises(BenchError, match="no run 'nowhere'"):
        run.run(recipe(faces, "model.weights=runs:/nowhere"))
