"""What a trial's model costs is measured once for an architecture, before it is trained."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import registry
from bench.errors import BenchError, PluginError
from bench.kinds import PAIR_CLASSES, DataSpec
from bench.plan import Plan
from bench.recipe import Recipe, parse
from bench.search import costs as module
from bench.search.costs import costs, examined
from bench_export import costs as exporter

DIGITS = DataSpec("classification", tuple("0123456789"), 1, (12, 12))
FACES = DataSpec("verification", PAIR_CLASSES, 3, (32, 32))
ALL = ("latency_ms", "size_mb", "parameters", "macs")
CNN = 'name = "cnn"\nchannels = [4, 8]'
PLAN = Plan(
    experiment="toy",
    seeds=(0,),
    dataset_root="",
    weights="",
    image_size=(12, 12),
    device="cpu",
    precision="fp32",
    memory_format="contiguous",
    threads=1,
    epochs=1,
    batch_size=8,
    normalize="data",
)


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that tests something else beside is never steady."""
    monkeypatch.setattr(exporter, "_ROUNDS", 1)


def recipe(model: str = CNN, rest: str = "", loss: str = "cross_entropy") -> Recipe:
    text = f'[dataset]\nname = "digits"\n[data]\nsize = 12\n[model]\n{model}\n[train]\nloss = "{loss}"\n{rest}\n'
    return parse(text, path=Path("toy.toml"))


def kept() -> list[dict[str, Any]]:
    """What stands in the cache."""
    files = sorted(Path(os.environ["BENCH_CACHE"], "costs").glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def entry_points(target: str) -> Any:
    """Ours, but `onnx_costs` is another one."""
    own = list(registry.entry_points(group="bench.exporters"))
    return lambda *, group: (
        [point for point in own if point.name != "onnx_costs"] + [EntryPoint("onnx_costs", target, group)]
    )


def install_exporter(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> None:
    """An exporter of one function, in place of ours; models stay as they are."""
    (folder / "toy_exporter.py").write_text(body)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "toy_exporter", raising=False)
    real = registry.entry_points
    other = entry_points("toy_exporter:measure")
    monkeypatch.setattr(
        registry, "entry_points", lambda *, group: other(group=group) if "exporters" in group else real(group=group)
    )
    registry.installed.cache_clear()


def test_all_costs_of_a_model_and_only_those_that_are_wanted() -> None:
    found = costs(recipe(), PLAN, DIGITS, wanted=ALL)
    assert set(found) == set(ALL)
    assert found["parameters"] == sum(p.numel() for p in module._untrained(recipe(), DIGITS).parameters())
    assert found["macs"] > 0
    assert 0 < found["latency_ms"] < 50
    assert found["parameters"] * 4 / 1e6 < found["size_mb"] < found["parameters"] * 4 / 1e6 + 0.1
    assert list(costs(recipe(), PLAN, DIGITS, wanted={"size_mb"})) == ["size_mb"]
    assert costs(recipe(), PLAN, DIGITS, wanted=()) == {}


def test_parameters_and_macs_need_no_export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_exporter(monkeypatch, tmp_path, "def measure(*_, **__):\n    raise RuntimeError\n")
    assert set(costs(recipe(), PLAN, DIGITS, wanted=("parameters", "macs"))) == {"parameters", "macs"}


def test_a_measurement_is_kept_with_its_spread() -> None:
    first = examined(recipe(), PLAN, DIGITS, wanted=("latency_ms",))
    start = time.perf_counter()
    second = examined(recipe(), PLAN, DIGITS, wanted=("latency_ms",))
    assert time.perf_counter() - start < 0.1
    assert second == first
    assert {"blocks_ms", "spread", "steady", "core_share", "queries"} <= set(first["timing"])
    (entry,) = kept()
    assert entry["key"]["model"] == "cnn"
    assert entry["key"]["cpu"]
    assert any(name.startswith("onnxruntime") for name in entry["key"]["versions"])


COUNTING = """
calls = []
def measure(model, spec, *, alone, **settings):
    with alone:
        calls.append(settings)
    return {"size_mb": 1.0, "latency_ms": float(len(calls)), "timing": {}}
"""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The settings of each measurement of an exporter that counts them."""
    install_exporter(monkeypatch, tmp_path, COUNTING)
    return registry.find("exporters", "onnx_costs").load().__globals__["calls"]


@pytest.mark.parametrize(
    "rest", ["[optimizer]\nlr = 0.5", "[[augment]]\nname = 'affine'", "[search]\ntrials = 3", "[export]"]
)
def test_what_is_no_architecture_is_not_measured_again(rest: str, calls: list[Any]) -> None:
    costs(recipe(), PLAN, DIGITS, wanted=ALL)
    costs(recipe(rest=rest), PLAN, DIGITS, wanted=ALL)
    assert len(calls) == 1


def test_a_dropout_rate_is_no_architecture(calls: list[Any]) -> None:
    for rate in (0.1, 0.2, 0.35):
        found = costs(recipe(f'name = "cnn"\nchannels = [4, 8]\ndropout = {rate}'), PLAN, DIGITS, wanted=ALL)
        assert found["latency_ms"] == 1.0
    assert len(calls) == 1


@pytest.mark.parametrize(
    "changed",
    [
        recipe('name = "cnn"\nchannels = [4, 9]'),
        recipe('name = "lenet"'),
        recipe(rest="[search.latency]\nthreads = 2"),
        recipe(rest="[search.latency]\npercentile = 90"),
        recipe(rest='[search.latency]\nprecision = "int8"'),
        recipe(rest='[search.latency]\nscenario = "offline"\nbatch = 4'),
    ],
    ids=["width", "model", "threads", "percentile", "precision", "scenario"],
)
def test_another_architecture_or_another_setting_is_measured(changed: Recipe, calls: list[Any]) -> None:
    size = DataSpec("classification", DIGITS.classes, 1, (20, 20))
    assert costs(recipe(), PLAN, size, wanted=("latency_ms",)) == {"latency_ms": 1.0}
    assert costs(changed, PLAN, size, wanted=("latency_ms",)) == {"latency_ms": 2.0}
    assert costs(recipe(), PLAN, size, wanted=("latency_ms",)) == {"latency_ms": 1.0}
    latency = changed.search.latency
    assert {name: calls[1][name] for name in latency.model_dump()} == latency.model_dump()


@pytest.mark.parametrize(
    "spec",
    [
        DataSpec("classification", tuple("012345678"), 1, (12, 12)),
        DataSpec("classification", tuple("0123456789"), 3, (12, 12)),
        DataSpec("classification", tuple("0123456789"), 1, (12, 16)),
    ],
    ids=["classes", "channels", "size"],
)
def test_other_images_are_measured(spec: DataSpec, calls: list[Any]) -> None:
    costs(recipe(), PLAN, DIGITS, wanted=("latency_ms",))
    costs(recipe(), PLAN, spec, wanted=("latency_ms",))
    assert len(calls) == 2


def test_size_alone_is_not_timed_and_hangs_on_the_precision_alone(calls: list[Any]) -> None:
    costs(recipe(), PLAN, DIGITS, wanted=("size_mb",))
    costs(recipe(rest="[search.latency]\nthreads = 2"), PLAN, DIGITS, wanted=("size_mb",))
    assert [settings["timed"] for settings in calls] == [False]
    costs(recipe(rest='[search.latency]\nprecision = "int8"'), PLAN, DIGITS, wanted=("size_mb",))
    assert [settings["precision"] for settings in calls] == ["fp32", "int8"]


def test_an_edited_plugin_is_measured_again(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    costs(recipe(), PLAN, DIGITS, wanted=("latency_ms",))
    monkeypatch.setattr(module, "_source", lambda *_: "another text")
    costs(recipe(), PLAN, DIGITS, wanted=("latency_ms",))
    assert len(calls) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"costs": 3}', '{"key": {}}'])
def test_a_damaged_entry_is_measured_again(text: str, calls: list[Any]) -> None:
    costs(recipe(), PLAN, DIGITS, wanted=("latency_ms",))
    (file,) = Path(os.environ["BENCH_CACHE"], "costs").glob("*.json")
    file.write_text(text)
    assert costs(recipe(), PLAN, DIGITS, wanted=("latency_ms",)) == {"latency_ms": 2.0}
    assert costs(recipe(), PLAN, DIGITS, wanted=("latency_ms",)) == {"latency_ms": 2.0}
    assert len(calls) == 2


def test_models_of_pairs_have_costs() -> None:
    blocks = "[[model.blocks]]\nchannels = 4\nkernel = 3\npool = 2"
    faces = parse(
        f'[dataset]\nname = "lfw_pairs"\n[data]\nsize = 32\n[model]\nname = "siamese"\n{blocks}\n[train]\nloss = "bce"',
        path=Path("faces.toml"),
    )
    found = costs(faces, PLAN, FACES, wanted=ALL)
    assert set(found) == set(ALL)
    assert min(found.values()) > 0


def test_weights_are_not_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    spec = DataSpec("classification", ("a", "b"), 3, (32, 32))
    found = costs(recipe('name = "mobilenet_v2"\npretrained = true'), PLAN, spec, wanted=("parameters",))
    assert found["parameters"] == 2_223_872 + 1280 * 2 + 2


def test_the_random_numbers_of_a_trial_stay_its_own() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    costs(recipe(), PLAN, DIGITS, wanted=("parameters", "size_mb"))
    assert torch.equal(torch.rand(4), expected)


UNEXPORTABLE = """
import torch
from torch import nn
class Branching(nn.Module):
    def forward(self, images):
        found = torch.unique(images.flatten(1).sum(1)).tolist()
        return torch.stack([images.flatten(1)[:, :3] * value for value in found]).sum(0)
def branching(spec):
    return Branching()
"""


def test_a_model_that_cannot_be_exported_fails_with_the_exporters_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "toy_branching.py").write_text(UNEXPORTABLE)
    monkeypatch.syspath_prepend(tmp_path)
    real = registry.entry_points
    own = EntryPoint("branching", "toy_branching:branching", "bench.models")
    monkeypatch.setattr(
        registry, "entry_points", lambda *, group: [*real(group=group), *([own] if group == own.group else [])]
    )
    registry.installed.cache_clear()
    toy = recipe('name = "branching"')
    spec = DataSpec("classification", ("a", "b", "c"), 1, (12, 12))
    with pytest.raises(BenchError, match="the model Branching cannot be exported to ONNX"):
        costs(toy, PLAN, spec, wanted=("latency_ms",))
    assert kept() == []


def test_a_model_that_is_too_large_for_the_images_is_an_error() -> None:
    with pytest.raises(PluginError):
        costs(recipe('name = "lenet"\nfully_convolutional = true'), PLAN, DIGITS, wanted=("macs",))


def test_without_the_exporter_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.entry_points
    monkeypatch.setattr(
        registry, "entry_points", lambda *, group: [point for point in real(group=group) if "costs" not in point.name]
    )
    registry.installed.cache_clear()
    with pytest.raises(PluginError, match="latency_ms and size_mb need the exporter 'onnx_costs'"):
        costs(recipe(), PLAN, DIGITS, wanted=("size_mb",))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(BenchError, match="file/costs: measured costs cannot be kept there") as caught:
        costs(recipe(), PLAN, DIGITS, wanted=("macs",))
    assert caught.value.hint == "BENCH_CACHE=another/folder"


def _hold(name: str, log: Path, barrier: Any) -> None:
    barrier.wait()
    with module._alone("measuring", name):
        with log.open("a") as file:
            file.write("in\n")
        time.sleep(0.1)
        with log.open("a") as file:
            file.write("out\n")


def test_two_measurements_never_overlap(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_hold, args=("here", tmp_path / "log", barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "log").read_text().split() == ["in", "out"] * 3
