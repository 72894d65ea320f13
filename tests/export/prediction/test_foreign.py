"""Files of other programs: what is missing is said, and with --labels and --preprocess they work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from bench.errors import BenchError, RecipeError
from bench.images import Decoding, decode
from bench_export.prediction.foreign import ForeignPredictor, describe_foreign
from bench_export.session import open_session

Run = Callable[..., Any]

HALF = "mean=0.5 std=0.5 output=logits"


@pytest.fixture
def foreign(toy_models: ModuleType, tmp_path: Path) -> Path:
    made: Path = toy_models.foreign(tmp_path / "foreign.onnx")
    return made


def described(path: Path, preprocess: str = HALF, labels: str = "red,green,blue") -> ForeignPredictor:
    return describe_foreign(open_session(path, device="cpu"), labels=labels, preprocess=preprocess)


def identity(path: Path, shape: list[int | str], *, kind: int = TensorProto.FLOAT, out: str = "mean") -> Path:
    """A model that gives back its input: the mean of each channel (or row, or all of it), to see what reaches a model."""
    nodes = [helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT)]
    constants = []
    if out != "all":
        axes = [1, 3] if out == "rows" else [2, 3] if shape[1] in {1, 3} else [1, 2]
        constants.append(onnx.numpy_helper.from_array(np.array(axes, np.int64), "axes"))
        nodes.append(helper.make_node("ReduceMean", ["float", "axes"], ["y"], keepdims=0))
    else:
        nodes.append(helper.make_node("Identity", ["float"], ["y"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "identity", [value("x", kind, shape)], [value("y", TensorProto.FLOAT, None)], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


# What is missing


def test_everything_that_is_missing_is_said_at_once_with_an_example(
    run_bench: Run, foreign: Path, photos: Path
) -> None:
    told = run_bench("predict", foreign, photos)
    assert told.code == 2
    for said in ("no file of bench export", "--labels: ", "--preprocess mean=...", "--preprocess std=...",
                 "--preprocess output=...: logits or probabilities", "for example: bench predict"):  # fmt: skip
        assert said in told.err
    assert "size=.." not in told.err  # the shape of its input says it


def test_the_example_works_when_it_is_typed_in(foreign: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        described(foreign, "filter=box")
    example = str(refused.value.hint).partition('--preprocess "')[2].rstrip('"')
    assert "filter=box" in example
    assert described(foreign, example).card.preprocessing.filter == "box"


def test_a_free_size_must_be_given(tmp_path: Path) -> None:
    path = identity(tmp_path / "free.onnx", ["N", 3, "H", "W"])
    with pytest.raises(RecipeError, match=r"--preprocess size=\.\.\.: height and width"):
        described(path)
    assert described(path, f"{HALF} size=12x10").card.preprocessing.size == (12, 10)


@pytest.mark.parametrize(
    ("value", "said"),
    [("sise=8", 'sise: no such key; did you mean "size"'), ("size=big", "size=big: height and width"),
     ("size=0", "size=0"), ("resize=stretch", "squash (default), crop or pad"), ("filter=cubic", "bicubic"),
     ("std=0", "std=0"), ("mean=nan", "mean=nan"), ("output=logit", "logits or probabilities"),
     ("channels=2", "channels=2: 1 or 3"), ("layout=chw", "nchw or nhwc"), ("scale=0", "scale=0"), ("scale=nan", "scale=nan"), ("size=100000", "size=100000"),
     ("mean=1,2", "2 values for 3 channels"), ("size", "'size' is not KEY=VALUE")],
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_it_may_be(foreign: Path, value: str, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        described(foreign, f"{HALF} {value}")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("labels", "said"),
    [("gone.txt", "there is no such file"), ("a,,c", "none of them empty"), ("a,b", "3 outputs, but --labels names 2")],
)
def test_wrong_labels_are_said(foreign: Path, labels: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        described(foreign, labels=labels)


def test_a_damaged_or_missing_file_of_keys_is_said(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("size = = 3", encoding="utf-8")
    with pytest.raises(RecipeError, match="no TOML"):
        described(foreign, str(tmp_path / "bad.toml"))
    with pytest.raises(RecipeError, match="No such file"):
        described(foreign, str(tmp_path / "gone.toml"))


def test_a_model_of_something_else_is_refused(tmp_path: Path) -> None:
    path = identity(tmp_path / "table.onnx", ["N", 17], out="all")
    with pytest.raises(BenchError, match=r"no model of single images: its inputs are x tensor\(float\)"):
        described(path)


# What works


def test_it_predicts_with_labels_and_preprocess(run_bench: Run, foreign: Path, photos: Path) -> None:
    told = run_bench("predict", foreign, photos, "--labels", "red,green,blue", "--preprocess", HALF)
    assert told.code == 0
    assert [line.split()[1] for line in told.out.splitlines()] == ["class", "green", "red", "blue"]


def test_both_may_be_files(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("crane\nmug\n\ncrane\n", encoding="utf-8")
    text = 'size = [8, 8]\nmean = [0.5, 0.4, 0.3]\nstd = 0.5\noutput = "logits"\nresize = "pad"\n'
    (tmp_path / "keys.toml").write_text(text, encoding="utf-8")
    card = described(foreign, str(tmp_path / "keys.toml"), str(tmp_path / "names.txt")).card
    assert card.classes == ("crane", "mug", "crane (2)")
    assert (card.preprocessing.resize, card.preprocessing.mean) == ("pad", (0.5, 0.4, 0.3))


def test_many_names_are_no_path_that_is_too_long(foreign: Path) -> None:
    with pytest.raises(RecipeError, match="names 999 classes"):
        described(foreign, labels=",".join(f"name {number}" for number in range(999)))


def test_logits_become_probabilities_and_probabilities_stay(
    toy_models: ModuleType, tmp_path: Path, photos: Path
) -> None:
    logits = described(toy_models.foreign(tmp_path / "logits.onnx"))
    chances = described(
        toy_models.foreign(tmp_path / "chances.onnx", logits=False), HALF.replace("logits", "probabilities")
    )
    images = sorted(photos.glob("*.*g"))
    found, expected = logits.predict(images).probabilities, chances.predict(images).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_layout_order_scale_mean_and_std_reach_the_model(tmp_path: Path, layout: str, order: str) -> None:
    shape: list[int | str] = ["N", 3, 6, 5] if layout == "nchw" else ["N", 6, 5, 3]
    path = identity(tmp_path / "identity.onnx", shape)
    keys = f"scale=1 mean=10,20,30 std=1,2,3 output=probabilities order={order}"
    answer = described(path, keys).run(np.full((1, 6, 5, 3), (110, 120, 130), np.uint8))
    values = np.array([110, 120, 130])[:: -1 if order == "bgr" else 1]
    np.testing.assert_allclose(answer, [(values - [10, 20, 30]) / [1, 2, 3]], rtol=1e-6)


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.FLOAT16])
def test_other_number_types_are_fed(tmp_path: Path, kind: int) -> None:
    path = identity(tmp_path / "typed.onnx", ["N", 3, 4, 4], kind=kind)
    keys = "output=probabilities" + ("" if kind == TensorProto.UINT8 else " scale=1 mean=0 std=1")
    answer = described(path, keys).run(np.full((2, 4, 4, 3), (1, 2, 3), np.uint8))
    np.testing.assert_allclose(answer, [[1, 2, 3], [1, 2, 3]], rtol=1e-3)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_filled(tmp_path: Path, batch: int) -> None:
    path = identity(tmp_path / "fixed.onnx", [batch, 3, 4, 4])
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    answer = described(path, "scale=1 mean=0 std=1 output=probabilities").run(images)
    np.testing.assert_allclose(answer, images.mean(axis=(1, 2)), rtol=1e-5)


def test_one_output_is_the_probability_of_the_second_name(tmp_path: Path) -> None:
    path = identity(tmp_path / "one.onnx", ["N", 1, 4, 4])
    predictor = described(path, "mean=0 std=1 output=probabilities", "no,yes")
    np.testing.assert_allclose(predictor.run(np.full((1, 4, 4, 1), 51, np.uint8)), [[0.8, 0.2]], rtol=1e-6)


def test_resize_and_filter_are_those_of_pillow(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    predictor = described(identity(tmp_path / "i.onnx", ["N", 3, 16, 16]), f"{HALF} resize=crop filter=lanczos")
    expected = decode(tmp_path / "noise.png", Decoding((16, 16), 3, "crop", "lanczos"))
    np.testing.assert_array_equal(predictor.prepare(tmp_path / "noise.png"), expected)


def test_a_number_of_outputs_that_the_file_does_not_state_is_checked_when_it_answers(tmp_path: Path) -> None:
    path = identity(tmp_path / "i.onnx", ["N", 3, "H", "W"], out="rows")
    predictor = described(path, f"{HALF} size=4", "a,b,c")
    with pytest.raises(RecipeError, match="4 classes, but --labels names 3"):
        predictor.run(np.zeros((1, 4, 4, 3), np.uint8))


def test_a_size_that_the_file_does_not_take_is_said(foreign: Path) -> None:
    predictor = described(foreign, f"{HALF} size=9")
    with pytest.raises(BenchError, match=r"it does not take float32 \(1, 3, 9, 9\)"):
        predictor.run(np.zeros((1, 9, 9, 3), np.uint8))
