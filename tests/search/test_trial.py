"""One trial of a search: what it records, what it never reads, and how it goes on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

from bench import record
from bench.errors import RecipeError
from bench.files import sha256
from bench.progress import Progress
from bench.recipe import Recipe, parse
from bench.record import Run
from bench.run import unfinished
from bench.search.objectives import constraints, objectives
from bench.search.pruning import curve_of
from bench.search.samplers import make_pruner
from bench.search.space import parse_space
from bench.search.summary import summarise
from bench.search.trial import Shared, TrialOutcome, run_trial
from bench.stages import setup
from bench.stages.train import Trainer

RECIPE = """
experiment = "searched"
[dataset]
name = "digits"
[data]
size = 8
[model]
name = "cnn"
channels = [8]
convs_per_block = 1
[[augment]]
name = "affine"
[train]
epochs = 2
batch_size = 256
[compute]
precision = "fp32"
memory_format = "contiguous"
threads = 1
[search]
pruner = "none"
[search.space]
"optimizer.lr" = {float = [1e-3, 1e-1], log = true}
"""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def _recipe(*changes: str) -> Recipe:
    return parse(RECIPE, path=Path("searched.toml"), changes=changes)


def _study(recipe: Recipe, url: str | None = None) -> optuna.Study:
    study = optuna.create_study(
        study_name="searched",
        storage=url,
        load_if_exists=True,
        directions=[one.direction for one in objectives(recipe)],
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=make_pruner(recipe.search),
    )
    for key, value in (("group", "20260101-000000-abcd"), ("id", "0123456789abcdef")):
        study.set_user_attr(key, value)
    return study


class _Search:
    """A study in memory, asked and told as the loop does."""

    def __init__(self, *changes: str, **options: Any) -> None:
        self.recipe = _recipe(*changes)
        self.study = _study(self.recipe)
        self.shared = Shared(self.recipe, **options)

    def trial(self, lr: float = 0.01, **fixed: Any) -> TrialOutcome:
        self.study.enqueue_trial({"optimizer.lr": lr, **fixed})
        return self.go_on(self.study.ask())

    def go_on(self, trial: optuna.Trial) -> TrialOutcome:
        return run_trial(
            self.shared,
            self.study,
            trial,
            space=parse_space(self.recipe),
            objectives=objectives(self.recipe),
            constraints=constraints(self.recipe),
        )

    def tell(self, outcome: TrialOutcome) -> TrialOutcome:
        number = self.study.trials[-1].number
        if outcome.state == "complete":
            self.study.tell(number, outcome.values)
        else:
            self.study.tell(number, state=TrialState.FAIL if outcome.state == "failed" else TrialState.PRUNED)
        return outcome


def _run(outcome: TrialOutcome) -> Run:
    assert outcome.run is not None, outcome.error
    return outcome.run


def test_a_trial_records_a_run_of_its_own() -> None:
    search = _Search()
    outcome = search.trial(lr=0.02)
    run, info = _run(outcome), _run(outcome).info()
    assert (outcome.state, info["status"], run.name) == ("complete", "finished", "20260101-000000-abcd-t0000-s0")
    assert outcome.values == [info["metrics"]["val_accuracy"]]
    assert 0 < info["metrics"]["val_accuracy"] <= 1
    expected = {"study": "searched", "trial": 0, "params": {"optimizer.lr": 0.02}, "parent": "0123456789abcdef"}
    assert {key: info[key] for key in expected} == expected
    assert search.study.trials[0].user_attrs["run"] == run.name
    assert parse((run.folder / "recipe.toml").read_text(), path=Path("again.toml")).optimizer.options["lr"] == 0.02
    manifest = json.loads((run.folder / "manifest.json").read_text())
    files = {"recipe.toml", "plan.json", "metrics.jsonl", "evaluation.json", "model.safetensors"}
    assert set(manifest) == files | {"predictions/validation.npz"}
    assert all(sha256(run.folder / name) == digest for name, digest in manifest.items())
    assert curve_of(search.study.trials[0]) == {n["epoch"]: n["values"]["val_accuracy"] for n in run.epochs()}


def test_the_test_split_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    whole = setup.load_data(_recipe(), Shared(_recipe()).draft(_recipe()), Progress())
    test_rows = set(whole.splits["test"].rows.tolist())
    before = setup.Batches.ordered
    monkeypatch.setattr(setup.Batches, "ordered", lambda self: asked.append(self.images) or before(self))
    search = _Search()
    run = _run(search.trial())
    assert "test" not in search.shared.data(search.recipe).splits
    assert asked
    assert all(test_rows.isdisjoint(images.rows.tolist()) for images in asked)
    assert set(json.loads((run.folder / "evaluation.json").read_text())) == {"validation"}
    assert not any(name.startswith("test") for name in run.info()["metrics"])
    assert set(run.info()["dataset"]["counts"]) == {"train", "validation"}
    assert [path.name for path in (run.folder / "predictions").iterdir()] == ["validation.npz"]
    assert not (run.folder / "figures").exists()
    assert run.info()["dataset"]["fingerprint"] == whole.fingerprint


def test_a_recipe_without_validation_images_is_refused_before_the_first_trial() -> None:
    with pytest.raises(RecipeError, match="no validation images are held out") as error:
        Shared(_recipe("data.validation=0"))
    assert error.value.hint == "--set data.validation=0.1"


def test_wilcoxon_is_refused_where_there_is_one_seed_and_no_fold() -> None:
    with pytest.raises(RecipeError, match="over seeds or folds"):
        Shared(_recipe("search.pruner=wilcoxon"))


def test_trials_share_images_plan_and_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"load_data": 0, "calibrate": 0}

    def counted(name: str) -> None:
        before = getattr(setup, name)

        def call(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return before(*arguments, **options)

        monkeypatch.setattr(setup, name, call)

    for name in calls:
        counted(name)
    changes = (
        "compute.precision=auto",
        "compute.memory_format=auto",
        'search.space={"optimizer.lr" = {float = [1e-3, 1e-1]}, "model.dropout" = {float = [0.0, 0.5]}, "train.epochs" = {int = [1, 2]}}',
    )
    search = _Search(*changes, threads=1)
    runs = [
        _run(search.trial(lr=lr, **{"model.dropout": dropout, "train.epochs": epochs}))
        for lr, dropout, epochs in ((0.01, 0.0, 1), (0.02, 0.3, 2), (0.03, 0.0, 2))
    ]
    assert calls == {"load_data": 1, "calibrate": 1}
    plans = [json.loads((run.folder / "plan.json").read_text()) for run in runs]
    assert [plan["epochs"] for plan in plans] == [1, 2, 2] == [len(run.epochs()) for run in runs]
    assert len({(plan["precision"], plan["memory_format"]) for plan in plans}) == 1
    assert plans[0]["threads"] == 1
    assert "divided among the workers" in plans[0]["reasons"]["threads"]


def test_a_trial_trains_as_its_recipe_alone_would(tmp_path: Path) -> None:
    search = _Search()
    run = _run(search.trial(lr=0.03))
    recipe = _recipe("optimizer.lr=0.03")
    whole = setup.load_data(recipe, search.shared.draft(recipe), Progress())
    plan = setup.settle(recipe, search.shared.draft(recipe), whole, Progress())
    losses = []
    trainer = setup.make_trainer(
        recipe,
        plan,
        whole,
        seed=0,
        folder=tmp_path,
        progress=Progress(),
        on_epoch=lambda _, v: losses.append(v["train_loss"]),
    )
    trainer.fit()
    assert losses == [line["values"]["train_loss"] for line in run.epochs()]


def test_a_bad_trial_is_pruned_and_its_record_says_how_far_it_came() -> None:
    search = _Search("search.pruner=median", "search.pruner_startup=1", "search.pruner_warmup=1", "train.epochs=4")
    search.tell(search.trial(lr=0.03))
    outcome = search.trial(lr=1e-3)
    info = _run(outcome).info()
    assert (outcome.state, info["status"], outcome.values) == ("pruned", "pruned", None)
    epochs = _run(outcome).epochs()
    assert 1 <= len(epochs) < 4
    assert info["metrics"]["val_accuracy"] == epochs[-1]["values"]["val_accuracy"]
    assert info["metrics"]["epochs"] == len(epochs)
    assert {"recipe.toml", "plan.json", "metrics.jsonl"} <= set(
        json.loads((_run(outcome).folder / "manifest.json").read_text())
    )


def test_a_trial_in_its_last_epoch_is_not_pruned() -> None:
    search = _Search("search.pruner=median", "search.pruner_startup=1", "search.pruner_warmup=1", "train.epochs=1")
    search.tell(search.trial(lr=0.03))
    assert search.trial(lr=1e-3).state == "complete"


def test_accuracy_and_size_together_are_pruned_by_accuracy() -> None:
    changes = ("search.pruner=median", "search.pruner_startup=1", "search.pruner_warmup=1", "train.epochs=4")
    search = _Search(*changes, 'search.metrics=["parameters", "val_accuracy"]')
    first = search.tell(search.trial(lr=0.03))
    assert first.values is not None
    assert first.values[0] == search.study.trials[0].user_attrs["costs"]["parameters"]
    assert search.trial(lr=1e-3).state == "pruned"
    assert curve_of(search.study.trials[1])


def test_an_infeasible_trial_is_answered_without_training() -> None:
    search = _Search('search.metrics=["val_accuracy", "parameters"]', 'search.constraints=["parameters <= 10"]')
    outcome = search.trial()
    assert (outcome.state, outcome.run, outcome.values) == ("infeasible", None, None)
    assert outcome.error is not None
    assert outcome.error.startswith("parameters <= 10")
    kept = search.study.trials[0]
    assert kept.constraints["parameters <= 10"] == kept.user_attrs["costs"]["parameters"] - 10 > 0
    assert list(record.list_runs()) == []


def test_a_trial_that_breaks_a_constraint_is_measured_no_further() -> None:
    search = _Search('search.metrics=["val_accuracy", "size_mb", "macs"]', 'search.constraints=["parameters <= 10"]')
    assert search.trial().state == "infeasible"
    assert set(search.study.trials[0].user_attrs["costs"]) == {"parameters"}
    allowed = _Search('search.metrics=["val_accuracy", "macs"]', 'search.constraints=["parameters <= 1e9"]')
    assert allowed.trial().state == "complete"
    assert set(allowed.study.trials[0].user_attrs["costs"]) == {"parameters", "macs"}


def test_a_constraint_on_accuracy_is_judged_after_training() -> None:
    search = _Search('search.constraints=["val_accuracy >= 0.999"]')
    outcome = search.trial()
    assert outcome.state == "complete"
    assert outcome.values is not None
    assert search.study.trials[0].constraints == {"val_accuracy >= 0.999": pytest.approx(0.999 - outcome.values[0])}


def test_a_trial_that_cannot_be_trained_fails_and_says_why() -> None:
    search = _Search("train.epochs=1")
    search.recipe = search.shared.recipe = replace(
        search.recipe, text=search.recipe.text.replace("[1e-3, 1e-1]", "[1e-3, 1e30]")
    )
    search.recipe = search.shared.recipe = parse(search.recipe.text, path=Path("searched.toml"))
    outcome = search.trial(lr=1e30)
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert "the loss is" in outcome.error
    assert _run(outcome).info()["status"] == "failed"
    assert _run(outcome).info()["error"] == outcome.error


def test_a_combination_that_no_model_can_take_fails_and_the_next_trial_runs() -> None:
    search = _Search(
        'search.space={"optimizer.lr" = {float = [1e-3, 1e-1]}, "model.channels" = {choice = [[8], [8, 8, 8, 8, 8]]}}'
    )
    outcomes = [search.trial(**{"model.channels": channels}) for channels in ("[8, 8, 8, 8, 8]", "[8]")]
    assert [one.state for one in outcomes] == ["failed", "complete"], [one.error for one in outcomes]


class _Hungry(Progress):
    """Asks for more memory than there is."""

    def epoch(self, number: int, values: Mapping[str, float], *, best: bool) -> None:  # noqa: ARG002
        torch.empty(1 << 60)


def test_a_trial_without_memory_says_what_was_too_large() -> None:
    outcome = _Search(progress=_Hungry()).trial()
    assert outcome.state == "failed"
    assert outcome.error == "out of memory: cnn with batches of 256 is too large for this machine"
    assert _run(outcome).info()["error"] == outcome.error


class _StopIn(Progress):
    """A person's Ctrl-C after an epoch."""

    def __init__(self, epoch: int) -> None:
        self.at = epoch

    def epoch(self, number: int, values: Mapping[str, float], *, best: bool) -> None:  # noqa: ARG002
        if number == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def _put_back(search: _Search) -> optuna.Trial:
    """As the loop does with an interrupted trial."""
    search.study._storage.set_trial_state_values(search.study.trials[-1]._trial_id, TrialState.WAITING)
    return search.study.ask()


def test_an_interrupted_trial_goes_on_to_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.search.trial_run._CHECKPOINT_EVERY_S", 0.0)
    whole = _Search("train.epochs=4")
    expected = _run(whole.trial())
    monkeypatch.setenv("BENCH_RUNS", "elsewhere")
    monkeypatch.chdir(expected.folder)
    search = _Search("train.epochs=4", progress=_StopIn(2))
    outcome = search.trial()
    assert (outcome.state, _run(outcome).info()["status"]) == ("interrupted", "interrupted")
    search.shared.progress = Progress()
    trained: list[int] = []
    before = Trainer._train_epoch
    monkeypatch.setattr(Trainer, "_train_epoch", lambda self: trained.append(1) or before(self))
    finished = search.go_on(_put_back(search))
    assert len(trained) == 2
    assert finished.state == "complete"
    assert _run(finished) == _run(outcome)
    assert sha256(_run(finished).folder / "evaluation.json") == sha256(expected.folder / "evaluation.json")
    assert [line["epoch"] for line in _run(finished).epochs()] == [1, 2, 3, 4]
    assert len(list(record.list_runs())) == 1


def test_a_worker_that_wants_to_stop_leaves_its_trial_interrupted() -> None:
    search = _Search()
    search.shared.should_stop = lambda: True
    assert search.trial().state == "interrupted"


@pytest.mark.parametrize("status", ["finished", "pruned", "failed"])
def test_a_trial_killed_between_its_end_and_the_study_is_not_trained_again(
    status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = _Search()
    first = search.trial()
    if status != "finished":
        _run(first).update(status=status, error="the loss is nan")
    monkeypatch.setattr(Trainer, "fit", None)
    again = search.go_on(_put_back(search))
    assert again.state == {"finished": "complete"}.get(status, status)
    assert again.values == (first.values if status == "finished" else None)
    assert again.error == ("the loss is nan" if status == "failed" else None)


def test_a_trial_queued_again_under_another_number_keeps_its_run() -> None:
    search = _Search()
    first = _run(search.trial())
    kept = search.study.trials[0]
    search.study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING, params=kept.params, distributions=kept.distributions, user_attrs=kept.user_attrs
        )
    )
    again = search.go_on(search.study.ask())
    assert again.run == first


def test_a_folder_that_a_kill_left_without_a_record_is_used() -> None:
    search = _Search()
    folder = record.folder_of("searched", "20260101-000000-abcd-t0000-s0")
    folder.mkdir(parents=True)
    search.study.enqueue_trial({"optimizer.lr": 0.01}, user_attrs={"run": folder.name})
    assert _run(search.go_on(search.study.ask())).folder == folder.resolve()


def test_bench_run_resume_leaves_trials_alone() -> None:
    search = _Search(progress=_StopIn(1))
    outcome = search.trial(lr=0.02)
    assert outcome.state == "interrupted"
    path = _run(outcome).folder / "recipe.toml"
    assert unfinished(parse(path.read_text(), path=path)) == []


def test_under_wilcoxon_a_trial_is_the_mean_of_its_seeds_and_pruned_between_them() -> None:
    search = _Search("search.pruner=wilcoxon", "seeds=[0, 1, 2, 3, 4, 5]", "train.epochs=1", "search.pruner_startup=0")
    first = search.tell(search.trial(lr=0.03))
    runs = list(record.list_runs())
    each = [run.info()["metrics"]["val_accuracy"] for run in runs]
    assert [run.info()["seed"] for run in runs] == [0, 1, 2, 3, 4, 5]
    assert first.values == [pytest.approx(np.mean(each))]
    assert list(curve_of(search.study.trials[0]).values()) == each
    second = search.tell(search.trial(lr=1e-3))
    assert second.state == "pruned"
    assert len(list(record.list_runs())) < 12
    search.study.set_user_attr("metrics", [{"metric": "val_accuracy", "direction": "maximize"}])
    told = summarise(search.study)
    assert told["epochs"]["trained"] == len(list(record.list_runs()))
    assert told["epochs"]["unpruned"] == 12


def test_images_of_files_are_mapped_and_train_like_images_in_memory(tmp_path: Path) -> None:
    from PIL import Image

    chance = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 3)):
        for label in ("a", "b"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = chance.integers(0, 255 if label == "a" else 128, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    changes = ("dataset.name=image_folder", f"dataset.root={tmp_path / 'photos'}", "train.batch_size=8")
    search = _Search(*changes)
    data = search.shared.data(search.recipe)
    assert all(isinstance(images.images, np.memmap) for images in data.splits.values())
    assert data.resident
    assert set(data.splits) == {"train", "validation"}
    mapped = _run(search.trial())
    plain = setup.load_data(search.recipe, search.shared.draft(search.recipe), Progress())
    assert plain.fingerprint == data.fingerprint
    for split, images in data.splits.items():
        assert images.ids == plain.splits[split].ids
        rows = torch.from_numpy(np.asarray(images.images))[images.rows], plain.splits[split].images[images.rows]
        assert np.array_equal(*map(np.asarray, rows))
    assert mapped.info()["status"] == "finished"


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import test_trial as t
from bench.search import trial_run
trial_run._CHECKPOINT_EVERY_S = 0.2
recipe = t._recipe("train.epochs=60")
study = t._study(recipe, {url!r})
shared = t.Shared(recipe)
t.run_trial(shared, study, study.ask(), space=t.parse_space(recipe), objectives=t.objectives(recipe), constraints=())
"""


@pytest.mark.slow
def test_a_trial_killed_outright_goes_on_from_its_checkpoint_with_its_plan(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/search.db"
    recipe = _recipe("train.epochs=60")
    study = _study(recipe, url)
    study.enqueue_trial({"optimizer.lr": 0.01})
    code = KILLED.format(tests=str(Path(__file__).parent), url=url)
    process = subprocess.Popen([sys.executable, "-c", code])
    name = record.run_name("20260101-000000-abcd", seed=0, trial=0)
    run = Run(record.folder_of("searched", name).resolve())
    until = time.monotonic() + 120
    while not (run.checkpoints / "last.safetensors").is_file():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    process.wait()
    seen = len(run.epochs())
    assert run.status() == "interrupted"
    plan = (run.folder / "plan.json").read_text()
    study._storage.set_trial_state_values(study.trials[0]._trial_id, TrialState.WAITING)
    started: list[int] = []

    class Started(Progress):
        def start_training(self, *, epochs: int, steps: int, done: int, title: str) -> None:  # noqa: ARG002
            started.append(done)

    outcome = run_trial(
        Shared(recipe, progress=Started()),
        study,
        study.ask(),
        space=parse_space(recipe),
        objectives=objectives(recipe),
        constraints=(),
    )
    assert outcome.state == "complete"
    assert 0 < started[0] <= seen
    assert (run.folder / "plan.json").read_text() == plan
    assert [line["epoch"] for line in run.epochs()] == list(range(1, 61))
    assert [one.name for one in record.list_runs()] == [name]
    assert set(curve_of(study.trials[0])) == set(range(1, 61))
