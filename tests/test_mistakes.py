"""`bench mistakes`: the order of what is shown, of classes and of pairs, and what it says of damaged runs."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import cli
from bench.record import Run
from bench.run_names import find

CLASSES = ("stop", "yield", "no entry")


def _record(folder: Path, name: str, *, classes: tuple[str, ...] = CLASSES, **parts: Any) -> Run:
    """A run as it is recorded, with the given predictions of the test split."""
    run = Run(folder / "toy" / name)
    (run.folder / "predictions").mkdir(parents=True)
    info = {
        "experiment": "toy",
        "group": name,
        "seed": 0,
        "status": "finished",
        "dataset": {"root": str(folder / "images")},
        "metrics": {},
    }
    (run.folder / "run.json").write_text(json.dumps(info))
    (run.folder / "plan.json").write_text(json.dumps({"classes": classes}))
    np.savez_compressed(run.folder / "predictions" / "test.npz", **parts)
    return run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "runs"


@pytest.fixture
def signs(runs: Path) -> Run:
    """Seven images, four of them taken for another class, with a probability of 0.6 to 0.9."""
    probabilities = [
        [0.9, 0.05, 0.05],
        [0.8, 0.15, 0.05],
        [0.1, 0.3, 0.6],
        [0.9, 0.08, 0.02],
        [0.34, 0.33, 0.33],
        [0.1, 0.8, 0.1],
        [0.1, 0.1, 0.8],
    ]
    return _record(
        runs,
        "20260101-000000-aaaa-s0",
        ids=np.array([f"test/{number}.png" for number in range(7)]),
        labels=np.array([0, 1, 1, 1, 0, 1, 1]),
        guesses=np.array([0, 0, 2, 0, 0, 1, 2]),
        probabilities=np.array(probabilities, dtype=np.float32),
    )


@pytest.fixture
def faces(runs: Path) -> Run:
    """Six pairs at a threshold of 0.5: two false accepts, one false reject."""
    scores = np.array([0.7, 0.9, 0.1, 0.2, 0.8, 0.52], dtype=np.float32)
    run = _record(
        runs,
        "20260101-000001-bbbb-s0",
        classes=("different", "same"),
        ids=np.array([f"left{number} right{number}" for number in range(6)]),
        labels=np.array([0, 0, 0, 1, 1, 1]),
        guesses=(scores >= 0.5).astype(np.int64),
        probabilities=np.stack([1 - scores, scores], axis=1),
    )
    (run.folder / "evaluation.json").write_text(json.dumps({"test": {"threshold": 0.5}}))
    return run


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["bench", "mistakes", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert int(ended.value.code or 0) == code, captured.err
        return captured.err if code else captured.out

    return call


def test_the_most_confident_mistakes_come_first(signs: Run, bench: Any) -> None:
    found = json.loads(bench(signs.name, "--json"))
    assert [one["id"] for one in found["samples"]] == ["test/3.png", "test/6.png", "test/1.png", "test/2.png"]
    assert found["wrong"] == 4
    assert found["num_samples"] == 7
    first = found["samples"][0]
    assert (first["true_class"], first["guess"], first["kind"]) == ("yield", "stop", "wrong")
    assert first["probability"] == pytest.approx(0.9)
    assert first["true_probability"] == pytest.approx(0.08)


def test_confused_classes_come_with_counts(signs: Run, bench: Any) -> None:
    confusions = json.loads(bench(signs.name, "--json", "-k", "1"))["confusions"]
    assert confusions == [
        {"true_class": "yield", "guess": "stop", "count": 2, "samples": 5},
        {"true_class": "yield", "guess": "no entry", "count": 2, "samples": 5},
    ]


def test_the_table_has_no_more_lines_than_asked_for(signs: Run, bench: Any) -> None:
    shown = bench(signs.name, "-k", "2")
    assert shown.startswith(f"{signs.name}: 4 of 7 test images are wrong\n")
    assert re.findall(r"test/\d.png", shown) == ["test/3.png", "test/6.png"]
    assert re.search(r"yield +no entry +2 of 5\n", shown)


def test_a_class_is_looked_at_alone_with_what_was_taken_for_it(signs: Run, bench: Any) -> None:
    found = json.loads(bench(signs.name, "--class", "no entry", "--json"))
    assert [one["id"] for one in found["samples"]] == ["test/6.png", "test/2.png"]
    assert (found["wrong"], found["num_samples"], found["chosen_class"]) == (2, 2, "no entry")


def test_an_unknown_class_is_a_usage_error_with_the_near_miss(signs: Run, bench: Any) -> None:
    assert 'did you mean "yield"?' in bench(signs.name, "--class", "yeld", code=2)
    assert "known: stop, yield, no entry" in bench(signs.name, "--class", "qqq", code=2)


def test_the_least_certain_are_right_and_wrong_ones(signs: Run, bench: Any) -> None:
    found = json.loads(bench(signs.name, "--uncertain", "-k", "2", "--json"))
    assert [(one["id"], one["kind"]) for one in found["samples"]] == [("test/4.png", "right"), ("test/2.png", "wrong")]
    assert "stop (right)" in bench(signs.name, "--uncertain", "-k", "2")


def test_csv_is_a_table_that_a_program_reads(signs: Run, bench: Any) -> None:
    rows = list(csv.DictReader(io.StringIO(bench(signs.name, "--csv", "-k", "3"))))
    assert [row["id"] for row in rows] == ["test/3.png", "test/6.png", "test/1.png"]
    assert float(rows[2]["probability"]) == pytest.approx(0.8)
    assert "exclude each other" in bench(signs.name, "--csv", "--json", code=2)


def test_pairs_are_false_accepts_and_false_rejects_by_their_score(faces: Run, bench: Any) -> None:
    found = json.loads(bench(faces.name, "--json"))
    assert [(one["id"], one["kind"]) for one in found["samples"]] == [
        ("left1 right1", "false accept"),
        ("left0 right0", "false accept"),
        ("left3 right3", "false reject"),
    ]
    assert found["threshold"] == 0.5
    assert [one["probability"] for one in found["samples"]] == pytest.approx([0.9, 0.7, 0.2])
    shown = bench(faces.name, "-k", "1")
    assert "same from a score of 0.5000 on" in shown
    assert "2 false accepts: different, taken for the same" in shown
    assert "1 false rejects: the same, taken for different" in shown
    assert re.findall(r"left\d right\d +([\d.]+)", shown) == ["0.9000", "0.2000"]


def test_the_least_certain_pairs_are_nearest_to_the_threshold(faces: Run, bench: Any) -> None:
    found = json.loads(bench(faces.name, "--uncertain", "-k", "2", "--json"))
    assert [one["id"] for one in found["samples"]] == ["left5 right5", "left0 right0"]
    assert re.search(r"left5 right5 +same +same \(right\) +0.5200", bench(faces.name, "--uncertain"))


def test_a_run_without_mistakes_says_so(signs: Run, bench: Any) -> None:
    path = signs.folder / "predictions" / "test.npz"
    with np.load(path) as stored:
        parts = dict(stored)
    np.savez_compressed(path, **(parts | {"guesses": parts["labels"]}))
    assert bench(signs.name) == f"{signs.name}: 0 of 7 test images are wrong\n"


def test_the_folder_of_the_images_is_named_where_they_are_here(signs: Run, runs: Path, bench: Any) -> None:
    assert "paths below" not in bench(signs.name)
    (runs / "images" / "test").mkdir(parents=True)
    for number in range(7):
        (runs / "images" / "test" / f"{number}.png").touch()
    assert f"paths below {runs / 'images'}" in bench(signs.name)


def test_control_codes_in_names_do_not_reach_the_terminal(runs: Path, bench: Any) -> None:
    run = _record(
        runs,
        "20260101-000002-cccc-s0",
        ids=np.array(["\x1b[31mred.png"]),
        labels=np.array([0]),
        guesses=np.array([1]),
        probabilities=np.array([[0.1, 0.8, 0.1]], dtype=np.float32),
    )
    shown = bench(run.name)
    assert "\x1b" not in shown
    assert "?[31mred.png" in shown


def test_the_validation_split_is_taken_where_there_is_no_other(signs: Run, bench: Any) -> None:
    predictions = signs.folder / "predictions"
    (predictions / "test.npz").rename(predictions / "validation.npz")
    assert "4 of 7 validation images are wrong" in bench(signs.name)
    assert "has no predictions of its test split" in bench(signs.name, "--split", "test", code=1)


def test_missing_damaged_and_foreign_files_are_errors_with_a_remedy(signs: Run, bench: Any) -> None:
    path = signs.folder / "predictions" / "test.npz"
    (signs.folder / "plan.json").write_text(json.dumps({"classes": ["a", "b"]}))
    assert "names 2 classes, but the test predictions are of 3" in bench(signs.name, code=1)
    (signs.folder / "plan.json").unlink()
    assert "plan.json: cannot be read" in bench(signs.name, code=1)
    path.write_bytes(b"PK no archive")
    assert "is damaged" in bench(signs.name, code=1)
    path.unlink()
    shown = bench(signs.name, code=1)
    assert "has no predictions" in shown
    assert "hint:" in shown
    assert "no run 'nothing'" in bench("nothing", code=2)


def test_the_command_imports_neither_torch_nor_matplotlib(signs: Run) -> None:
    code = (
        "import sys; from bench.record import Run; from bench.wrong_answers import look; from pathlib import Path; "
        f"look(Run(Path({str(signs.folder)!r}))); sys.exit(bool({{'torch', 'matplotlib', 'mlflow'}} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert find(str(signs.folder)).name == signs.name


def test_a_path_stays_whole_at_80_columns_and_no_column_is_lost(runs: Path) -> None:
    name = "a sign with a name that is longer than anybody would want it to be"
    run = _record(
        runs,
        "20260101-000003-dddd-s0",
        classes=(name, f"not {name}"),
        ids=np.array(["Final_Test/Images/03052.ppm"]),
        labels=np.array([0]),
        guesses=np.array([1]),
        probabilities=np.array([[0.2, 0.8]], dtype=np.float32),
    )
    code = "import sys; from rich.console import Console; import bench.console as c; c.stdout = lambda: Console(width=80); "
    code += f"sys.argv = ['bench', 'mistakes', {str(run.folder)!r}]; from bench.cli import main; main()"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "Final_Test/Images/03052.ppm" in shown
    assert re.search(r"p\(guess\) +p\(true\)", shown)
    assert re.search(r"0\.8000 +0\.2000", shown)
    assert max(map(len, shown.splitlines())) <= 80
