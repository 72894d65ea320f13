"""The Python interface: load(...).predict(images)."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from bench.errors import BenchError
from bench.images import BadImage, Decoding, decode
from bench_export import load
from bench_export.prediction.numpy_steps import normalise, to_probabilities
from bench_export.predictor import Predictor

RED, GREEN, BLUE = (220, 20, 20), (10, 200, 30), (0, 0, 255)


@pytest.fixture
def colours(toy_models: ModuleType, tmp_path: Path) -> Predictor:
    return load(toy_models.classifier(tmp_path / "m.onnx"), device="cpu")


@pytest.fixture
def pairs(toy_models: ModuleType, tmp_path: Path) -> Predictor:
    return load(toy_models.verifier(tmp_path / "p.onnx", threshold=0.25), device="cpu")


def pixels(colour: tuple[int, int, int], size: tuple[int, int] = (9, 11)) -> np.ndarray:
    return np.full((*size, 3), colour, np.uint8)


def encoded(colour: tuple[int, int, int], form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(colour)).save(stream, form)
    return stream.getvalue()


def test_paths_strings_bytes_and_arrays_are_answered_alike(colours: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "blue.png"
    path.write_bytes(encoded(BLUE))
    answers = colours.predict([path, str(path), encoded(BLUE), pixels(BLUE)])
    assert answers.guesses.tolist() == [2, 2, 2, 2]
    assert (answers.probabilities.shape, answers.probabilities.dtype) == ((4, 3), np.float32)
    assert answers.errors == {}
    np.testing.assert_array_equal(answers.probabilities, np.repeat(answers.probabilities[:1], 4, axis=0))
    assert [colours.classes[guess] for guess in answers.guesses] == ["blue"] * 4


def test_one_image_is_not_taken_for_a_sequence(colours: Predictor) -> None:
    for single in ("blue.png", Path("blue.png"), encoded(BLUE), pixels(BLUE)):
        with pytest.raises(TypeError, match="a sequence of images"):
            colours.predict(single)  # type: ignore[arg-type]


def test_what_is_neither_image_nor_pair_is_a_bad_one(colours: Predictor, pairs: Predictor) -> None:
    assert "neither a path" in colours.predict([3]).errors[0]
    assert "no pair" in pairs.predict([encoded(BLUE)]).errors[0]


def test_a_whole_array_of_images_is_taken(colours: Predictor) -> None:
    images = np.stack([pixels(colour, (8, 8)) for colour in (RED, GREEN, BLUE)])
    answers = colours.predict(images, batch_size=2)
    assert answers.guesses.tolist() == [0, 1, 2]
    np.testing.assert_allclose(answers.probabilities, colours.session.run(images)[0], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_order_and_answers_do_not_depend_on_the_batch_size(colours: Predictor, batch_size: int) -> None:
    images: list[object] = [encoded(colour) for colour in (RED, GREEN, BLUE, GREEN, RED)]
    images[3] = b"broken"
    answers = colours.predict(images, batch_size=batch_size)
    assert answers.guesses.tolist() == [0, 1, 2, -1, 0]
    assert np.isnan(answers.probabilities).all(axis=1).tolist() == [False, False, False, True, False]
    assert list(answers.errors) == [3]
    assert "not an image" in answers.errors[3]


def test_the_report_ends_with_all_of_them_though_the_last_ones_are_bad(colours: Predictor) -> None:
    told: list[tuple[int, int]] = []
    colours.predict([encoded(RED), b"", b""], batch_size=1, report=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_nothing_asked_is_nothing_answered(colours: Predictor) -> None:
    answers = colours.predict([])
    assert (answers.probabilities.shape, answers.guesses.shape, answers.errors) == ((0, 3), (0,), {})


def test_a_stream_gives_a_batch_at_a_time(colours: Predictor) -> None:
    parts = list(colours.stream([encoded(RED), b"", encoded(BLUE)], batch_size=2))
    assert [part.guesses.tolist() for part in parts] == [[0, -1], [2]]
    assert [list(part.errors) for part in parts] == [[1], []]


def test_a_stream_that_is_left_early_ends(colours: Predictor) -> None:
    stream = colours.stream([encoded(RED)] * 100, batch_size=1)
    assert next(stream).guesses.tolist() == [0]
    stream.close()  # type: ignore[attr-defined]  # it is a generator


def test_what_is_no_image_is_said(colours: Predictor, tmp_path: Path) -> None:
    bad = [tmp_path / "gone.png", tmp_path, np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)]
    reasons = list(colours.predict(bad).errors.values())
    assert reasons[0] == "there is no such file"
    assert reasons[1] == "a folder"
    assert all("an array must be uint8" in reason for reason in reasons[2:])
    with pytest.raises(BadImage, match="no such file"):
        colours.prepare(tmp_path / "gone.png")


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_prepared_as_files_are(toy_models: ModuleType, tmp_path: Path, resize: str, channels: int) -> None:
    made = toy_models.classifier(tmp_path / "m.onnx", channels=channels, resize=resize, size=(10, 12))
    predictor = load(made, device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    expected = decode(tmp_path / "noise.png", Decoding((10, 12), channels, resize))  # type: ignore[arg-type]
    assert expected.shape == (10, 12, channels)
    np.testing.assert_array_equal(predictor.prepare(noise), expected)
    np.testing.assert_array_equal(predictor.prepare(tmp_path / "noise.png"), expected)
    grey = np.ascontiguousarray(noise[..., 0])
    np.testing.assert_array_equal(predictor.prepare(grey), predictor.prepare(grey[..., None]))


# Pairs


def test_pairs_have_a_score_and_an_answer_at_the_threshold(pairs: Predictor) -> None:
    near = (RED[0] - 60, RED[1] + 60, RED[2])
    answers = pairs.predict([(pixels(RED), encoded(RED)), (pixels(RED), pixels(BLUE)), (pixels(RED), pixels(near))])
    assert answers.guesses.tolist() == [1, 0, 1]
    np.testing.assert_allclose(answers.probabilities.sum(axis=1), 1, atol=1e-6)
    score, decision = pairs.session.run(*(np.stack([one] * 3) for one in (pixels(RED), pixels(RED))))
    assert answers.probabilities[0, 1] == pytest.approx(score[0])
    assert decision.tolist() == [True] * 3


def test_the_answer_is_the_files_own_decision_on_the_threshold_itself(toy_models: ModuleType, tmp_path: Path) -> None:
    first, second = pixels(RED)[None], pixels(GREEN)[None]
    score = float(load(toy_models.verifier(tmp_path / "a.onnx")).session.run(first, second)[0][0])
    for threshold in (score, float(np.nextafter(np.float32(score), np.float32(1)))):
        predictor = load(toy_models.verifier(tmp_path / "b.onnx", threshold=threshold))
        [guess] = predictor.guesses(predictor.run(first, second))
        assert bool(guess) == bool(predictor.session.run(first, second)[1][0])


def test_of_a_bad_pair_both_sides_are_told(pairs: Predictor) -> None:
    answers = pairs.predict([(b"", pixels(RED)), (pixels(RED), b""), (b"", b""), (pixels(RED), pixels(RED))])
    assert answers.errors == {
        0: "first: empty file",
        1: "second: empty file",
        2: "first: empty file; second: empty file",
    }
    assert answers.guesses.tolist() == [-1, -1, -1, 1]


# Files without pre- and postprocessing


@pytest.mark.parametrize("kind", ["classifier", "verifier"])
def test_a_raw_file_answers_as_a_full_one(toy_models: ModuleType, tmp_path: Path, kind: str) -> None:
    make = getattr(toy_models, kind)
    full, raw = load(make(tmp_path / "full.onnx")), load(make(tmp_path / "raw.onnx", raw=True))
    noise = np.random.default_rng(0).integers(0, 256, (2, 5, 20, 20, 3), np.uint8)
    images = list(noise[0]) if kind == "classifier" else list(zip(*noise, strict=True))
    one, other = full.predict(images), raw.predict(images)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    np.testing.assert_array_equal(one.guesses, other.guesses)


def test_normalise_and_probabilities_are_those_of_training(colours: Predictor) -> None:
    import torch

    from bench.stages.batches import Preprocessing
    from bench.stages.optim import probabilities

    random = np.random.default_rng(0)
    batch = random.integers(0, 256, (4, 8, 8, 3), np.uint8)
    how = colours.card.preprocessing
    trained = Preprocessing(how.mean, how.std, torch.contiguous_format)
    expected = trained.normalise(trained.scale(torch.from_numpy(batch))).numpy()
    np.testing.assert_allclose(normalise(batch, how), expected, atol=1e-6)
    for loss, width in (("cross_entropy", 5), ("bce", 5), ("bce", 1), ("contrastive", 1)):
        outputs = np.abs(random.normal(size=(6, width)) * 50).astype(np.float32)
        known = probabilities(torch.from_numpy(outputs), loss).numpy()
        np.testing.assert_allclose(to_probabilities(outputs, loss), known, atol=1e-6)
        assert to_probabilities(outputs, loss).dtype == np.float32


# What cannot be loaded


def test_a_file_that_is_not_ours_says_what_takes_it(toy_models: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="does not say its classes") as refused:
        load(toy_models.foreign(tmp_path / "m.onnx"))
    assert "--labels" in str(refused.value.hint)


def test_a_path_may_be_text(toy_models: ModuleType, tmp_path: Path) -> None:
    assert load(str(toy_models.classifier(tmp_path / "m.onnx"))).classes == ("red", "green", "blue")


def test_pairs_with_other_classes_are_damaged(toy_models: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="damaged"):
        load(toy_models.verifier(tmp_path / "m.onnx", classes=("no", "yes")))


def test_importing_the_interface_imports_nothing_heavy() -> None:
    program = "import sys, bench_export.predictor; print(*(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "onnxruntime", "onnx", "rich", "mlflow", "pydantic", "scipy"}
