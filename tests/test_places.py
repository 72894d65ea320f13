"""Where a recipe's folders and weights are found, each with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import record
from bench.errors import RecipeError
from bench.places import find_root, find_weights
from bench.record import Run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with another one that BENCH_DATA names and a home."""
    for name in ("here", "data", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "here"


def create(group: str = "20260101-aa", *, seed: int = 0) -> Run:
    run = record.create("pets", group=group, seed=seed, recipe_text="", plan={})
    run.finish("finished")
    return run


# Folders


def test_an_absolute_folder_is_taken_as_it_is(here: Path) -> None:
    assert find_root("/nowhere/photos") == ("/nowhere/photos", "given as an absolute path")
    assert find_root("~/photos") == (str(here.parent / "home" / "photos"), "given as an absolute path")


def test_the_current_folder_comes_before_bench_data(here: Path) -> None:
    (here.parent / "data" / "photos").mkdir()
    assert find_root("photos") == (
        str(here.parent / "data" / "photos"),
        "below the folder that BENCH_DATA names",
    )
    (here / "photos").mkdir()
    assert find_root("photos") == (str(here / "photos"), "found below the current folder")


def test_bench_data_may_be_relative(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", "../data")
    assert find_root("gtsrb")[0] == str(here.parent / "data" / "gtsrb")
    (here.parent / "data" / "w.safetensors").touch()
    assert find_weights("w.safetensors")[0] == str(here.parent / "data" / "w.safetensors")


@pytest.mark.usefixtures("here")
def test_without_bench_data_it_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        monkeypatch.delenv("BENCH_DATA") if value is None else monkeypatch.setenv("BENCH_DATA", value)
        path, reason = find_root("photos")
        assert Path(path).parts[-3:] == ("visionbench", "data", "photos")
        assert reason == "not in the current folder and BENCH_DATA is not set"


# Weights


@pytest.mark.usefixtures("here")
def test_no_weights_are_none() -> None:
    assert find_weights("") == ("", "none given")


def test_weights_are_looked_for_in_the_same_places(here: Path) -> None:
    path = here.parent / "data" / "w.safetensors"
    path.touch()
    assert find_weights("w.safetensors") == (str(path), "below the folder that BENCH_DATA names")
    (here / "w.safetensors").touch()
    assert find_weights("w.safetensors") == (str(here / "w.safetensors"), "found below the current folder")
    assert find_weights("~/w")[0] == str(here.parent / "home" / "w")
    assert find_weights("/x/w")[0] == "/x/w"


def test_missing_weights_say_where_they_were_looked_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = here.parent / "data"
    assert find_weights("w.safetensors") == ("w.safetensors", f"missing: neither in the current folder nor in {data}")
    monkeypatch.delenv("BENCH_DATA")
    assert find_weights("w") == ("w", "missing: neither in the current folder nor below BENCH_DATA, not set")


@pytest.mark.parametrize("form", ["runs:/{}", "runs:/{}/", "runs:/{}/model", "runs:/{}/model/"])
def test_weights_of_a_recorded_run_by_its_name(form: str) -> None:
    create(seed=1)
    run = create(seed=2)
    expected = (str(run.folder / "model.safetensors"), "of the finished run 20260101-aa-s2")
    assert find_weights(form.format(run.name)) == expected
    assert find_weights(form.format(f"pets/{run.name}")) == expected


@pytest.mark.parametrize("form", ["runs:/{}", "runs:/{}/model"])
def test_weights_of_a_recorded_run_by_its_id_in_mlflow(form: str) -> None:
    create(seed=1)
    run = create(seed=2)
    (run.folder / "mlflow.json").write_text(json.dumps({"run_id": "0123abcd"}))
    assert find_weights(form.format("0123abcd"))[0] == str(run.folder / "model.safetensors")


def test_a_run_that_is_not_finished_is_said_to_be_so() -> None:
    run = record.create("pets", group="20260101-aa", seed=0, recipe_text="", plan={})
    assert find_weights(f"runs:/{run.name}")[1] == "of the running run 20260101-aa-s0"


@pytest.mark.parametrize("path", ["runs:/nowhere", "runs:/", "runs:/model", "runs://"])
def test_a_run_that_is_not_there_is_an_error(path: str) -> None:
    create()
    with pytest.raises(RecipeError, match="no run '"):
        find_weights(path)


def test_a_name_that_fits_several_runs_is_an_error() -> None:
    create(seed=1)
    create(seed=2)
    with pytest.raises(RecipeError, match="'20260101' fits 2 runs"):
        find_weights("runs:/20260101")
