"""A search on Ray as far as it needs no cluster: what stands in its way, shares of nodes, and what tasks are made of."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from optuna.trial import TrialState

from bench import __version__
from bench.errors import BenchError, RecipeError
from bench.recipe import parse
from bench.record import this_process
from bench.search.claim import claim
from bench.search.command import search
from bench.search.dealing import travelling
from bench.search.objectives import objectives
from bench.search.ray_cluster import Cluster, Node, _unreachable, require_shared, settled
from bench.search.ray_records import pack, unpack
from bench.search.ray_task import Job, _ready, _Said, _storage, place_of
from bench.search.space import parse_space
from bench.search.storage import default_url, open_storage
from bench.search.study import open_study, sweep

RECIPE = """
experiment = "toy"
[dataset]
name = "digits"
[data]
size = 8
test = 0.2
[model]
name = "linear"
[search.space]
"optimizer.lr" = {float = [1e-3, 1e-1], log = true}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "toy.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def refused(*arguments: Any) -> BenchError:
    error = CliRunner().invoke(search, [str(argument) for argument in arguments]).exception
    assert isinstance(error, BenchError), error
    return error


@pytest.mark.parametrize(
    "option", [("--address", "auto"), ("--cpus-per-trial", "2"), ("--gpus-per-trial", "0.5")], ids=lambda pair: pair[0]
)
def test_what_goes_with_ray_alone_is_refused_without_it(recipe: Path, option: tuple[str, str]) -> None:
    result = CliRunner().invoke(search, [str(recipe), *option])
    assert result.exit_code == 2
    assert f"{option[0]} goes with --engine ray" in result.stderr
    assert not Path(os.environ["BENCH_RUNS"]).exists()


@pytest.mark.parametrize("option", [("--cpus-per-trial", "0"), ("--gpus-per-trial", "-1"), ("--workers", "0")])
def test_a_share_of_nothing_is_refused(recipe: Path, option: tuple[str, str]) -> None:
    result = CliRunner().invoke(search, [str(recipe), "--engine", "ray", *option])
    assert result.exit_code == 2
    assert option[0] in result.stderr


def test_without_ray_the_error_says_how_to_install_it(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    error = refused(recipe, "--engine", "ray")
    assert "Ray cannot be imported" in str(error)
    assert error.hint == "pip install 'visionbench[ray]'"


def nodes(*has: tuple[float, float]) -> list[Node]:
    return [
        Node(f"key{place}", f"host{place}", cpus, gpus, is_here=not place) for place, (cpus, gpus) in enumerate(has)
    ]


def test_a_trial_gets_a_gpu_where_there_are_some_unless_the_recipe_asks_for_the_cpu() -> None:
    checked = parse(RECIPE, path=Path("toy.toml"))
    assert settled(Cluster(), checked, nodes((4, 0), (8, 2))).gpus_per_trial == 1.0
    assert settled(Cluster(), checked, nodes((4, 0))).gpus_per_trial == 0.0
    assert settled(Cluster(gpus_per_trial=0.25), checked, nodes((8, 2))).gpus_per_trial == 0.25
    on_cpu = parse(RECIPE, path=Path("toy.toml"), changes=["compute.device=cpu"])
    assert settled(Cluster(), on_cpu, nodes((8, 2))).gpus_per_trial == 0.0


@pytest.mark.parametrize(
    ("cpus", "gpus", "rooms"),
    [
        (1, 0, (4, 8)),
        (3, 0, (1, 2)),
        (0.5, 0, (8, 16)),
        (1, 1, (0, 2)),
        (1, 0.5, (0, 4)),
        (1, 0.3, (0, 6)),
        (1, 2, (0, 1)),
    ],
)
def test_a_node_has_room_for_as_many_trials_as_its_scarcest_share_allows(
    cpus: float, gpus: float, rooms: tuple[int, int]
) -> None:
    cluster = Cluster(cpus_per_trial=cpus, gpus_per_trial=gpus)
    assert tuple(cluster.room(node) for node in nodes((4, 0), (8, 2))) == rooms


def test_shares_that_no_node_has_are_refused_with_what_there_is() -> None:
    checked = parse(RECIPE, path=Path("toy.toml"))
    with pytest.raises(RecipeError) as caught:
        settled(Cluster(cpus_per_trial=16, gpus_per_trial=0.5), checked, nodes((4, 0), (8, 1)))
    assert "16 CPUs and 0.5 GPUs" in str(caught.value)
    assert "host0 has 4 CPUs; host1 has 8 CPUs and 1 GPU" in str(caught.value)


def test_a_study_in_a_file_is_refused_where_the_cluster_has_nodes_elsewhere() -> None:
    storage = open_storage()
    require_shared(storage, nodes((4, 0)))
    with pytest.raises(BenchError, match="nodes elsewhere: host1") as caught:
        require_shared(storage, nodes((4, 0), (4, 0)))
    assert "postgresql://" in str(caught.value.hint)


def test_another_version_of_ray_is_named() -> None:
    said = """ConnectionError: Failed to connect to Ray cluster at 10.0.0.1:6379
RuntimeError: Version mismatch: The cluster was started with:
    Ray: 2.50.0
    Python: 3.11.7
This process on node 10.0.0.2 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""
    error = _unreachable("10.0.0.1:6379", said)
    assert "of another version: The cluster was started with: Ray: 2.50.0 Python: 3.11.7 This process" in str(error)
    assert "the same Ray on all machines" in str(error.hint)


def test_the_client_protocol_is_refused(recipe: Path) -> None:
    error = refused(recipe, "--engine", "ray", "--address", "ray://127.0.0.1:10001")
    assert isinstance(error, RecipeError)
    assert "not through Ray's client" in str(error)


def test_folders_travel_as_absolute_paths_and_passwords_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", "photos")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@db/mlflow")
    found = travelling(3)
    assert found["BENCH_DATA"] == str(Path.cwd() / "photos")
    assert found["OMP_NUM_THREADS"] == "3"
    assert "secret" not in " ".join(found.values())
    assert "BENCH_RUNS" not in found


def test_a_trial_whose_task_has_ended_is_queued_again_though_its_process_lives() -> None:
    checked = parse(RECIPE, path=Path("toy.toml"))
    study = open_study(open_storage(), checked, parse_space(checked), objectives(checked))
    first, second = claim(study, 4, task="one", node="here"), claim(study, 4, task="two", node="here")
    assert first is not None
    assert second is not None
    assert study.trials[0].user_attrs["process"] == {**this_process(), "task": "one", "node": "here"}
    assert sweep(study) == 0
    assert sweep(study, ended={"one"}) == 1
    assert [trial.state for trial in study.trials] == [TrialState.WAITING, TrialState.RUNNING]
    again = claim(study, 4, task="three", node="here")
    assert again is not None
    assert again.number == 0
    assert sweep(study, ended={"one"}) == 0


def job_of(**changes: Any) -> Job:
    here = {"folder": str(Path.cwd()), "runs": os.environ["BENCH_RUNS"], "token": "none"}
    values = {
        "text": RECIPE,
        "path": "toy.toml",
        "storage_url": default_url(),
        "deadline": None,
        "threads": 1,
        "gpus": 0.0,
    }
    return Job(**{**values, **here, **changes})


def test_a_node_with_another_version_of_this_program_is_unfit() -> None:
    with pytest.raises(BenchError, match=f"visionbench {__version__} is installed, and the search runs 9.9"):
        _ready(job_of(version="9.9"), _Said())


def test_a_node_that_does_not_see_the_studys_file_makes_no_other_one() -> None:
    with pytest.raises(BenchError, match=r"search\.db: the study is in a file of .* does not see it"):
        _storage(job_of())
    assert not Path(os.environ["BENCH_RUNS"]).exists()
    open_storage()
    assert _storage(job_of()).engine.url.database == str(Path(os.environ["BENCH_RUNS"]) / "search.db")
    with pytest.raises(BenchError, match=r"in a file of elsewhere, and this node is another machine"):
        _storage(job_of(host="elsewhere"))


def test_runs_that_are_sent_replace_what_was_there_as_a_whole(tmp_path: Path) -> None:
    sent, runs = tmp_path / "sent", tmp_path / "runs"
    (sent / "toy" / "run" / "figures").mkdir(parents=True)
    (sent / "toy" / "run" / "run.json").write_text("new")
    (sent / "toy" / "run" / "figures" / "a.svg").write_text("picture")
    (runs / "toy" / "run").mkdir(parents=True)
    (runs / "toy" / "run" / "run.json").write_text("old")
    (runs / "toy" / "run" / "stale").write_text("stale")
    unpack(pack(sent, ["toy/run"]), runs)
    assert {path.relative_to(runs).as_posix() for path in runs.rglob("*")} == {
        "toy", "toy/run", "toy/run/run.json", "toy/run/figures", "toy/run/figures/a.svg",
    }  # fmt: skip
    assert (runs / "toy" / "run" / "run.json").read_text() == "new"


def test_an_archive_that_reaches_outside_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo("../../evil/run.json")
        tar.addfile(entry)
    with pytest.raises(tarfile.OutsideDestinationError):
        unpack(file.getvalue(), tmp_path / "runs")
    assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


@pytest.mark.parametrize(
    ("gpu", "visible", "place"),
    [("1", "", 1), ("3", "2,3", 1), ("0", "0", 0), ("GPU-7f", "GPU-11, GPU-7f", 1), ("2", "0,1", 2)],
)
def test_a_gpu_is_known_by_its_place_among_the_visible_ones(gpu: str, visible: str, place: int) -> None:
    assert place_of(gpu, visible) == place
