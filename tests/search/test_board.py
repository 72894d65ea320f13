"""The board fits into 80 columns on a terminal, and is a log elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

from rich.console import Console

from bench.search.board import Board, BoardProgress
from bench.search.objectives import Objective

ACCURACY = Objective("val_accuracy", "maximize", is_cost=False)
SIZE = Objective("size_mb", "minimize", is_cost=True)


def screen(board: Board) -> list[str]:
    console = Console(file=StringIO(), width=80)
    console.print(board._draw())
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_the_live_table_fits_into_80_columns_and_names_the_best(new_study: Callable[..., Any]) -> None:
    builder = new_study()
    builder.fill(12)
    builder.add(state="RUNNING", params={"optimizer.lr": 1e-3, "data.size": 8, "optimizer.name": "adamw"})
    board = Board("a_search_with_a_rather_long_name", [ACCURACY], total=50)
    board.show(builder.study.trials)
    lines = screen(board)
    best = max((t for t in builder.study.trials if t.values and not any(v > 0 for v in t.constraints.values())),
               key=lambda trial: trial.values[0])  # fmt: skip
    assert all(len(line) <= 80 for line in lines)
    assert "12/50 trials" in lines[0]
    assert "1 running" in lines[0]
    assert f"best val_accuracy {best.values[0]:.4g} (trial {best.number})" in lines[1]
    assert lines[-1].split()[:2] == ["12", "running"]
    assert len(lines) == 3 + 6


def test_with_several_objectives_it_counts_the_front(new_study: Callable[..., Any]) -> None:
    builder = new_study(("val_accuracy", "size_mb"))
    for values in ((0.9, 1.0), (0.8, 0.5), (0.7, 0.7)):
        builder.add(*values)
    board = Board("toy", [ACCURACY, SIZE], total=3)
    board.show(builder.study.trials)
    assert screen(board)[1].rstrip() == "front of 2: best val_accuracy 0.9, size_mb 0.5"


def test_elsewhere_each_finished_trial_is_one_line_and_earlier_ones_are_not_repeated(
    new_study: Callable[..., Any],
) -> None:
    builder = new_study()
    console = Console(file=StringIO(), width=80)
    builder.add(0.5)
    with Board("toy", [ACCURACY], total=3, console=console) as board:
        board.show(builder.study.trials)
        builder.add(0.75)
        builder.add(state="FAIL", error="no room")
        board.show(builder.study.trials)
        board.show(builder.study.trials)
        progress = BoardProgress(board)
        progress.warn("odd")
        progress.warn("odd")
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "toy  1/3 trials"
    assert lines[1].startswith("2/3  trial 1 complete  val_accuracy 0.75")
    assert lines[2].startswith("3/3  trial 2 failed")
    assert lines[3:] == ["    no room", "warning: odd"]
