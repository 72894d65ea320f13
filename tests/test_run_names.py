"""What a name stands for: the table of precedence, what is ambiguous, and what is in nobody's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import record
from bench.errors import BenchError, RecipeError
from bench.record import Run
from bench.resuming import to_resume
from bench.run_names import find, latest_experiment, resolve, resolve_all

SEEDS, FOLDS, SEARCH, SINGLE, TWICE = (f"20260101-12000{n}-{letter * 4}" for n, letter in enumerate("abcde"))


def make(folder: Path) -> Path:
    """A run's folder whose run.json cannot be read: names are all that counts."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{", encoding="utf-8")
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs of three experiments, and an empty current folder."""
    root = tmp_path / "bench-runs"
    for name in ("s0", "s1", "s10"):
        make(root / "pets" / f"{SEEDS}-{name}")
    for name in ("f0-s0", "f0-s1", "f1-s0", "f1-s1"):
        make(root / "pets" / f"{FOLDS}-{name}")
    for name in ("t0000-s0", "t0001-s0", "t0010-s0"):
        make(root / "birds" / f"{SEARCH}-{name}")
    make(root / "birds" / f"{SINGLE}-s0")
    for experiment in ("pets", "night_owls"):
        make(root / experiment / f"{TWICE}-s0")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return root


@pytest.mark.parametrize(
    ("name", "kind", "whole", "count"),
    [
        # the path of a run's folder
        (f"../bench-runs/pets/{SEEDS}-s1", "run", f"{SEEDS}-s1", 1),
        (f"../bench-runs/pets/{SEEDS}-s1/", "run", f"{SEEDS}-s1", 1),
        # an experiment, by its name or its folder's
        ("pets", "experiment", "pets", 8),
        ("pets/", "experiment", "pets", 8),
        ("pets//", "experiment", "pets", 8),
        ("night/owls", "experiment", "night/owls", 1),
        ("night_owls", "experiment", "night_owls", 1),
        # a run's whole name
        (f"{SEEDS}-s1", "run", f"{SEEDS}-s1", 1),
        (f"pets/{SEEDS}-s1", "run", f"{SEEDS}-s1", 1),
        (f"night/owls/{TWICE}-s0", "run", f"{TWICE}-s0", 1),
        # a group
        (SEEDS, "group", SEEDS, 3),
        (FOLDS, "group", FOLDS, 4),
        (SEARCH, "group", SEARCH, 3),
        (f"pets/{FOLDS}", "group", f"pets/{FOLDS}", 4),
        (SINGLE, "run", f"{SINGLE}-s0", 1),
        # the path of a folder of runs
        ("../bench-runs/birds", "folder", "../bench-runs/birds", 4),
        # a start
        (SEEDS[:-2], "group", SEEDS, 3),
        (SEARCH[:-2], "group", SEARCH, 3),
        (f"pets/{SEEDS[:-2]}", "group", f"pets/{SEEDS}", 3),
        (f"{FOLDS}-f1", "group", f"{FOLDS}-f1", 2),
        (f"{SEARCH}-t000", "group", f"{SEARCH}-t000", 2),
        (SINGLE[:-2], "run", f"{SINGLE}-s0", 1),
        (f"night/owls/{TWICE[:4]}", "run", f"{TWICE}-s0", 1),
    ],
)
def test_the_rule_without_any_run_json_that_can_be_read(
    root: Path, name: str, kind: str, whole: str, count: int
) -> None:
    named = resolve(name)
    assert (named.kind, named.name, len(named.runs)) == (kind, whole, count)
    assert named.is_run == (kind == "run")
    names = [run.name for run in named.runs]
    assert names == sorted(names)
    assert all(run.folder.is_absolute() and root in run.folder.parents for run in named.runs)


@pytest.mark.parametrize(
    ("name", "folder", "kind"),
    [
        ("pets", "here/pets", "run"),  # before the experiment
        (f"{SEEDS}-s0", f"bench-runs/{SEEDS}-s0/x-s0", "experiment"),  # before the run
        (f"{SEEDS}-s0", f"bench-runs/pets/{SEEDS}-s0-s7", "run"),  # before the group
        (SEEDS, f"here/{SEEDS}/x-s0", "group"),  # before the folder of runs
        (SEEDS[:-2], f"here/{SEEDS[:-2]}/x-s0", "folder"),  # before the start
        (SINGLE, f"bench-runs/pets/{SINGLE}ddd-s0", "run"),  # a whole group before the start of another
    ],
)
def test_of_two_that_fit_the_first_of_the_rule_counts(
    root: Path, tmp_path: Path, name: str, folder: str, kind: str
) -> None:
    make(tmp_path / folder)
    assert root.is_dir()
    assert resolve(name).kind == kind


def test_the_current_folder_is_a_run_or_a_folder_of_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "birds")
    assert (resolve(".").kind, resolve(".").name) == ("folder", str(root / "birds"))
    monkeypatch.chdir(root / "birds" / f"{SINGLE}-s0")
    assert (resolve(".").kind, resolve(".").name) == ("run", f"{SINGLE}-s0")
    with pytest.raises(RecipeError, match="no run ''"):
        find("")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("2026", f"fits 13 runs: pets/{SEEDS} (3 runs), pets/{FOLDS} (4 runs), birds/{SEARCH} (3 runs), ", "pets/2026"),
        (f"{TWICE}-s0", f"fits 2 runs: night_owls/{TWICE}-s0, pets/{TWICE}-s0", f"night_owls/{TWICE}-s0"),
        (TWICE, f"fits 2 runs: night_owls/{TWICE}-s0, pets/{TWICE}-s0", f"its experiment: night_owls/{TWICE}"),
        (
            "pets/2026",
            f"fits 8 runs: pets/{SEEDS} (3 runs), pets/{FOLDS} (4 runs), pets/{TWICE}-s0",
            "more of the name",
        ),
    ],
)
def test_what_fits_is_listed_where_that_is_several_things(root: Path, name: str, message: str, hint: str) -> None:
    assert root.is_dir()
    with pytest.raises(RecipeError) as caught:
        resolve(name)
    assert str(caught.value).startswith(f"'{name}' {message}")
    assert hint in str(caught.value.hint)


def test_a_long_list_of_what_fits_is_cut(root: Path) -> None:
    for number in range(9):
        make(root / "many" / f"2027010{number}-aa-s0")
    with pytest.raises(RecipeError, match=r"fits 9 runs: .*, many/20270104-aa-s0 and 4 more$") as caught:
        resolve("2027")
    assert caught.value.hint == "give more of the name"  # the experiment would not tell them apart


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("pest", 'did you mean "pets"'),
        (f"{SEEDS}-s3", f'did you mean "{SEEDS}-s'),
        (f"pest/{SEEDS}-s1", f'did you mean "pets/{SEEDS}-s1"'),
        ("nothing", ""),
        ("", ""),
        ("/", ""),
        (" ", ""),
        ("x" * 5000, ""),
        ("a\0b", ""),
        ("*", ""),
        ("/2026", ""),
    ],
)
def test_a_name_of_nothing_is_an_error_with_the_near_miss(root: Path, name: str, near: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve(name)
    assert str(caught.value).startswith(f"no run, group or experiment {name!r} in {root}")
    assert near in str(caught.value)
    assert ("did you mean" in str(caught.value)) == bool(near)
    assert caught.value.hint == "bench runs lists them"


def test_no_runs_at_all() -> None:
    with pytest.raises(RecipeError, match=r"no run 'x' in .*bench-runs$") as caught:
        find("x")
    assert caught.value.hint == "bench runs lists them"
    with pytest.raises(RecipeError, match="no runs in"):
        latest_experiment()


def test_a_folder_without_run_json_is_no_run(root: Path) -> None:
    (root / "pets" / "20270101-aa-s0").mkdir()
    (root / "empty").mkdir()
    for name in ("20270101-aa-s0", "2027", "empty"):
        with pytest.raises(RecipeError, match="no run"):
            resolve(name)


def test_one_run_is_found_whatever_names_it_and_several_are_refused(root: Path) -> None:
    single = Run((root / "birds" / f"{SINGLE}-s0").resolve())
    assert {find(name) for name in (f"{SINGLE}-s0", SINGLE, SINGLE[:-2], str(single.folder))} == {single}
    assert find("night_owls").name == f"{TWICE}-s0"  # an experiment's only run
    with pytest.raises(RecipeError, match=f"'pets' fits 8 runs: {SEEDS}-s0, .* and 3 more") as caught:
        find("pets")
    assert caught.value.hint == "name one of them"
    with pytest.raises(RecipeError, match=f"'{SEEDS}' fits 3 runs: {SEEDS}-s0, {SEEDS}-s1, {SEEDS}-s10"):
        find(SEEDS)


def test_links_are_second_names_of_the_same_run(root: Path) -> None:
    (root / "pets" / "favourite").symlink_to(root / "pets" / f"{SEEDS}-s1")
    (root / "animals").symlink_to(root / "pets")
    assert find("favourite").name == f"{SEEDS}-s1"
    assert find(f"{SEEDS}-s1").folder == (root / "pets" / f"{SEEDS}-s1").resolve()
    assert len(resolve("pets").runs) == len(resolve("animals").runs) == 8
    assert (resolve(SEEDS).kind, len(resolve(SEEDS).runs)) == ("group", 3)


def test_several_names_are_resolved_in_their_order(root: Path) -> None:
    found = resolve_all(iter(["birds", SEEDS, str(root / "pets" / f"{SEEDS}-s0")]))
    assert [(named.kind, named.name) for named in found] == [
        ("experiment", "birds"),
        ("group", SEEDS),
        ("run", f"{SEEDS}-s0"),
    ]


def test_the_latest_experiment_is_that_of_the_latest_run(root: Path) -> None:
    make(root / "birds" / "20990101-aa-s0")
    found = latest_experiment()
    assert (found.name, found.kind, len(found.runs)) == ("birds", "experiment", 5)


def test_a_run_is_resumed_beside_one_whose_record_is_damaged(root: Path) -> None:
    text = 'experiment = "pets"\n[dataset]\nname = "digits"\n[model]\nname = "linear"\n'
    runs = [
        record.create("pets", group="20270101-aa", seed=seed, recipe_text=text, plan={}, recipe="a.toml")
        for seed in (0, 1)
    ]
    recipe, begun = to_resume(None, (), runs[1].name)
    assert (recipe.experiment, begun) == ("pets", runs)
    make(root / "pets" / "20270101-aa-s2")
    with pytest.raises(BenchError, match=r"20270101-aa-s2: no readable run\.json"):  # one of the runs to go on with
        to_resume(None, (), runs[1].name)
