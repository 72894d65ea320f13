"""What `bench search --show` prints: within 80 columns, and as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import record
from bench.search.show import print_study, show
from bench.search.summary import STATES, state_of, summarise
from bench.search.wording import params_text, value_text

Builder = Callable[..., Any]

TWO = ("val_accuracy", "size_mb")


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_a_front_is_shown_with_its_knee_within_80_columns(
    new_study: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    made = new_study(TWO, name="a study with a rather long name of many words that is nearly a sentence by itself")
    made.fill(40, records=True)
    made.add(state="FAIL", error="CUDA ran out of memory " * 6)
    print_study(made.study)
    printed = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= 80
    assert "Pareto front" in printed
    assert f"parameters of trial {summarise(made.study)['knee']}, the knee" in printed
    assert "what mattered for size, MB" in printed
    assert "McNemar" in printed
    assert "Hypervolume" in printed
    assert "1 failed: CUDA ran out of memory" in printed
    assert "pruned after 1 to 4" in printed


def test_the_best_trials_of_a_single_objective_are_shown_best_first(
    new_study: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    made = new_study()
    for value in (0.8, 0.95, 0.9):
        made.add(value)
    print_study(made.study)
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("trial "))
    assert [line.split()[:2] for line in lines[start + 1 : start + 4]] == [
        ["1", "95.00%"],
        ["2", "90.00%"],
        ["0", "80.00%"],
    ]
    assert "validation accuracy, the best so far: 80.00% (trial 0), 95.00% (trial 1)" in lines


def test_what_satisfies_nothing_is_said_with_the_nearest(
    new_study: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    made = new_study(TWO)
    made.add(state="PRUNED", constraints={"latency_ms <= 5": 7.0}, costs={"latency_ms": 12.0})
    made.add(state="PRUNED", constraints={"latency_ms <= 5": 1.0}, costs={"latency_ms": 6.0})
    print_study(made.study)
    text = " ".join(capsys.readouterr().out.split())
    assert "no trial satisfies every constraint; trial 1 comes nearest and misses latency_ms <= 5 with 6" in text


def test_an_empty_study_is_told_as_one(new_study: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    print_study(new_study().study)
    assert "0 trials" in capsys.readouterr().out


def test_json_holds_every_trial_and_its_costs(new_study: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    made = new_study(TWO)
    made.fill(12)
    made.add(state="PRUNED", constraints={"latency_ms <= 5": 7.0}, costs={"latency_ms": 12.0})
    show(made.study, as_json=True)
    values = json.loads(capsys.readouterr().out)
    assert values["schema"] == 1
    assert len(values["trials"]) == 13
    assert values["trials"][12]["costs"] == {"latency_ms": 12.0}
    assert values["trials"][12]["state"] == "infeasible"
    assert values["front"] == summarise(made.study)["front"]
    assert values["hypervolume"]["value"] > 0


def test_the_page_is_named_where_one_is_written(
    new_study: Builder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = new_study()
    made.fill(3)
    show(made.study, html=tmp_path / "search.html")
    assert f"page: {tmp_path / 'search.html'}" in capsys.readouterr().out
    assert (tmp_path / "search.html").is_file()


def test_states_tell_infeasible_trials_from_pruned_and_complete_ones(new_study: Builder) -> None:
    made = new_study()
    made.add(0.9)
    made.add(0.9, constraints={"size_mb <= 1": 2.0})
    made.add(state="PRUNED")
    made.add(state="PRUNED", constraints={"size_mb <= 1": 2.0})
    made.add(state="FAIL", constraints={"size_mb <= 1": 2.0})
    made.add(state="RUNNING")
    made.add(state="WAITING")
    expected = ["complete", "infeasible", "pruned", "infeasible", "failed", "running", "waiting"]
    assert [state_of(trial) for trial in made.study.trials] == expected
    assert summarise(made.study)["states"] == {state: expected.count(state) for state in STATES}


def test_epochs_come_from_the_records_and_say_what_pruning_saved(new_study: Builder) -> None:
    made = new_study(TWO)
    made.add(0.9, 1.0, epochs=6)
    made.add(state="PRUNED", epochs=2)
    made.add(state="PRUNED", epochs=3)
    assert summarise(made.study)["epochs"] == {"trained": 11, "unpruned": 18, "pruned_after": [2, 2, 3]}


def test_importances_are_left_out_of_small_studies_and_find_what_matters_in_larger_ones(new_study: Builder) -> None:
    made = new_study(TWO)
    made.fill(8)
    assert summarise(made.study)["importances"] == {}
    made.fill(60, seed=1)
    found = summarise(made.study)["importances"]
    assert next(iter(found["val_accuracy"])) == "optimizer.lr"
    assert next(iter(found["size_mb"])) == "data.size"
    assert sum(found["size_mb"].values()) == pytest.approx(1)


def test_trials_that_another_one_has_taken_over_are_not_counted(new_study: Builder) -> None:
    made = new_study()
    made.add(state="FAIL")
    made.add(0.9, retry_of=0)
    found = summarise(made.study)
    assert found["states"]["failed"] == 0
    assert [row["number"] for row in found["trials"]] == [1]


def test_values_are_told_in_the_metric_s_own_way() -> None:
    assert value_text("val_accuracy", 0.99314) == "99.31%"
    assert value_text("size_mb", 0.41234) == "0.4123"
    assert value_text("parameters", 1234567.0) == "1,234,567"


def test_parameters_keep_as_much_of_their_key_as_tells_them_apart() -> None:
    assert params_text({"optimizer.lr": 0.00123456, "model.width": 8}) == "lr=0.001235, width=8"
    assert params_text({"optimizer.name": "sgd", "model.name": "cnn"}) == "optimizer.name=sgd, model.name=cnn"


@pytest.mark.parametrize(
    ("width", "shown"),
    [(40, "lr=0.001235, channels=[8, 16], width=8"), (36, "lr=0.001235, channels=[8, 16], …"), (5, "…")],
)
def test_settings_that_do_not_fit_are_left_out_whole(width: int, shown: str) -> None:
    assert params_text({"lr": 0.00123456, "channels": [8, 16], "width": 8}, width) == shown


def test_damaged_records_of_trials_and_winners_are_in_nobodys_way(
    new_study: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    made = new_study(TWO)
    for size in (1.0, 1.0, 2.0):  # a tie, which the runs would tell apart
        made.add(0.9, size, epochs=3)
    made.add(state="FAIL", epochs=2)
    group = "20261126-050000-ab12"
    made.study.set_user_attr("retrained", {"0": group})
    record.create("toy", group=group, seed=0, recipe_text="", plan={})
    for run in record.list_runs():
        (run.folder / "run.json").write_text("[]", encoding="utf-8")
    print_study(made.study)
    printed = capsys.readouterr().out
    assert "1 failed: unknown" in printed
    assert summarise(made.study)["winners"] == []
