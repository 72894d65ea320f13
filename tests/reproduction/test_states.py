"""Runs that did not come to their end, groups, trials, pairs, models in closed form."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import record, run
from bench.errors import BenchError, Interrupted
from bench.progress import Progress
from bench.recipe import parse
from bench.record import Run
from bench.reproduction.choice import Choice, choose
from bench.run_names import find

HERE = Path(__file__).parent
Edit = Callable[..., None]


def _recipe(text: str, *changes: str) -> Any:
    return parse(text, path=Path("/nowhere/tiny.toml"), changes=changes)


@pytest.fixture
def recipe_text(recorded: Run) -> str:
    return (recorded.folder / "recipe.toml").read_text(encoding="utf-8")


class _StopAfterOne(Progress):
    """Asks for a stop, as Ctrl-C does, after the first epoch."""

    def epoch(self, number: int, values: Any, *, best: bool) -> None:  # noqa: ARG002
        import signal

        if number == 1:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_run_is_compared_as_far_as_it_came(recorded: Run, bench: Any, recipe_text: str) -> None:
    with pytest.raises(Interrupted):
        run.run(_recipe(recipe_text, "train.epochs=3"), progress=_StopAfterOne())
    (stopped,) = [one for one in record.list_runs() if one.status() == "interrupted"]
    result = bench("reproduce", stopped.name)
    assert result.code == 0
    assert "reproduced bit for bit, as far as the record goes (1 epoch)" in result.out
    assert recorded.name not in result.out


def test_a_run_without_an_epoch_is_refused_with_a_remedy(recorded: Run, bench: Any, edit: Edit) -> None:
    edit(recorded, lambda info: info.update(status="interrupted"))
    (recorded.folder / "metrics.jsonl").unlink()
    result = bench("reproduce", recorded.name)
    assert result.code == 1
    assert "there is nothing to compare a rerun with" in " ".join(result.err.split())
    assert f"bench run --resume {recorded.name}" in result.err


def test_a_run_that_still_runs_is_refused(recorded: Run, bench: Any, edit: Edit) -> None:
    edit(recorded, lambda info: info.update(status="running", process=record.this_process()))
    result = bench("reproduce", recorded.name)
    assert result.code == 1
    assert "is still running" in result.err


def test_an_interrupted_run_that_departs_under_another_version_is_undecided(
    recorded: Run, bench: Any, edit: Edit
) -> None:
    edit(recorded, lambda info: info.update(status="interrupted"))
    edit(recorded, lambda info: info["environment"]["versions"].update(torch="2.0.1"))
    lines = recorded.epochs()[:1]
    lines[0]["values"]["train_loss"] += 1e-9
    (recorded.folder / "metrics.jsonl").write_text(json.dumps(lines[0]) + "\n", encoding="utf-8")
    result = bench("reproduce", recorded.name)
    assert result.code == 1
    assert "undecided: train_loss of epoch 1 was" in result.out
    assert f"bench run --resume {recorded.name}" in result.err


def test_a_failure_is_reproduced_where_the_rerun_fails_with_the_same_words(
    recorded: Run, bench: Any, recipe_text: str
) -> None:
    with pytest.raises(BenchError, match="the loss is"):
        run.run(_recipe(recipe_text, "optimizer.lr=1e38"))
    (failed,) = [one for one in record.list_runs() if one.status() == "failed"]
    result = bench("reproduce", failed.name)
    assert result.code == 0
    assert "reproduced: it fails as it did: the loss is" in result.out
    assert recorded.name not in result.out


def test_a_group_of_seeds_is_rerun_as_a_group(recorded: Run, bench: Any, recipe_text: str) -> None:
    made = run.run(_recipe(recipe_text, "seeds=[3, 5]", "train.epochs=1"))
    group = made[0].info()["group"]
    result = bench("reproduce", group, "--json")
    found = json.loads(result.out)["reproductions"]
    assert [(one["run"], one["seed"], one["outcome"]) for one in found] == [
        (made[0].name, 3, "identical"),
        (made[1].name, 5, "identical"),
    ]
    assert len({Run(Path(one["folder"])).info()["group"] for one in found}) == 1
    assert recorded.name not in result.out


def test_an_experiment_leaves_out_reproductions_and_what_did_not_finish(recorded: Run, bench: Any, edit: Edit) -> None:
    assert bench("reproduce", recorded.name).code == 0
    stopped = Run(shutil.copytree(recorded.folder, recorded.folder.with_name("20990101-000000-aaaa-s0")))
    edit(stopped, lambda info: info.update(status="interrupted"))
    result = bench("reproduce", "tiny", "--json")
    assert [one["run"] for one in json.loads(result.out)["reproductions"]] == [recorded.name]
    assert f"reproduces {recorded.name}" in " ".join(result.err.split())
    assert f"{stopped.name}, interrupted" in result.err


def test_an_unknown_name_is_an_error(recorded: Run, bench: Any) -> None:
    result = bench("reproduce", "nothing")
    assert result.code == 2
    assert "no run, group or experiment 'nothing'" in result.err
    assert recorded.status() == "finished"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"status": "running", "process": null}'])
def test_a_damaged_record_is_left_out_and_breaks_no_other_name(recorded: Run, edit: Edit, content: str) -> None:
    broken = Run(shutil.copytree(recorded.folder, recorded.folder.with_name("20200101-000000-aaaa-s0")))
    (broken.folder / "run.json").write_text(content, encoding="utf-8")
    edit(recorded, lambda info: info.update(group="other"))  # only the names of folders count
    assert choose(recorded.name) == Choice((recorded,))
    assert choose("tiny") == Choice((recorded,), ((broken.name, "damaged run.json"),))


@pytest.mark.parametrize("form", ["{}", "{:.18}", "tiny/{}"])
def test_trials_are_rerun_where_their_group_is_named(recorded: Run, edit: Edit, form: str) -> None:
    group = "20990101-000000-aaaa"
    trials = [
        Run(shutil.copytree(recorded.folder, recorded.folder.with_name(f"{group}-t{number:04}-s0")))
        for number in range(2)
    ]
    for trial in trials:
        edit(trial, lambda info: info.update(group=group, trial=1))
    assert choose(form.format(group)) == Choice(tuple(trials))
    assert choose("tiny").runs == (recorded,)
    assert {reason for _, reason in choose("tiny").left_out} == {"a trial of a search"}


def test_a_reproduction_is_never_resumed_in_place_of_the_recipe(recorded: Run, bench: Any, edit: Edit) -> None:
    name = bench("reproduce", recorded.name, "--json").one()["rerun"]
    edit(find(name), lambda info: info.update(status="interrupted"))
    assert run.unfinished(_recipe((recorded.folder / "recipe.toml").read_text(encoding="utf-8"))) == []


def test_a_trial_of_a_search_is_rerun_without_the_test_images(recorded: Run, bench: Any, edit: Edit) -> None:
    """A trial's record holds validation predictions only, and its rerun reads no test image either."""

    def as_trial(info: dict[str, Any]) -> None:
        info.update(trial=7, study="tiny")
        info["metrics"] = {name: value for name, value in info["metrics"].items() if not name.startswith("test_")}

    edit(recorded, as_trial)
    (recorded.folder / "predictions" / "test.npz").unlink()
    found = bench("reproduce", recorded.name, "--json").one()
    assert found["outcome"] == "identical"
    assert [one["split"] for one in found["comparison"]["paired"]] == ["validation"]
    rerun = Run(Path(found["folder"]))
    assert not (rerun.folder / "predictions" / "test.npz").exists()
    assert "test" not in json.loads((rerun.folder / "evaluation.json").read_text())


def test_a_model_in_closed_form_is_compared_without_epochs(recorded: Run, bench: Any, recipe_text: str) -> None:
    (made,) = run.run(_recipe(recipe_text, "train.epochs=0"))
    found = bench("reproduce", made.name, "--json").one()
    assert found["outcome"] == "identical"
    assert found["comparison"]["epochs"] == 0
    assert found["comparison"]["weights"] is True
    assert recorded.status() == "finished"


@pytest.mark.slow
def test_the_quickstart_is_reproduced_bit_for_bit(bench: Any, tmp_path: Path) -> None:
    from bench.recipe import load

    (made,) = run.run(load(HERE.parent.parent / "recipes" / "quickstart.toml"))
    result = bench("reproduce", made.name)
    assert result.code == 0
    assert "reproduced bit for bit\n" in result.out
    assert np.load(made.folder / "predictions" / "test.npz")["ids"].size == 359
    assert tmp_path.is_dir()
