"""What a report says in words is what the run did."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest

from bench.files import write_json
from bench.record import Run
from bench.reporting.facts import result_epoch, siblings
from bench.reporting.galleries import cells
from bench.reporting.judged import judge
from bench.reporting.reading import read_run
from bench.reporting.report import Written

Report = Callable[..., tuple[Written, str]]


@pytest.mark.parametrize(
    ("keep", "validated", "epoch"), [("best", True, 1), ("last", True, 2), ("best", False, 2), ("last", False, 2)]
)
def test_the_result_is_the_best_epoch_s_only_where_that_was_kept(
    runs: list[Run], report: Report, keep: str, validated: bool, epoch: int
) -> None:
    run = runs[0]
    info = run.info()
    run.update(metrics={**info["metrics"], "best_epoch": 1.0, "epochs": 2.0})
    recipe = run.folder / "recipe.toml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace("[train]\n", f'[train]\nkeep = "{keep}"\n'), encoding="utf-8")
    if not validated:
        path = run.folder / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            line["values"] = {name: value for name, value in line["values"].items() if not name.startswith("val_")}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert result_epoch(read_run(run)) == epoch
    assert f"The result is that of epoch {epoch}." in report(run.name)[1]


def test_nothing_is_said_of_the_result_s_epoch_where_it_is_not_known(runs: list[Run], report: Report) -> None:
    run = runs[0]
    write_json(run.folder / "run.json", {**run.info(), "status": "failed", "error": "it broke", "metrics": {}})
    assert result_epoch(read_run(run)) is None
    assert "The result is that of epoch" not in report(run.name)[1]


@pytest.mark.parametrize(
    ("tested", "asked", "split"),
    [(True, None, "test"), (True, "validation", "validation"), (False, None, "validation")],
)
def test_an_experiment_is_compared_on_the_split_that_is_shown(
    runs: list[Run], report: Report, tested: bool, asked: str | None, split: str
) -> None:
    for run in runs if not tested else ():
        kept = {name: value for name, value in run.info()["metrics"].items() if not name.startswith("test_")}
        run.update(metrics=kept)
        (run.folder / "predictions" / "test.npz").unlink()
        evaluation = json.loads((run.folder / "evaluation.json").read_text(encoding="utf-8"))
        write_json(run.folder / "evaluation.json", {"validation": evaluation["validation"]})
    written, _ = report("toys", **({} if asked is None else {"split": asked}))
    assert written.comparison is not None
    assert (written.comparison["split"], len(written.comparison["entries"])) == (split, 1)
    assert {chapter.judged.split for chapter in written.chapters if chapter.judged} == {split}


def test_a_copy_is_no_further_run_of_its_fold(pairs_run: Run) -> None:
    pairs_run.update(fold=0)
    other = pairs_run.folder.with_name(f"{pairs_run.name}.bak")
    shutil.copytree(pairs_run.folder, other)
    for run in (pairs_run, Run(other)):
        assert [(row["fold"], row["own"]) for row in siblings(read_run(run))] == [(0, True)]


def test_samples_of_a_cell_are_in_the_order_of_the_figure_beside_them(runs: list[Run]) -> None:
    """Wrong ones surest first, right ones most doubtful first."""
    judged = judge(read_run(runs[0]), None, [])
    assert judged is not None
    found = cells(judged, None)
    assert max(map(len, found.values())) > 5
    for cell, samples in found.items():
        label, guess = cell.split(",")
        chances = [chance for _, chance, _ in samples]
        assert chances == sorted(chances, reverse=label != guess)


def test_pairs_of_a_cell_begin_far_from_the_threshold_where_they_are_wrong(pairs_run: Run) -> None:
    judged = judge(read_run(pairs_run), None, [])
    assert judged is not None
    assert judged.threshold is not None
    for cell, samples in cells(judged, None).items():
        label, guess = cell.split(",")
        distances = [abs(chance - judged.threshold) for _, chance, _ in samples]
        assert distances == pytest.approx(sorted(distances, reverse=label != guess), abs=1e-4)
