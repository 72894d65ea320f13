"""bench predict: from the paths to what is printed and the exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench_export import load

Run = Callable[..., Any]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# Formats


def test_the_table_says_image_class_and_probability(run_bench: Run, colours: Path, photos: Path) -> None:
    told = run_bench("predict", colours, photos)
    assert told.code == 0
    assert told.err == ""
    lines = [line.split() for line in told.out.splitlines()]
    assert lines[0] == ["image", "class", "probability"]
    assert [line[:2] for line in lines[1:]] == [
        [f"{photos}/green.jpg", "green"],
        [f"{photos}/red.png", "red"],
        [f"{photos}/below/blue.png", "blue"],
    ]
    assert all(float(line[2].rstrip("%")) > 99 for line in lines[1:])


def test_top_gives_a_line_a_class_best_first(run_bench: Run, colours: Path, photos: Path) -> None:
    told = run_bench("predict", colours, photos / "green.jpg", "--top", "2")
    assert [line.split()[-2] for line in told.out.splitlines()[1:]] == ["green", "blue"]
    everything = run_bench("predict", colours, photos / "green.jpg", "--probabilities")
    assert len(everything.out.splitlines()) == 4
    assert everything.out == run_bench("predict", colours, photos / "green.jpg", "--top", "99").out


def test_csv_and_json_hold_what_the_python_interface_says(run_bench: Run, colours: Path, photos: Path) -> None:
    expected = load(colours).predict([photos / "red.png"]).probabilities[0]
    arguments = ("predict", colours, photos / "red.png", "--top", "2", "--probabilities", "--format")
    [row] = rows(run_bench(*arguments, "csv").out)
    assert list(row) == [
        "image", "class", "probability", "class_2", "probability_2", "p(red)", "p(green)", "p(blue)", "error",
    ]  # fmt: skip
    assert (row["image"], row["class"], row["error"]) == (str(photos / "red.png"), "red", "")
    assert [float(row[f"p({name})"]) for name in ("red", "green", "blue")] == pytest.approx(expected, rel=1e-6)
    value = json.loads(run_bench(*arguments, "json").out)
    assert value["schema"] == 1
    assert (value["task"], value["precision"], value["classes"]) == ("classification", "fp32", ["red", "green", "blue"])
    assert value["providers"] == ["CPUExecutionProvider"]
    [answer] = value["answers"]
    assert answer["class"] == "red"
    assert [one["class"] for one in answer["top"]] == ["red", "green"]
    assert list(answer["probabilities"].values()) == pytest.approx(expected, rel=1e-6)


def test_a_file_takes_its_format_from_its_name(run_bench: Run, colours: Path, photos: Path, tmp_path: Path) -> None:
    for name, form in (("a.csv", "csv"), ("a.json", "json"), ("a.txt", "table")):
        printed = run_bench("predict", colours, photos, "--format", form).out
        told = run_bench("predict", colours, photos, "--output", tmp_path / name)
        assert told.out == ""
        assert (tmp_path / name).read_text(encoding="utf-8") == printed


def test_on_a_terminal_no_line_is_longer_than_it(colours: Path, photos: Path) -> None:
    deep = photos / "a-rather-long-name-of-a-folder" / "and-one-more-of-them-below-it" / "the-image-itself.png"
    deep.parent.mkdir(parents=True)
    deep.write_bytes((photos / "red.png").read_bytes())
    terminal, other = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "bench", "predict", str(colours), str(photos)]
    subprocess.run(command, env=environment, stdout=other, check=True)
    os.close(other)
    lines = os.read(terminal, 65536).decode().splitlines()
    os.close(terminal)
    assert len(lines) == 5
    assert max(map(len, lines)) <= 80
    assert any("…" in line and "the-image-itself.png" in line for line in lines)


# Pairs


def test_pairs_are_answered_with_their_score(run_bench: Run, pairs: Path, photos: Path) -> None:
    red, green = photos / "red.png", photos / "green.jpg"
    told = run_bench("predict", pairs, red, green, red, red)
    assert [line.split()[2] for line in told.out.splitlines()] == ["answer", "different", "same"]
    value = json.loads(run_bench("predict", pairs, red, green, red, red, "--format", "json").out)
    assert value["threshold"] == 0.5
    assert [(one["first"], one["answer"]) for one in value["answers"]] == [(str(red), "different"), (str(red), "same")]
    table = rows(run_bench("predict", pairs, red, photos, "--format", "csv").out)
    assert [row["answer"] for row in table] == ["different", "same", "different"]
    assert list(table[0]) == ["first", "second", "answer", "score", "error"]


# Bad images


def test_bad_images_are_listed_and_nothing_else_is_lost(run_bench: Run, colours: Path, bad_photos: Path) -> None:
    told = run_bench("predict", colours, bad_photos)
    assert told.code == 1
    assert [line.split()[1] for line in told.out.splitlines()] == ["class", "green", "red", "blue"]
    assert "3 of 6 could not be used" in told.err
    assert f"{bad_photos}/empty.png: empty file" in told.err
    assert f"{bad_photos}/torn.jpg: damaged" in told.err
    assert f"{bad_photos}/page.gif: not an image but HTML" in told.err
    assert "--skip-bad" in told.err


def test_skip_bad_exits_with_0_and_still_says_why(run_bench: Run, colours: Path, bad_photos: Path) -> None:
    told = run_bench("predict", colours, bad_photos, "--skip-bad", "--batch-size", "1")
    assert told.code == 0
    assert "warning: 3 of 6 could not be used" in told.err
    assert len(told.out.splitlines()) == 4


def test_bad_images_stand_in_csv_and_json_with_their_reasons(run_bench: Run, colours: Path, bad_photos: Path) -> None:
    table = {
        Path(row["image"]).name: row for row in rows(run_bench("predict", colours, bad_photos, "--format", "csv").out)
    }
    assert len(table) == 6
    assert table["empty.png"] == {
        "image": f"{bad_photos}/empty.png",
        "class": "",
        "probability": "",
        "error": "empty file",
    }
    value = json.loads(run_bench("predict", colours, bad_photos, "--format", "json").out)
    assert len(value["answers"]) == 3
    assert {"image": f"{bad_photos}/empty.png", "reason": "empty file"} in value["bad"]


def test_a_file_with_bad_images_is_written_all_the_same(
    run_bench: Run, colours: Path, bad_photos: Path, tmp_path: Path
) -> None:
    assert run_bench("predict", colours, bad_photos, "--output", tmp_path / "a.csv").code == 1
    assert len(rows((tmp_path / "a.csv").read_text(encoding="utf-8"))) == 6


def test_a_file_that_cannot_be_written_is_said(run_bench: Run, colours: Path, photos: Path) -> None:
    told = run_bench("predict", colours, photos, "--output", photos / "red.png" / "answers.csv")
    assert told.code == 1
    assert "answers.csv: cannot be written" in told.err


def test_a_reader_that_has_enough_ends_it_quietly(colours: Path, photos: Path) -> None:
    (photos / "list.txt").write_text("red.png\n" * 1000, encoding="utf-8")
    command = f"{sys.executable} -m bench predict {colours} {photos / 'list.txt'} | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["image", "class", "probability"]
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_of_a_bad_pair_the_side_is_named(run_bench: Run, pairs: Path, bad_photos: Path) -> None:
    told = run_bench("predict", pairs, bad_photos / "red.png", bad_photos / "empty.png")
    assert told.code == 1
    assert "second: empty file" in told.err


def test_what_a_list_names_and_is_not_there_is_a_bad_image(run_bench: Run, colours: Path, photos: Path) -> None:
    (photos / "list.txt").write_text("red.png\ngone.png\nbelow\n", encoding="utf-8")
    told = run_bench("predict", colours, photos / "list.txt")
    assert told.code == 1
    assert "gone.png: there is no such file" in told.err
    assert "below: a folder" in told.err
    assert f"{photos}/red.png" in told.out


def test_names_that_cannot_be_printed_do_not_stop_it(colours: Path, photos: Path) -> None:
    odd = os.fsencode(photos) + b"/caf\xe9.png"
    with open(odd, "wb") as file:  # noqa: PTH123  # a name in no encoding
        file.write((photos / "red.png").read_bytes())
    command = [sys.executable, "-m", "bench", "predict", str(colours), "-"]
    done = subprocess.run(command, input=odd + b"\n", capture_output=True, check=True)
    assert b"red" in done.stdout.splitlines()[1]


def test_a_name_steers_no_terminal_and_breaks_no_line(run_bench: Run, colours: Path, photos: Path) -> None:
    odd = photos / "o\x1b[31md\nd.png"
    odd.write_bytes((photos / "red.png").read_bytes())
    bad = photos / "b\nad.png"
    bad.write_bytes(b"<html>")
    told = run_bench("predict", colours, odd, bad)
    assert len(told.out.splitlines()) == 2
    assert r"o\x1b[31md\nd.png" in told.out
    assert r"b\nad.png: not an image" in told.err


def test_an_answer_that_is_not_finite_is_no_answer(
    run_bench: Run, toy_models: ModuleType, photos: Path, tmp_path: Path
) -> None:
    import onnx

    path = toy_models.classifier(tmp_path / "nan.onnx")
    proto = onnx.load(path)
    for constant in proto.graph.initializer:
        if constant.name == "bias":
            constant.CopyFrom(onnx.numpy_helper.from_array(np.full(3, np.nan, np.float32), "bias"))
    onnx.save(proto, path)
    told = run_bench("predict", path, photos / "red.png")
    assert told.code == 1
    assert "not a finite number" in told.err


# The model


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("missing.onnx", 2, "there is no such file"), ("folder.onnx", 2, "a folder"), ("empty.onnx", 1, "empty"),
     ("text.onnx", 1, "no ONNX model"), ("torn.onnx", 1, "truncated"), ("image.onnx", 1, "no ONNX model")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["predict", "inspect"])
def test_what_is_no_model_is_said(
    run_bench: Run, colours: Path, photos: Path, command: str, name: str, code: int, said: str
) -> None:
    folder = colours.parent
    (folder / "folder.onnx").mkdir()
    (folder / "empty.onnx").touch()
    (folder / "text.onnx").write_text("I am not a model.\n", encoding="utf-8")
    (folder / "torn.onnx").write_bytes(colours.read_bytes()[:-100])
    (folder / "image.onnx").write_bytes((photos / "red.png").read_bytes())
    told = run_bench(command, folder / name, *([photos] if command == "predict" else []))
    assert told.code == code
    assert f"{name}: " in told.err
    assert said in told.err
    assert told.out == ""


def test_labels_are_refused_where_the_file_has_its_own(run_bench: Run, colours: Path, photos: Path) -> None:
    told = run_bench("predict", colours, photos, "--labels", "a,b,c")
    assert told.code == 2
    assert "says its classes and its preprocessing itself" in told.err


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU")
def test_cuda_that_is_not_there_is_an_error_and_not_a_silent_cpu(run_bench: Run, colours: Path, photos: Path) -> None:
    told = run_bench("predict", colours, photos, "--device", "cuda")
    assert told.code in {1, 2}
    assert told.out == ""
    assert "CUDA" in told.err
    assert "--device cpu" in told.err


def test_a_file_without_preprocessing_is_prepared_by_us(
    run_bench: Run, toy_models: ModuleType, photos: Path, tmp_path: Path
) -> None:
    raw = run_bench("predict", toy_models.classifier(tmp_path / "raw.onnx", raw=True), photos)
    full = run_bench("predict", toy_models.classifier(tmp_path / "full.onnx"), photos)
    assert raw.out == full.out
    one, other = photos / "red.png", photos / "green.jpg"
    raw = run_bench("predict", toy_models.verifier(tmp_path / "raw-pairs.onnx", raw=True), one, other, one, one)
    full = run_bench("predict", toy_models.verifier(tmp_path / "full-pairs.onnx"), one, other, one, one)
    assert raw.out == full.out


# The start


def test_neither_torch_nor_anything_else_heavy_is_imported(colours: Path, photos: Path) -> None:
    program = f"""
import sys
sys.argv = ["bench", "predict", {str(colours)!r}, {str(photos / "red.png")!r}]
from bench.cli import main
try:
    main()
finally:
    print(*(name for name in sys.modules if "." not in name), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert {"onnxruntime", "PIL"} <= loaded
    assert not loaded & {
        "torch", "torchvision", "timm", "mlflow", "optuna", "onnx", "matplotlib", "sklearn", "scipy", "pydantic",
        "rich", "fastapi", "psutil", "bench_plugins",
    }  # fmt: skip


def test_progress_goes_to_stderr_and_only_for_more_than_a_batch(run_bench: Run, colours: Path, photos: Path) -> None:
    for number in range(5):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(photos / f"{number}.png")
    told = run_bench("predict", colours, photos, "--batch-size", "2")
    assert told.err.splitlines()[-1] == "images: 8 of 8"
    assert len(told.out.splitlines()) == 9
    assert run_bench("predict", colours, photos).err == ""
