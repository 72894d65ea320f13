"""What recipe, machine and data decide, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from bench import environment
from bench.environment import Machine
from bench.errors import RecipeError
from bench.kinds import DataSpec
from bench.plan import Plan, complete, draft, from_json, require_files
from bench.recipe import Recipe, parse

_CPU = Machine(4, "Xeon", ("avx2",), "", 16.0)
_AMX = Machine(4, "Xeon", ("avx2", "avx512_bf16", "amx_bf16"), "", 16.0)
_GPU = Machine(16, "Xeon", (), "H100", 128.0)
_COUNTS = {"train": {"cat": 900, "dog": 600}, "test": {"cat": 50, "dog": 50}}


def recipe(*changes: str) -> Recipe:
    text = '[dataset]\nname = "digits"\n\n[model]\nname = "linear"\n'
    return parse(text, path=Path("toy.toml"), changes=changes)


def completed(*changes: str, channels: int = 3, **options: Any) -> Plan:
    given = recipe(*changes)
    spec = DataSpec("classification", ("cat", "dog"), channels, (64, 64))
    values: dict[str, Any] = {
        "statistics": lambda: ((0.1,) * channels, (0.2,) * channels),
        "model_statistics": None,
        "frozen_backbone": False,
        "steps_per_epoch": 24,
    }
    return complete(draft(given, _CPU), given, spec=spec, counts=_COUNTS, **{**values, **options})


@pytest.mark.parametrize("machine", [_CPU, _AMX, _GPU, environment.detect()])
def test_every_value_has_its_reason(machine: Machine) -> None:
    plan = draft(recipe(), machine)
    unknown = {"channels", "classes", "mean", "std", "steps_per_epoch", "cache_features", "num_folds"}
    names = {field.name for field in fields(Plan)} - {"reasons"}
    assert set(plan.reasons) == names - unknown - {"task"}
    assert all(plan.reasons.values())
    assert all(getattr(plan, name) is None for name in unknown)
    whole = completed()
    assert set(whole.reasons) == names
    assert all(whole.reasons.values())


@pytest.mark.parametrize("plan", [draft(recipe(), _AMX), completed("seeds=[1, 2]", "data.size=[32, 48]")])
def test_a_plan_survives_json(plan: Plan) -> None:
    assert from_json(json.loads(json.dumps(plan.as_json()))) == plan


def test_decided_changes_value_and_reason_only() -> None:
    plan = draft(recipe(), _AMX)
    settled = plan.decided(precision=("bf16", "faster"))
    assert (settled.precision, settled.reasons["precision"]) == ("bf16", "faster")
    assert plan.precision == "auto"
    assert settled.decided(precision=(plan.precision, plan.reasons["precision"])) == plan


@pytest.mark.parametrize(
    ("machine", "changes", "device", "precision", "threads"),
    [
        (_CPU, (), "cpu", "fp32", None),
        (_AMX, (), "cpu", "auto", None),
        (_AMX, ("compute.precision=fp32", "compute.threads=3"), "cpu", "fp32", 3),
        (_CPU, ("compute.precision=bf16",), "cpu", "bf16", None),
        (Machine(1, "Atom", (), "", 1.0), (), "cpu", "fp32", 1),
        (_GPU, (), "cuda", "auto", 16),
        (_GPU, ("compute.device=cpu",), "cpu", "fp32", None),
        (_GPU, ("compute.device=cuda:1", "compute.precision=fp16"), "cuda:1", "fp16", 16),
    ],
)
def test_device_precision_and_threads(
    machine: Machine, changes: tuple[str, ...], device: str, precision: str, threads: int | None
) -> None:
    plan = draft(recipe(*changes), machine)
    assert (plan.device, plan.precision, plan.threads) == (device, precision, threads)


def test_reasons_name_the_hardware() -> None:
    assert draft(recipe(), _CPU).reasons["device"] == "no CUDA device; Xeon"
    assert draft(recipe(), _GPU).reasons["device"] == "H100"
    assert "amx_bf16, avx512_bf16" in draft(recipe(), _AMX).reasons["precision"]
    assert draft(recipe(), _CPU).reasons["precision"] == "the CPU has no bf16 instructions"
    assert draft(recipe("compute.memory_format=contiguous"), _CPU).reasons["memory_format"] == "given by the recipe"


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (("compute.device=cuda",), "torch sees no CUDA device", "--set compute.device=auto"),
        (("compute.device=gpu",), "known are auto, cpu, cuda and cuda:N", None),
        (("compute.precision=fp16",), '"fp16" needs CUDA', "--set compute.precision=auto"),
    ],
)
def test_what_the_machine_cannot_do(changes: tuple[str, ...], message: str, hint: str | None) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        draft(recipe(*changes), _CPU)
    assert error.value.hint == hint


@pytest.mark.parametrize(("size", "expected"), [("32", (32, 32)), ("[24, 48]", (24, 48))])
def test_image_size_is_height_and_width(size: str, expected: tuple[int, int]) -> None:
    assert draft(recipe(f"data.size={size}"), _CPU).image_size == expected


# places


def test_the_dataset_is_looked_for_here_then_below_bench_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    home.mkdir()
    monkeypatch.chdir(here)

    def look(*changes: str) -> tuple[str, str]:
        plan = draft(recipe(*changes), _CPU)
        return plan.dataset_root, plan.reasons["dataset_root"]

    root, reason = look()
    assert (Path(root).parts[-3:], reason) == (
        ("visionbench", "data", "digits"),
        "not in the current folder and BENCH_DATA is not set",
    )
    monkeypatch.setenv("BENCH_DATA", str(home))
    below = "below the folder that BENCH_DATA names"
    assert look() == (str(home / "digits"), below)
    assert look("dataset.root=my photos/ñ") == (str(home / "my photos/ñ"), below)
    (here / "digits").mkdir()
    assert look() == (str(here / "digits"), "found below the current folder")
    assert look("dataset.root=/data/x") == ("/data/x", "given as an absolute path")


def test_weights_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    missing = draft(recipe("model.weights=w.st"), _CPU)
    with pytest.raises(RecipeError, match=r"model.weights: no file 'w.st' .*BENCH_DATA, not set"):
        require_files(missing)
    home = tmp_path / "home"
    monkeypatch.setenv("BENCH_DATA", str(home))
    with pytest.raises(RecipeError, match=rf"nor in {home}") as error:
        require_files(draft(recipe("model.weights=w.st"), _CPU))
    assert error.value.hint == "--set model.weights=/full/path"
    home.mkdir()
    (home / "w.st").touch()
    assert draft(recipe("model.weights=w.st"), _CPU).weights == str(home / "w.st")
    (tmp_path / "w.st").touch()
    assert draft(recipe("model.weights=w.st"), _CPU).weights == str(tmp_path / "w.st")


# normalisation


@pytest.mark.parametrize(
    ("changes", "model_statistics", "expected", "reason"),
    [
        ((), None, ((0.1,) * 3, (0.2,) * 3), "of the training images"),
        (("data.normalize=none",), None, ((0.0,) * 3, (1.0,) * 3), "no normalisation"),
        (
            ("data.normalize=given", "data.mean=[0.1, 0.2, 0.3]", "data.std=[1, 2, 3]"),
            None,
            ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)),
            "given by the recipe",
        ),
        (("data.normalize=weights",), ((0.4,) * 3, (0.5,) * 3), ((0.4,) * 3, (0.5,) * 3), "what the weights expect"),
        ((), ((0.4,) * 3, (0.5,) * 3), ((0.1,) * 3, (0.2,) * 3), "of the training images"),
        (
            ("model.weights=w.st",),
            None,
            ((0.1,) * 3, (0.2,) * 3),
            "of the training images; the model does not say what its weights expect",
        ),
        (("model.weights=w.st",), ((0.4,) * 3, (0.5,) * 3), ((0.4,) * 3, (0.5,) * 3), "what the weights expect"),
    ],
)
def test_mean_and_std(
    changes: tuple[str, ...],
    model_statistics: Any,
    expected: Any,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.st").touch()
    plan = completed(*changes, model_statistics=model_statistics)
    assert (plan.mean, plan.std) == expected
    assert plan.reasons["mean"] == plan.reasons["std"] == reason


def test_colour_weights_for_grey_images_are_averaged() -> None:
    plan = completed("data.normalize=weights", channels=1, model_statistics=((0.1, 0.2, 0.6), (0.2, 0.2, 0.2)))
    assert (plan.mean, plan.std) == (pytest.approx((0.3,)), pytest.approx((0.2,)))


def test_normalisation_that_cannot_be() -> None:
    with pytest.raises(RecipeError, match=r"data.mean: 1 values for images of 3 channels"):
        completed("data.normalize=given", "data.mean=[0.5]", "data.std=[0.5]")
    with pytest.raises(RecipeError, match="the model 'linear' does not say what its weights expect") as error:
        completed("data.normalize=weights")
    assert error.value.hint == 'give mean and std, or normalize = "data"'


def test_statistics_are_computed_only_where_they_are_needed() -> None:
    completed("data.normalize=none", statistics=lambda: pytest.fail("the images were read"))


# the rest


@pytest.mark.parametrize(
    ("choice", "frozen", "cached", "reason"),
    [
        ("auto", False, False, "the backbone is trained"),
        ("auto", True, True, "the backbone is frozen"),
        ("on", True, True, "the backbone is frozen"),
        ("off", True, False, "switched off by the recipe"),
    ],
)
def test_cached_features(choice: str, frozen: bool, cached: bool, reason: str) -> None:
    plan = completed(f"train.cache_features={choice}", frozen_backbone=frozen)
    assert (plan.cache_features, plan.reasons["cache_features"]) == (cached, reason)


def test_cached_features_need_a_frozen_backbone() -> None:
    with pytest.raises(RecipeError, match=r'train.cache_features = "on" needs a wholly frozen backbone') as error:
        completed("train.cache_features=on")
    assert "model.freeze" in (error.value.hint or "")


def test_data_gives_classes_and_steps() -> None:
    plan = completed("train.epochs=7")
    expected: Mapping[str, str] = {
        "classes": "2 classes; 1,500 train, 100 test images",
        "channels": "of the dataset",
        "steps_per_epoch": "training images / batch size; 168 in all",
    }
    assert (plan.classes, plan.channels, plan.steps_per_epoch) == (("cat", "dog"), 3, 24)
    assert {name: plan.reasons[name] for name in expected} == expected
