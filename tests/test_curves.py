"""`bench curves`: what is drawn of runs in every state, without colour, in narrow terminals and in plain ASCII."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import cli
from bench.history import read_history
from bench.record import Run, this_process
from bench.terminal_plot import Curve, can_draw, plot


def _record(
    folder: Path, name: str, losses: list[float], *, planned: int | None = None, status: str = "finished", **info: Any
) -> Run:
    """A run with these validation losses; accuracy and training loss follow from them."""
    run = Run(folder / "toy" / name)
    run.folder.mkdir(parents=True)
    best = {"best_epoch": float(losses.index(min(losses)) + 1)} if losses and status == "finished" else {}
    first = {"experiment": "toy", "group": name.rpartition("-")[0], "seed": 0, "status": status, "metrics": best}
    (run.folder / "run.json").write_text(json.dumps({**first, "objective": "val_loss", **info}))
    (run.folder / "plan.json").write_text(json.dumps({"epochs": len(losses) if planned is None else planned}))
    lines = []
    for number, loss in enumerate(losses, start=1):
        values = {
            "train_loss": loss / 2,
            "train_accuracy": 1 - loss / 8,
            "val_loss": loss,
            "val_accuracy": 1 - loss / 4,
        }
        lines.append({"epoch": number, "time": number, "values": {**values, "system/load": 1.0}})
    if lines:
        (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "runs"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["bench", "curves", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert int(ended.value.code or 0) == code, captured.err
        return captured.err if code else captured.out

    return call


def test_one_run_has_a_plot_of_loss_and_one_of_accuracy_with_the_best_epoch(runs: Path, bench: Any) -> None:
    run = _record(runs, "a-s0", [2.0, 1.0, 0.5, 0.25, 0.75])
    lines = bench(run.name).splitlines()
    assert lines[0] == "a-s0 of toy: 5 epochs"
    assert lines[1].endswith("best epoch: 4")
    assert [line for line in lines if line in {"loss", "accuracy"}] == ["loss", "accuracy"]
    assert sum("◆" in line for line in lines) == 3  # the legend and one in each plot
    assert any(line.strip() == "epoch" for line in lines)
    assert "100%" not in lines[lines.index("loss") :][:12]


@pytest.mark.parametrize("columns", [30, 60, 80])
def test_no_line_is_wider_than_the_terminal(
    runs: Path, bench: Any, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    run = _record(runs, "a-s0", [2.0 / epoch for epoch in range(1, 200)])
    shown = bench(run.name, "--metric", "val_loss").splitlines()[2:]
    assert max(map(len, shown)) <= columns
    assert max(map(len, shown)) > columns - 12


def test_several_runs_have_letters_of_their_own_and_no_colour_is_needed(
    runs: Path, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    _record(runs, "a-s0", [2.0, 1.0, 0.5, 0.4])
    _record(runs, "b-s0", [3.0, 2.5, 2.4, 2.3, 2.2, 2.1])
    shown = bench("a-s0", "b-s0")
    for colour in range(30, 38):
        assert f"[{colour}m" not in shown
    panel = re.sub(r"\x1b\[\d*m", "", shown).partition("\nval_loss\n")[2]
    assert panel.count("A") >= 1
    assert panel.count("B") >= 1
    assert "val_accuracy" in shown


def test_an_experiment_stands_for_its_runs(runs: Path, bench: Any) -> None:
    _record(runs, "a-s0", [2.0, 1.0])
    _record(runs, "b-s0", [3.0, 2.5])
    found = json.loads(bench("toy", "a-s0", "--json"))["runs"]
    assert [one["name"] for one in found] == ["a-s0", "b-s0"]
    assert found[1]["values"]["val_loss"] == [3.0, 2.5]
    assert found[1]["best_epoch"] == 2
    assert found[1]["epochs"] == [1, 2]
    assert "system/load" not in found[1]["values"]


def test_metrics_are_chosen_and_unknown_ones_get_the_near_miss(runs: Path, bench: Any) -> None:
    run = _record(runs, "a-s0", [2.0, 1.0])
    assert set(json.loads(bench(run.name, "--metric", "val_loss", "--json"))["runs"][0]["values"]) == {"val_loss"}
    assert 'did you mean "val_loss"?' in bench(run.name, "--metric", "val_los", code=2)
    assert "known: train_accuracy" in bench(run.name, "--metric", "qqq", code=2)


def test_one_epoch_is_a_single_mark(runs: Path, bench: Any) -> None:
    run = _record(runs, "a-s0", [2.0])
    shown = bench(run.name)
    assert "a-s0 of toy: 1 epoch\n" in shown
    assert shown.count("◆") == 3


def test_a_model_in_closed_form_and_a_run_stopped_at_once_are_told_apart(runs: Path, bench: Any) -> None:
    _record(runs, "a-s0", [], planned=0)
    _record(runs, "b-s0", [], planned=5, status="interrupted")
    _record(runs, "c-s0", [2.0, 1.0])
    assert bench("a-s0") == "a-s0 of toy: computed in closed form, without epochs\n"
    assert bench("b-s0") == "b-s0 of toy: interrupted, no epoch has ended\n"
    shown = bench("toy")
    assert "A  c-s0" in shown
    assert "computed in closed form" in shown


def test_an_interrupted_run_shows_how_far_it_came_and_its_best_epoch_so_far(runs: Path, bench: Any) -> None:
    run = _record(runs, "a-s0", [2.0, 1.0, 3.0], planned=10, status="interrupted")
    assert "3 epochs of 10, interrupted" in bench(run.name)
    assert read_history(run).best_epoch == 2


def test_a_running_run_and_a_torn_last_line_are_drawn_as_far_as_they_are(runs: Path, bench: Any) -> None:
    run = _record(runs, "a-s0", [2.0, 1.0], planned=10, status="running", process=this_process())
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "val')
    assert "2 epochs of 10, running" in bench(run.name)


def test_values_that_are_no_numbers_leave_gaps_and_are_counted(runs: Path, bench: Any) -> None:
    run = _record(runs, "a-s0", [2.0, math.nan, 1.0, math.inf])
    shown = bench(run.name, "--metric", "val_loss")
    assert "no number in 2 epochs" in shown
    values = json.loads(bench(run.name, "--json"))["runs"][0]["values"]["val_loss"]
    assert values == [2.0, None, 1.0, None]


def test_nothing_but_nan_is_said_not_drawn(runs: Path, bench: Any) -> None:
    run = _record(runs, "a-s0", [math.nan, math.nan], status="failed")
    assert "no finite values" in bench(run.name)


def test_a_run_without_validation_is_drawn_by_its_training(runs: Path, bench: Any) -> None:
    _record(runs, "a-s0", [2.0, 1.0])
    run = _record(runs, "b-s0", [2.0, 1.0])
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["values"] = {name: value for name, value in line["values"].items() if name.startswith("train")}
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "\ntrain_loss\n" in bench("toy")
    assert "◆" in bench("b-s0")


def test_ascii_is_enough_where_the_encoding_has_no_braille() -> None:
    assert can_draw("utf-8")
    assert not can_draw("ascii")
    assert not can_draw("latin-1")
    assert not can_draw(None)
    curve = Curve([(1, 4.0), (2, 2.0), (3, 1.0)], "A", best=3.0)
    lines = [line.plain for line in plot([curve], x_label="epoch", width=40, height=8, unicode=False)]
    assert all(line.isascii() for line in lines)
    assert sum(line.count("*") for line in lines) == 1


def test_a_falling_line_goes_from_the_upper_left_to_the_lower_right() -> None:
    curve = Curve([(1, 3.0), (2, 2.0), (3, 1.0)], "", best=None)
    rows = [
        line.plain.partition("|")[2] or line.plain.partition("+")[2]
        for line in plot([curve], x_label="epoch", width=30, height=6, unicode=False)
    ][:6]
    ends = [(row.index("."), row.rindex(".")) for row in rows]
    assert ends == sorted(ends)
    assert ends[0][0] == 0
    assert ends[-1][1] == max(len(row) for row in rows) - 1


def test_a_wide_range_of_losses_is_logarithmic_and_shares_never_are() -> None:
    points = [(float(epoch), 10.0**-epoch) for epoch in range(5)]
    shown = [line.plain for line in plot([Curve(points, "A")], x_label="epoch", width=40, height=10)]
    labels = [line.partition("┤")[0].strip() for line in shown if "┤" in line]
    assert labels == ["1", "0.1", "0.01", "0.001", "0.0001"]
    shares = [line.plain for line in plot([Curve(points, "A")], x_label="epoch", width=40, height=10, percent=True)]
    assert "80%" in "\n".join(shares)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-30, 1e30])
def test_a_constant_is_a_level_line(value: float) -> None:
    lines = [line.plain for line in plot([Curve([(1, value), (9, value)], "")], x_label="epoch", width=40, height=6)]
    drawn = [line for line in lines if any("\u2801" <= letter <= "\u28ff" for letter in line)]
    assert len(drawn) == 1
    assert f"{value:.3g}" in drawn[0]
