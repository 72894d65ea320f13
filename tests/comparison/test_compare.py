"""What is compared with what, and what is left out, each with its reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import record
from bench.comparison import Comparison, compare
from bench.errors import RecipeError
from bench.files import write_json
from bench.record import Run
from bench.statistics import mean_interval

Recorder = Callable[..., Run]

A, B, C = "20261126-100000-aaaa", "20261126-100001-bbbb", "20261126-100002-cccc"
GOOD, FAIR = np.arange(300) < 290, np.arange(300) < 200


def reasons(found: Comparison) -> dict[str, str]:
    return {one.name: one.reason for one in found.left_out}


def test_the_latest_experiment_is_compared_by_default(recorded: Recorder) -> None:
    recorded(GOOD, group=A, experiment="older")
    recorded(GOOD, group=B, experiment="newer")
    recorded(FAIR, group=C, experiment="newer")
    assert [entry.name for entry in compare().entries] == [f"{B}-s0", f"{C}-s0"]


def test_runs_groups_experiments_and_folders_go_by_name(recorded: Recorder, tmp_path: Path) -> None:
    for seed in range(2):
        recorded(GOOD, group=A, seed=seed)
    run = recorded(FAIR, group=B, experiment="other")
    assert [entry.kind for entry in compare(["toys"]).entries] == ["seeds"]
    assert [entry.name for entry in compare([A]).entries] == [A]
    assert [entry.name for entry in compare(["20261126-100000"]).entries] == [A]
    assert [entry.name for entry in compare([f"{A}-s1"]).entries] == [f"{A}-s1"]
    assert [entry.name for entry in compare([f"toys/{A}-s1", "20261126-100001"]).entries] == [f"{A}-s1", run.name]
    assert [entry.name for entry in compare([str(run.folder)]).entries] == [run.name]
    assert len(compare([str(tmp_path / "bench-runs" / "toys")]).entries[0].runs) == 2
    assert len(compare(["toys", "other", f"{A}-s0"]).entries) == 2  # nothing twice


@pytest.mark.parametrize("is_first", [True, False])
def test_a_seed_named_beside_its_group_stays_in_it_and_that_is_said(recorded: Recorder, *, is_first: bool) -> None:
    for seed in range(3):
        recorded(GOOD, group=A, seed=seed)
    names = [f"{A}-s1", A]
    found = compare(names if is_first else names[::-1])
    assert [len(entry.runs) for entry in found.entries] == [3]
    assert [(one.name, one.reason) for one in found.left_out] == [(f"{A}-s1", f"is compared as part of {A}")]
    assert compare([f"{A}-s1", f"{A}-s1"]).left_out == ()


def test_seeds_that_are_named_themselves_are_entries(recorded: Recorder) -> None:
    for seed in range(2):
        recorded(GOOD, group=A, seed=seed)
    found = compare([f"{A}-s0", f"{A}-s1"])
    assert [entry.kind for entry in found.entries] == ["run", "run"]
    assert found.verdicts[0].test == "McNemar"


@pytest.mark.parametrize(("name", "message"), [("toyz", "did you mean"), ("2026", "fits 2 runs"), ("", "no run")])
def test_a_name_of_nothing_or_of_several_things_is_refused(recorded: Recorder, name: str, message: str) -> None:
    recorded(GOOD, group=A)
    recorded(GOOD, group=B)
    with pytest.raises(RecipeError, match=message):
        compare([name])


def test_no_runs_at_all_say_where_they_would_be() -> None:
    with pytest.raises(RecipeError, match="bench-runs") as caught:
        compare()
    assert "bench run" in str(caught.value.hint)


def test_seeds_are_one_entry_with_a_t_interval_and_mean_costs(recorded: Recorder) -> None:
    shares = [0.9, 0.91, 0.93]
    for seed, share in enumerate(shares):
        recorded(np.arange(100) < 100 * share, group=A, seed=seed, metrics={"train_seconds": 10.0 * (seed + 1)})
    (entry,) = compare(["toys"]).entries
    mean, low, high = mean_interval(shares)
    assert (entry.accuracy, *entry.interval) == pytest.approx((mean, low, high))
    assert entry.costs.train_seconds == 20
    assert entry.costs.parameters == 100


def test_a_model_in_closed_form_takes_the_time_of_its_fit(recorded: Recorder) -> None:
    recorded(GOOD, metrics={"train_seconds": 0.5, "fit_seconds": 232.5})
    assert compare(["toys"]).entries[0].costs.train_seconds == 233


def test_labels_tell_runs_of_one_recipe_apart(recorded: Recorder) -> None:
    recorded(GOOD, group=A, recipe="C:\\recipes\\toy.toml")
    recorded(FAIR, group=B, recipe="/elsewhere/toy.toml")
    recorded(FAIR, group=C, recipe="recipes/other.toml")
    assert [entry.label for entry in compare(["toys"]).entries] == ["toy aaaa-s0", "toy bbbb-s0", "other"]


def test_another_test_set_is_never_compared(recorded: Recorder) -> None:
    recorded(GOOD, group=A)
    recorded(FAIR, group=B)
    recorded(GOOD[:200], group=C, fingerprint="0" * 64)
    found = compare(["toys"])
    assert [one.entries for one in found.test_sets] == [(1, 2), (3,)]
    assert [(one.first, one.second) for one in found.verdicts] == [(1, 2)]


@pytest.mark.parametrize("change", ["labels", "names", "dataset"])
def test_other_labels_names_or_datasets_are_another_test_set(recorded: Recorder, change: str) -> None:
    changes: dict[str, Any] = {
        "labels": {"labels": np.ones(300, np.int64)},
        "names": {"ids": [f"other{n}" for n in range(300)]},
        "dataset": {"dataset": "gtsrb"},
    }
    recorded(GOOD, group=A)
    recorded(FAIR, group=B, **changes[change])
    assert len(compare(["toys"]).test_sets) == 2


def test_the_same_images_are_compared_whatever_the_fingerprint_and_said_so(recorded: Recorder) -> None:
    recorded(GOOD, group=A)
    recorded(FAIR, group=B, fingerprint="0" * 64)
    found = compare(["toys"])
    assert len(found.verdicts) == 1
    assert "fingerprints" in found.test_sets[0].notes[0]


def test_images_in_another_order_are_aligned(recorded: Recorder) -> None:
    order = np.random.default_rng(0).permutation(300)
    names = np.array([f"image{n:05}" for n in range(300)])
    recorded(GOOD, group=A)
    recorded(GOOD[order], group=B, ids=list(names[order]), labels=(np.arange(300) % 3)[order])
    (verdict,) = compare(["toys"]).verdicts
    assert (verdict.difference, verdict.p) == (0, 1)
    assert verdict.high - verdict.low < 0.03  # nothing is gained nor lost


def test_runs_that_did_not_finish_are_listed_apart(recorded: Recorder) -> None:
    recorded(GOOD, group=A)
    failed = recorded(GOOD, group=B)
    failed.update(status="failed", error="out of memory\nat line 3")
    stopped = recorded(GOOD, group=C)
    stopped.update(status="interrupted", error="stopped by a person")
    dead = recorded(GOOD, group="20261126-100003-dddd")
    dead.update(status="running", process={**record.this_process(), "started": 0})
    alive = recorded(GOOD, group="20261126-100004-eeee")
    alive.update(status="running", process=record.this_process())
    found = compare(["toys"])
    assert [entry.name for entry in found.entries] == [f"{A}-s0"]
    assert reasons(found) == {
        failed.name: "failed: out of memory",
        stopped.name: "interrupted",
        dead.name: "interrupted",
        alive.name: "still running",
    }


def test_a_group_goes_on_without_the_seed_that_failed(recorded: Recorder) -> None:
    runs = [recorded(GOOD, group=A, seed=seed) for seed in range(3)]
    runs[1].update(status="failed", error="disk full")
    found = compare(["toys"])
    assert [run.name for run in found.entries[0].runs] == [runs[0].name, runs[2].name]
    assert reasons(found) == {runs[1].name: "failed: disk full"}


def test_without_predictions_figures_are_shown_but_not_tested(recorded: Recorder) -> None:
    recorded(FAIR, group=A)
    gone = recorded(GOOD, group=B)
    shutil.rmtree(gone.folder / "predictions")
    found = compare(["toys"])
    assert [(entry.name, entry.letters) for entry in found.entries] == [(gone.name, ""), (f"{A}-s0", "a")]
    assert found.entries[0].accuracy == pytest.approx(290 / 300)
    assert found.verdicts == ()
    assert (found.left_out[0].name, found.left_out[0].shown) == (gone.name, True)
    assert "no predictions of its test split" in found.left_out[0].reason
    assert [one.entries for one in found.test_sets] == [(1, 2)]


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:400])


def _flipped(path: Path) -> None:
    content = path.read_bytes()
    start = content.index(b"guesses.npy") + 60
    path.write_bytes(content[:start] + bytes(255 - one for one in content[start : start + 8]) + content[start + 8 :])


def _no_archive(path: Path) -> None:
    path.write_bytes(b"once upon a time" * 50)


def _shorter(path: Path) -> None:
    with np.load(path) as saved:
        parts = {name: saved[name] for name in saved.files}
    np.savez_compressed(path, **{**parts, "guesses": parts["guesses"][:-1]})


def _without_guesses(path: Path) -> None:
    with np.load(path) as saved:
        parts = {name: saved[name] for name in saved.files if name != "guesses"}
    np.savez_compressed(path, **parts)


def _pickled(path: Path) -> None:
    with np.load(path) as saved:
        parts = {name: saved[name] for name in saved.files}
    np.savez_compressed(path, **{**parts, "guesses": parts["guesses"].astype(object)})


@pytest.mark.parametrize(
    "damage",
    [_empty, _truncated, _flipped, _no_archive, _shorter, _without_guesses, _pickled],
    ids=lambda f: f.__name__,
)
def test_damaged_predictions_are_no_test_and_no_crash(recorded: Recorder, damage: Callable[[Path], None]) -> None:
    recorded(FAIR, group=A)
    broken = recorded(GOOD, group=B)
    damage(broken.folder / "predictions" / "test.npz")
    found = compare(["toys"])
    assert found.verdicts == ()
    assert reasons(found)[broken.name].startswith("not tested: damaged predictions/test.npz")


def test_predictions_of_another_run_are_noticed(recorded: Recorder) -> None:
    other = recorded(FAIR, group=A)
    run = recorded(GOOD, group=B)
    shutil.copy(other.folder / "predictions" / "test.npz", run.folder / "predictions" / "test.npz")
    found = compare(["toys"])
    assert "of another run" in reasons(found)[run.name]
    assert found.verdicts == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "no readable run.json"),
        ("[]", "damaged run.json"),
        ("{}", "damaged run.json: no status, experiment, group, seed"),
        ('{"status": "finished", "experiment": "toys", "group": "g", "seed": 0}', "no metrics, dataset"),
        (
            '{"status": "finished", "experiment": "toys", "group": "g", "seed": 0, "metrics": {}, "dataset": {}}',
            "no acc",
        ),
    ],
)
def test_damaged_records_are_left_out(recorded: Recorder, content: str, reason: str) -> None:
    recorded(FAIR, group=A)
    broken = recorded(GOOD, group=B)
    (broken.folder / "run.json").write_text(content, encoding="utf-8")
    found = compare(["toys"])
    assert len(found.entries) == 1
    assert reason in reasons(found)[broken.name]


def test_a_run_without_a_test_is_left_out_unless_validation_is_asked_for(recorded: Recorder) -> None:
    recorded(GOOD, group=A, split="validation")
    recorded(FAIR, group=B, split="validation")
    assert all("--split validation" in one.reason for one in compare(["toys"]).left_out)
    found = compare(["toys"], split="validation")
    assert found.verdicts[0].differs
    assert "validation" in found.test_sets[0].notes[0]


def test_a_reproduction_is_no_further_evidence_unless_it_is_named(recorded: Recorder) -> None:
    first = recorded(GOOD, group=A)
    again = recorded(GOOD, group="20261126-110000-cccc", reproduces=first.name)
    found = compare(["toys"])
    assert [entry.name for entry in found.entries] == [compare([first.name]).entries[0].name]
    assert reasons(found) == {again.name: f"a reproduction of {first.name}; name it to compare it"}
    assert [entry.name for entry in compare([again.name]).entries] == [again.name]


def test_reproductions_are_entries_where_their_group_is_named(recorded: Recorder) -> None:
    """Naming the group is naming them: nothing is said to be left out until it is named."""
    for seed in range(2):
        recorded(GOOD, group=A, seed=seed)
        recorded(FAIR, group=B, seed=seed, reproduces=f"{A}-s{seed}")
    found = compare([A, B])
    assert [(entry.name, len(entry.runs)) for entry in found.entries] == [(A, 2), (B, 2)]
    assert reasons(found) == {}


def test_a_start_that_trials_of_one_search_share_names_them(recorded: Recorder) -> None:
    for number in range(9, 12):
        recorded(GOOD, group=A, trial=number, study="find")
    recorded(FAIR, group=B)
    assert [entry.name for entry in compare([f"{A}-t001"]).entries] == [f"{A}-t0010-s0", f"{A}-t0011-s0"]


def test_the_same_group_in_two_experiments_is_told_apart(recorded: Recorder) -> None:
    for experiment in ("toys", "copied"):
        for seed in range(2):
            recorded(GOOD, group=A, seed=seed, experiment=experiment)
    with pytest.raises(RecipeError, match=rf"fits 4 runs: copied/{A} \(2 runs\), toys/{A} \(2 runs\)"):
        compare([A])
    (entry,) = compare([f"toys/{A}"]).entries
    assert {run.folder.parent.name for run in entry.runs} == {"toys"}


def test_trials_are_entries_only_where_they_are_named(recorded: Recorder) -> None:
    trials = [recorded(GOOD, group=A, trial=number, study="find") for number in range(3)]
    winner = recorded(FAIR, group=B, study="find", winner=1)
    found = compare(["toys"])
    assert [entry.name for entry in found.entries] == [winner.name]
    assert set(reasons(found)) == {run.name for run in trials}
    assert "search 'find'" in found.left_out[0].reason
    assert [entry.name for entry in compare([trials[1].name]).entries] == [trials[1].name]
    assert len(compare([A]).entries) == 3


def test_a_folder_from_another_machine_works(
    recorded: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorded(GOOD, group=A)
    run.update(
        recipe="/nowhere/toy.toml", dataset={**run.info()["dataset"], "root": "/nowhere"}, process={"host": "far"}
    )
    recorded(FAIR, group=B)
    shutil.move(tmp_path / "bench-runs", tmp_path / "copied")
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "copied"))
    assert compare(["toys"]).verdicts[0].differs
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "none"))
    assert len(compare([str(tmp_path / "copied" / "toys" / f"{A}-s0")]).entries) == 1


def test_only_keys_that_differ_are_listed_with_the_core_s_defaults(recorded: Recorder) -> None:
    first = '[model]\nname = "cnn"\nwidth = 8\n[train]\nepochs = 10\n[[augment]]\nname = "crop"\np = 0.5\n'
    second = '[model]\nname = "cnn"\n[[augment]]\nname = "mixup"\n[[augment]]\nname = "crop"\np = 1.0\n[optimizer]\nlr = 1e-2\n'
    recorded(GOOD, group=A, text=f'experiment = "toys"\nseeds = [0]\n{first}')
    recorded(FAIR, group=B, text=second)
    assert compare(["toys"]).differences == {
        "model.width": (8, None),
        "augment": (["crop"], ["mixup", "crop"]),
        "augment.crop.p": (0.5, 1.0),
        "optimizer.lr": (0.001, 0.01),
    }


def test_what_the_plans_made_of_auto_is_a_difference(recorded: Recorder) -> None:
    """One recipe may have been trained in two precisions, as each run's calibration chose."""
    for group, precision in ((A, "bf16"), (B, "fp32"), (C, "fp32")):
        run = recorded(GOOD, group=group, text='[compute]\nprecision = "auto"\n')
        write_json(run.folder / "plan.json", {"precision": precision, "threads": 2, "device": "cpu"})
    assert compare(["toys"]).differences == {"compute.precision": ("bf16", "fp32", "fp32")}


@pytest.mark.parametrize("content", [None, "a = ["])
def test_a_lost_recipe_is_said_and_the_rest_compared(recorded: Recorder, content: str | None) -> None:
    run = recorded(GOOD, group=A)
    recorded(FAIR, group=B, text="[train]\nepochs = 3\n")
    recorded(FAIR, group=C, text="[train]\nepochs = 4\n")
    path = run.folder / "recipe.toml"
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    found = compare(["toys"])
    assert len(found.verdicts) == 3
    assert found.differences == {"train.epochs": (None, 3, 4)}
    assert "recipe.toml" in reasons(found)[run.name]


def _latency(folder: Path, **changes: Any) -> dict[str, Any]:
    def candidate(name: str, file: str, precision: str, p50: float) -> dict[str, Any]:
        percentiles = {"50": {"value_ms": p50}, "90": {"value_ms": 2 * p50}}
        measures = {"compute": {"percentiles": {}}, "end_to_end": {"percentiles": percentiles}}
        return {"name": name, "file": file, "precision": precision, "size_mb": 9.0, "measures": measures}

    value = {
        "scenario": "single",
        "candidates": [
            candidate("torch", "/far/model.safetensors", "fp32", 9.0),
            candidate("ort", "/far/export/model.onnx", "fp32", 3.0),
            candidate("ort-int8", "C:\\far\\export\\model.int8.onnx", "int8", 1.0),
        ],
        "recommendation": {"candidate": "ort-int8"},
        "conditions": {"machine": {"cpu": "a processor"}},
        **changes,
    }
    write_json(folder / "latency.json", value)
    return value


def test_costs_are_those_of_the_recommended_file(recorded: Recorder) -> None:
    run = recorded(GOOD, group=A, metrics={"macs": 5e6})
    export = run.folder / "export"
    export.mkdir()
    (export / "model.onnx").write_bytes(b"0" * 4000)
    (export / "model.onnx.data").write_bytes(b"0" * 1000)
    costs = compare(["toys"]).entries[0].costs
    assert (costs.macs, costs.onnx_mb, costs.precision, costs.p50_ms) == (5e6, 0.005, "fp32", None)
    (export / "model.int8.onnx").write_bytes(b"0" * 2000)
    _latency(export)
    costs = compare(["toys"]).entries[0].costs
    assert (costs.onnx_mb, costs.precision, costs.p50_ms, costs.p90_ms) == (0.002, "int8", 1.0, 2.0)
    _latency(export, recommendation={"candidate": "torch"})
    assert compare(["toys"]).entries[0].costs.p50_ms == 3.0
    _latency(export, scenario="server")
    assert compare(["toys"]).entries[0].costs.p50_ms is None


def test_a_deleted_export_costs_what_was_recorded(recorded: Recorder) -> None:
    run = recorded(GOOD, group=A)
    (run.folder / "export").mkdir()
    _latency(run.folder / "export")
    assert compare(["toys"]).entries[0].costs.onnx_mb == 9.0
    (run.folder / "export" / "latency.json").write_text('{"candidates": 3}', encoding="utf-8")
    assert compare(["toys"]).entries[0].costs.onnx_mb is None


def test_latencies_of_different_processors_are_said(recorded: Recorder) -> None:
    for group, cpu in ((A, "one"), (B, "other")):
        run = recorded(GOOD, group=group)
        (run.folder / "export").mkdir()
        _latency(run.folder / "export", conditions={"machine": {"cpu": cpu}})
    assert "different processors" in compare(["toys"]).test_sets[0].notes[0]


def test_json_has_every_pair_and_can_be_written(recorded: Recorder) -> None:
    for number, group in enumerate((A, B, C)):
        recorded(np.arange(300) < 290 - 40 * number, group=group)
    found = json.loads(json.dumps(compare(["toys"]).as_json()))
    assert [one["verdict"] for one in found["verdicts"]] == ["better"] * 3
    assert found["entries"][0]["interval_of"] == "Wilson 95 %"
    assert found["pairs_corrected_for"] == 3


def test_many_entries_are_only_marked_as_tied_with_the_best(recorded: Recorder) -> None:
    for number in range(62):
        recorded(np.arange(400) < (390 if number < 3 else 200), group=f"20261126-1000{number:02}-aaaa")
    found = compare(["toys"])
    assert [entry.letters for entry in found.entries] == ["a"] * 3 + ["-"] * 59
    assert found.test_sets[0].tied == (2, 3)
    assert len(found.against(1)) == 61
    assert found.num_pairs == 62 * 61 // 2
