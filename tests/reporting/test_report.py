"""The report of a run: one whole file, right in what it shows, and made of what there is."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bench.errors import BenchError, RecipeError
from bench.files import write_json
from bench.progress import Progress
from bench.record import Run
from bench.reporting import galleries
from bench.reporting.command import report as command
from bench.reporting.judged import judge
from bench.reporting.reading import read_run
from bench.reporting.report import Written, write_report

Report = Callable[..., tuple[Written, str]]

_VOID = {"meta", "br", "img", "hr", "path", "use"}


class Reader(HTMLParser):
    """Collects text, ids and links, and complains about tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "xlink:href"}]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"script", "style"}:
            self.text.append(data)


def _read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader


def _store(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="store">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def _text(page: str) -> str:
    return " ".join(" ".join(_read(page).text).split())


def test_the_report_is_one_file_that_loads_nothing(toy_report: tuple[Run, Written, str]) -> None:
    run, written, page = toy_report
    reader = _read(page)
    assert all(link.startswith(("#", "data:image/")) for link in reader.links)
    assert not re.search(r"url\(\s*['\"]?(?!#)|@import|fetch\(|XMLHttpRequest", page)
    assert len(set(reader.ids)) == len(reader.ids)
    assert written.path.stat().st_size < 2_000_000
    for words in ("Learning curves", "Confusion matrix", "Worst mistakes", "Least certain", "Reliability", "Slices",
                  "Augmentations", "Layers", "Plan, with reasons", f"bench reproduce {run.name}"):  # fmt: skip
        assert words in _text(page), words
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_class_names_that_are_html_are_only_text(
    toy_report: tuple[Run, Written, str], class_names: tuple[str, ...]
) -> None:
    _, _, page = toy_report
    assert page.count("</script>") == 2  # that of the store, and that of the page's own script
    assert "<b>bold</b>" not in page
    assert tuple(_store(page)["chapters"]["r0"]["classes"]) == class_names
    assert "<script>alert(1)</script>" in _text(page)


def test_each_cell_of_the_matrix_holds_the_images_that_it_counts(toy_report: tuple[Run, Written, str]) -> None:
    run, _, page = toy_report
    store = _store(page)
    confusion = np.array(json.loads((run.folder / "evaluation.json").read_text())["test"]["confusion"])
    told = store["chapters"]["r0"]["cells"]
    assert {cell: len(samples) for cell, samples in told.items()} == {
        f"{a},{b}": int(confusion[a, b]) for a, b in np.argwhere(confusion)
    }
    with np.load(run.folder / "predictions" / "test.npz") as saved:
        said = {
            str(name): (f"{label},{guess}", chances[guess])
            for name, label, guess, chances in zip(
                saved["ids"], saved["labels"], saved["guesses"], saved["probabilities"], strict=True
            )
        }
    for cell, samples in told.items():
        for name, chance, keys in samples:
            assert said[name] == (cell, pytest.approx(chance, abs=1e-4))
            assert len(keys) == 1
            assert keys[0] in store["pictures"]


def test_a_picture_is_in_the_file_once_and_shows_its_image(toy_report: tuple[Run, Written, str], toys: Path) -> None:
    _, _, page = toy_report
    store = _store(page)
    inline = dict(re.findall(r'<img src="(data:image/webp[^"]*)"[^>]*data-picture="([^"]*)"', page))
    of_key = {key: uri for uri, key in inline.items()}
    for key, (uri, width, height, _) in store["pictures"].items():
        assert bool(uri) != (key in of_key)  # where a gallery shows it, the store refers to that
        assert max(width, height) == 96
    for samples in store["chapters"]["r0"]["cells"].values():
        for name, _, [key] in samples[:5]:
            data = (store["pictures"][key][0] or of_key[key]).partition(",")[2]
            shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), dtype=float)
            with Image.open(toys / "data" / "toys" / name) as image:
                real = np.asarray(image.resize((12, 12), Image.Resampling.BILINEAR), dtype=float)
            assert np.abs(shown.mean((0, 1)) - real.mean((0, 1))).max() < 12


def test_mistakes_find_their_room_before_right_answers(
    runs: list[Run], report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galleries, "BUDGET", 9_000)
    monkeypatch.setattr(galleries, "_A_GALLERY", 1)
    _, page = report(runs[0].name)
    confusion = np.array(json.loads((runs[0].folder / "evaluation.json").read_text())["test"]["confusion"])
    told = _store(page)["chapters"]["r0"]["cells"]
    assert sum(map(len, told.values())) < confusion.sum()
    for cell, samples in told.items():
        label, guess = map(int, cell.split(","))
        assert label == guess or len(samples) == confusion[label, guess]


def test_calibration_is_fitted_on_the_validation_split_and_agrees_with_the_run(
    toy_report: tuple[Run, Written, str],
) -> None:
    run, written, page = toy_report
    [told] = written.as_json()["runs"]
    assert told["calibration"]["ece"] == pytest.approx(run.info()["metrics"]["test_ece"], abs=1e-5)
    assert len(told["calibration"]["temperatures"]) == 1
    assert "validation predictions" in _text(page)


def test_the_validation_split_can_be_asked_for(runs: list[Run], report: Report) -> None:
    written, page = report(runs[0].name, split="validation")
    assert written.as_json()["runs"][0]["split"] == "validation"
    assert "cross-fitted" in _text(page)


def test_slices_are_by_class_brightness_contrast_size_and_group(toy_report: tuple[Run, Written, str]) -> None:
    _, written, _ = toy_report
    [told] = written.as_json()["runs"]
    kinds = {one["kind"] for one in told["slices"]}
    assert kinds == {"class", "brightness", "contrast", "size", "group"}
    for kind in kinds:
        assert sum(one["samples"] for one in told["slices"] if one["kind"] == kind) == told["samples"]
    assert {one["name"] for one in told["slices"] if one["kind"] == "group"} <= {f"track {n}" for n in range(40)}
    assert all(one["small"] == (one["samples"] < 30) for one in told["slices"])


def test_without_the_dataset_everything_but_the_images_is_there(
    runs: list[Run], report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_DATA", "/nowhere")
    plan = json.loads((runs[0].folder / "plan.json").read_text())
    write_json(runs[0].folder / "plan.json", {**plan, "dataset_root": "/another/machine/toys"})
    written, page = report(runs[0].name)
    text = _text(page)
    assert text.index("This report has no images") < text.index("Learning curves")
    assert _store(page)["pictures"] == {}
    assert sum(map(len, _store(page)["chapters"]["r0"]["cells"].values())) == written.as_json()["runs"][0]["samples"]
    assert "data:image/png" in page  # what the run itself has drawn of its samples
    for words in ("Reliability", "Worst mistakes", "Layers", "parameters"):
        assert words in text


def test_a_run_copied_from_another_machine_finds_the_data_here(runs: list[Run], here: Path, report: Report) -> None:
    plan = json.loads((runs[0].folder / "plan.json").read_text())
    write_json(runs[0].folder / "plan.json", {**plan, "dataset_root": "/another/machine/toys"})
    runs[0].update(process={"host": "elsewhere", "id": 1, "started": 0.0})
    shutil.copytree(runs[0].folder, here / "copied")
    shutil.rmtree(here / "runs")
    written, page = report(str(here / "copied"))
    assert written.as_json()["runs"][0]["notes"] == []
    assert _store(page)["pictures"]


def test_a_dataset_that_has_changed_is_said_so(runs: list[Run], report: Report) -> None:
    runs[0].update(dataset={**runs[0].info()["dataset"], "fingerprint": "0" * 64})
    written, page = report(runs[0].name)
    assert "its fingerprint differs" in written.as_json()["runs"][0]["notes"][0]
    assert _store(page)["pictures"]


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_run_that_did_not_finish_shows_what_there_is_and_its_error(
    runs: list[Run], report: Report, status: str
) -> None:
    for name in ("predictions", "figures"):
        shutil.rmtree(runs[0].folder / name)
    for name in ("evaluation.json", "model.safetensors"):
        (runs[0].folder / name).unlink()
    runs[0].update(status=status, error="the loss is <nan> & no number", metrics={})
    written, page = report(runs[0].name)
    text = _text(page)
    assert "the loss is <nan> & no number" in text
    assert "no results on held-out data" in text
    assert "Learning curves" in text
    assert "Layers" in text
    assert "Confusion matrix" not in text
    assert written.as_json()["runs"][0]["status"] == status


def test_a_run_that_failed_before_its_data_were_read_has_a_report(runs: list[Run], report: Report) -> None:
    folder = runs[0].folder
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in {"run.json", "recipe.toml"}:
            path.unlink()
    info = {name: runs[0].info()[name] for name in ("experiment", "group", "seed", "created")}
    write_json(folder / "run.json", {**info, "status": "failed", "error": "no such dataset"})
    _, page = report(runs[0].name)
    assert "no such dataset" in _text(page)
    assert "There is no layer table" in _text(page)


def test_without_predictions_the_evaluation_alone_is_shown(runs: list[Run], report: Report) -> None:
    shutil.rmtree(runs[0].folder / "predictions")
    written, page = report(runs[0].name)
    assert "predictions are not there" in " ".join(written.as_json()["runs"][0]["notes"])
    assert "Confusion matrix" in _text(page)
    assert "Worst mistakes" not in _text(page)
    assert not re.search(r"<(td|button)[^>]*data-cell=", page)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.jsonl", b'{"epoch": 1, "values": {"train_loss": 1.0}}\n[]\n{"epoch": 2, "val', "2 of its 3 lines"),
        ("metrics.jsonl", b"\xff\xfe\x00", "metrics.jsonl cannot be read"),
        ("plan.json", b"[1, 2]", "plan.json is damaged"),
        ("evaluation.json", b'{"test": {"metrics": {}}}', "entry 'test' is not whole"),
        ("evaluation.json", b'{"test": {"metrics": {}, "classes": [1], "confusion": [[1]]}}', "'test' is not whole"),
        ("plan.json", b'{"image_size": 5}', "image_size = 5"),
        ("predictions/test.npz", b"PK no archive", "is damaged"),
        ("recipe.toml", b"experiment = ", "the recipe cannot be used here"),
        ("recipe.toml", b'[dataset]\nname = "gone"\n[model]\nname = "linear"\n', "the recipe cannot be used here"),
        ("export/latency.json", b"{", "latency.json is damaged"),
        ("export/model.gate.json", b"null", "model.gate.json is damaged"),
    ],
)
def test_damaged_artefacts_are_named_and_the_rest_is_judged(
    runs: list[Run], name: str, content: bytes, said: str
) -> None:
    path = runs[0].folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    recorded = read_run(runs[0])
    problems = list(recorded.problems)
    judged = judge(recorded, None, problems)
    assert said in " ".join(problems)
    assert judged is not None
    assert judged.num_samples == 84


def test_a_report_of_damaged_artefacts_shows_the_rest(runs: list[Run], report: Report) -> None:
    for name in ("metrics.jsonl", "plan.json", "evaluation.json", "recipe.toml"):
        (runs[0].folder / name).write_text("{", encoding="utf-8")
    written, page = report(runs[0].name)
    assert len(written.as_json()["runs"][0]["notes"]) == 5  # and that there are no images
    text = _text(page)
    assert "evaluation.json is damaged" in text
    assert "Confusion matrix" in text


def test_predictions_of_other_classes_or_no_numbers_are_not_believed(runs: list[Run]) -> None:
    path = runs[0].folder / "predictions" / "test.npz"
    with np.load(path) as saved:
        parts = dict(saved)
    chances = parts["probabilities"]
    for change, said in (
        ({"labels": parts["labels"] + 7}, "labels are not in 0..2"),
        ({"probabilities": np.full_like(chances, np.nan)}, "no numbers"),
        ({"probabilities": chances[:, :2]}, "not of 3 classes"),
        ({"labels": parts["labels"] + 0.5}, "not of 3 classes"),
    ):
        np.savez(path, **{**parts, **change})
        problems: list[str] = []
        assert judge(read_run(runs[0]), None, problems) is not None
        assert said in " ".join(problems)


def test_a_run_that_answered_no_numbers_has_a_report(runs: list[Run], report: Report) -> None:
    path = runs[0].folder / "predictions" / "test.npz"
    with np.load(path) as saved:
        parts = dict(saved)
    np.savez(path, **{**parts, "probabilities": np.full_like(parts["probabilities"], np.nan)})
    assert "no numbers, here taken for 0" in _text(report(runs[0].name)[1])


def test_exports_and_latencies_are_shown_where_they_exist(runs: list[Run], report: Report) -> None:
    folder = runs[0].folder / "export"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(bytes(2_500_000))
    gate = {"file": "model.onnx", "precision": "fp32", "split": "test", "passed": True, "summary": "accepted <well>"}
    gate["accuracy"] = {"exported": 0.7, "exported_interval": [0.6, 0.8]}
    write_json(folder / "model.gate.json", gate)
    refused = {"file": "model.int8.rejected.onnx", "precision": "int8", "passed": False, "reasons": ["too far off"]}
    write_json(folder / "model.int8.gate.json", refused)
    levels = {
        level: {"value_ms": value, "low_ms": 0.9 * value, "high_ms": 1.1 * value}
        for level, value in (("50", 2.0), ("90", 3.0))
    }
    levels["99"] = {"refused": "too few queries"}
    measures = {"end_to_end": {"percentiles": levels, "samples_per_second": 480.0}}
    candidates = [
        {"name": name, "precision": "fp32", "size_mb": 2.5, "measures": measures} for name in ("torch", "ort")
    ]
    write_json(folder / "latency.json", {"scenario": "single", "settings": {"batch": 1}, "candidates": candidates})
    text = _text(report(runs[0].name)[1])
    for words in ("accepted <well>", "2.50 MB", "too far off", "the file is gone", "refused", "2.00 [1.80, 2.20]",
                  "Accuracy, latency and size"):  # fmt: skip
        assert words in text, words


def test_records_of_costs_that_are_damaged_are_named(runs: list[Run], report: Report) -> None:
    (runs[0].folder / "export").mkdir()
    write_json(runs[0].folder / "export" / "latency.json", {"candidates": [{"measures": [1, 2]}]})
    text = _text(report(runs[0].name)[1])
    assert "the records in export/ are damaged" in text
    assert "Confusion matrix" in text


def test_pairs_show_both_images_the_roc_and_the_worst_of_both_kinds(pairs_run: Run, report: Report) -> None:
    written, page = report(pairs_run.name)
    text = _text(page)
    for words in ("ROC", "Worst false accepts", "Worst false rejects", "equal error rate", "threshold", "MACs a pair"):
        assert words in text, words
    for samples in _store(page)["chapters"]["r0"]["cells"].values():
        assert all(len(keys) == 2 and keys[0] != keys[1] for _, _, keys in samples)
    [told] = written.as_json()["runs"]
    assert {one["kind"] for one in told["slices"]} >= {"class", "brightness", "identity"}
    assert len(told["calibration"]["temperatures"]) == 2  # there is no validation split


def test_the_folds_of_a_protocol_are_listed_with_their_mean(pairs_run: Run, report: Report) -> None:
    other = pairs_run.folder.with_name(f"{pairs_run.info()['group']}-f1-s0")
    shutil.copytree(pairs_run.folder, other)
    accuracy = pairs_run.info()["metrics"]["test_accuracy"]
    pairs_run.update(fold=0)
    Run(other).update(fold=1, metrics={**pairs_run.info()["metrics"], "test_accuracy": accuracy - 0.2})
    text = _text(report(f"persons/{pairs_run.name}")[1])
    assert "Folds" in text
    assert f"Mean over 2 folds: {accuracy - 0.1:.2%} ± 10.00% (standard error)" in text


def test_an_experiment_leads_with_the_comparison(runs: list[Run], report: Report) -> None:
    written, page = report("toys")
    assert _read(page).ids
    text = _text(page)
    places = [page.index('class="comparison"'), *sorted(page.index(f">{run.name}</span></h2>") for run in runs)]
    assert places == sorted(places)
    assert all(f"bench report {run.name}" in text for run in runs)
    assert written.as_json()["comparison"]["entries"]
    assert len(written.as_json()["runs"]) == 2


def test_a_reproduction_is_listed_apart(runs: list[Run], report: Report) -> None:
    copy = runs[1].folder.with_name("20990101-000000-aaaa-s0")
    shutil.copytree(runs[1].folder, copy)
    Run(copy).update(reproduces=runs[1].name, group="20990101-000000-aaaa")
    _, page = report("toys")
    assert f"a reproduction of {runs[1].name}" in page


def test_reproductions_are_told_of_where_their_group_is_named(runs: list[Run], report: Report) -> None:
    group = "20990101-000000-aaaa"
    for one in runs:
        copy = one.folder.with_name(one.name.replace(one.info()["group"], group))
        shutil.copytree(one.folder, copy)
        Run(copy).update(reproduces=one.name, group=group)
    broken = runs[0].folder.with_name(f"{group}-s9")
    broken.mkdir()
    (broken / "run.json").write_text("[]", encoding="utf-8")
    written, page = report(group)
    assert [told["run"] for told in written.as_json()["runs"]] == [f"{group}-s1", f"{group}-s0"]
    assert written.comparison is not None
    assert len(written.comparison["entries"]) == 1  # the comparison takes the same two
    assert "a reproduction of" not in _text(page)
    assert "damaged run.json: no status, experiment, group, seed" in _text(page)


def test_the_report_of_a_run_is_kept_with_it(runs: list[Run], report: Report) -> None:
    _, page = report(runs[0].name)
    assert (runs[0].folder / "report.html").read_text(encoding="utf-8") == page


@pytest.mark.parametrize("form", ["{}", "toys/{}", "{:.20}"])
def test_a_group_is_named_by_the_start_that_its_runs_share(runs: list[Run], report: Report, form: str) -> None:
    group = runs[0].info()["group"]
    written, page = report(form.format(group))
    assert written.name.endswith(group)
    assert len(written.chapters) == 2
    assert len(written.comparison["entries"]) == 1  # the comparison takes the same two
    assert "cannot be compared" not in _text(page)


def test_a_folder_of_runs_has_a_report(runs: list[Run], report: Report) -> None:
    written, page = report(str(runs[0].folder.parent))
    assert len(written.chapters) == 2
    assert "cannot be compared" not in _text(page)


def test_an_experiment_of_one_run_is_told_as_an_experiment(runs: list[Run], report: Report) -> None:
    shutil.rmtree(runs[1].folder)
    written, _ = report("toys")
    assert written.comparison is not None
    assert report(runs[0].info()["group"])[0].comparison is None  # a group of one run is that run


def test_an_experiment_of_mixed_datasets_and_damaged_runs_says_so(runs: list[Run], report: Report) -> None:
    runs[1].update(dataset={**runs[1].info()["dataset"], "fingerprint": "1" * 64})
    broken = runs[0].folder.with_name("20200101-000000-aaaa-s0")
    broken.mkdir()
    (broken / "run.json").write_text("{", encoding="utf-8")
    _, page = report("toys")
    text = _text(page)
    assert "2 different datasets" in text
    assert "no readable run.json" in text
    assert _read(page).text


def test_an_experiment_whose_runs_all_failed_has_a_report(runs: list[Run], report: Report) -> None:
    for one in runs:
        shutil.rmtree(one.folder / "predictions")
        (one.folder / "evaluation.json").unlink()
        one.update(status="failed", error="out of memory", metrics={})
    text = _text(report("toys")[1])
    assert text.count("out of memory") >= 2


def test_what_is_not_there_is_an_error_with_a_remedy(runs: list[Run], here: Path) -> None:
    with pytest.raises(RecipeError, match="no run, group or experiment 'nothing'") as caught:
        write_report("nothing", progress=Progress())
    assert "bench runs" in str(caught.value.hint)
    (runs[0].folder / "predictions" / "validation.npz").unlink()
    evaluation = json.loads((runs[0].folder / "evaluation.json").read_text())
    write_json(runs[0].folder / "evaluation.json", {"test": evaluation["test"]})
    with pytest.raises(BenchError, match="no results on the validation split"):
        write_report(runs[0].name, split="validation", progress=Progress())
    (runs[0].folder / "run.json").write_text("", encoding="utf-8")
    with pytest.raises(BenchError, match=r"no readable run\.json"):
        write_report(runs[0].name, progress=Progress())
    assert not list(here.glob("report*"))


@pytest.mark.parametrize("output", [".", "file/report.html"])
def test_a_place_that_cannot_be_written_is_an_error_before_the_work(runs: list[Run], here: Path, output: str) -> None:
    (here / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(BenchError, match="cannot be written") as caught:
        write_report(runs[0].name, output=here / output, progress=Progress())
    assert "--output" in str(caught.value.hint)


def test_the_command_writes_here_and_prints_where(runs: list[Run], here: Path) -> None:
    done = CliRunner().invoke(command, [runs[0].name], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"report_{runs[0].name}.html (")
    assert (here / f"report_{runs[0].name}.html").is_file()
    done = CliRunner().invoke(command, [runs[0].name, "--json", "--output", "a/b.html"], catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["report"] == str(here / "a" / "b.html")
    assert told["bytes"] == (here / "a" / "b.html").stat().st_size
    assert told["runs"][0]["run"] == runs[0].name
