"""Tuning: who wins a race, and what is written into the file."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from PIL import Image

from bench.errors import BenchError, RecipeError
from bench_export.card import read_card
from bench_export.latency import tune as tuning
from bench_export.latency.race import duel, median_interval, race
from bench_export.latency.samples import Samples
from bench_export.latency.tune import DEFAULT, Options
from bench_export.session import open_session


def _noisy(times: dict[str, float], *, noise: float, seed: int = 0) -> tuple[Callable[[str], float], dict[str, int]]:
    """A block with log-normal noise and a spike now and then; and how often each contender was timed."""
    draw, counts = random.Random(seed), dict.fromkeys(times, 0)

    def block(name: str) -> float:
        counts[name] += 1
        spike = 5.0 if draw.random() < 0.1 else 1.0
        return times[name] * spike * math.exp(draw.gauss(0, noise))

    return block, counts


def test_the_fastest_wins_and_the_slow_are_dropped_early() -> None:
    block, counts = _noisy({"default": 1.0, "fast": 0.8, "slow": 3.0}, noise=0.02)
    outcome = race(["default", "fast", "slow"], block, order=random.Random(1), rounds=14)
    assert outcome.best == "fast"
    assert counts["slow"] < 14
    assert counts["default"] == counts["fast"] == 14
    assert outcome.ratios("default")["fast"] == pytest.approx(1.25, rel=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_the_default_wins_ties(seed: int) -> None:
    block, _ = _noisy({"default": 1.0, "same": 1.0, "slow": 1.2}, noise=0.1, seed=seed)
    assert race(["default", "slow"], block, order=random.Random(seed)).best == "default"
    interval = duel("default", "same", block, rounds=15, order=random.Random(seed))
    assert interval.low < 1.05


def test_a_duel_measures_the_gain_with_an_interval_that_holds_it() -> None:
    block, _ = _noisy({"default": 1.0, "fast": 0.5}, noise=0.05)
    gain = duel("default", "fast", block, rounds=15, order=random.Random(0))
    assert gain.low <= 2.0 <= gain.high
    assert gain.low > 1.5
    assert set(gain.as_json()) == {"ratio", "low", "high"}


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(6, 1, 6), (8, 1, 8), (9, 2, 8), (15, 4, 12), (25, 8, 18)],  # Conover (1999), table A3: binomial, p = 0.5
)
def test_the_median_s_interval_is_that_of_the_tables(count: int, low: int, high: int) -> None:
    found = median_interval([float(number) for number in range(1, count + 1)])
    assert (found.low, found.high) == (low, high)


def test_fewer_than_six_values_bound_nothing() -> None:
    assert median_interval([1.0] * 5).low == -math.inf


def test_coverage_is_at_least_95_percent() -> None:
    draw = random.Random(3)
    covered = 0
    for _ in range(2000):
        found = median_interval([draw.expovariate(1.0) for _ in range(12)])
        covered += found.low <= math.log(2) <= found.high
    assert covered / 2000 >= 0.945


def _samples(count: int, parts: int = 1) -> Samples:
    draw = np.random.default_rng(0)
    encoded = []
    for _ in range(count):
        pictures = []
        for _ in range(parts):
            stream = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(stream, format="PNG")
            pictures.append(stream.getvalue())
        encoded.append(tuple(pictures))
    return Samples(tuple(encoded), "made up", real=False)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a millisecond: what is tested is not who wins."""
    monkeypatch.setattr(tuning, "_BLOCK_S", 0.001)
    monkeypatch.setattr(tuning, "_SETTLE_S", 0.0)


@pytest.mark.usefixtures("short")
def test_what_tune_finds_is_kept_in_the_file_and_used_by_its_sessions(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "model.onnx")
    found = tuning.tune(path, scenario="single", batch=1, samples=_samples(5))
    assert json.loads(json.dumps(found)) == found
    assert {"intra_op_threads", "spinning", "graph_level", "io_binding", "gain", "machine", "cores", "tried"} <= set(
        found
    )
    assert found["tried"][0] == {"options": str(DEFAULT), "times_as_fast": 1.0}
    forced = {**found, "intra_op_threads": 1, "spinning": False, "graph_level": "basic"}
    tuning.write(path, forced)
    onnx.checker.check_model(onnx.load(path))
    session = open_session(path)
    assert session.threads == 1
    assert session.tuning["graph_level"] == "basic"
    assert session.inference.get_session_options().intra_op_num_threads == 1


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("raw", [False, True])
def test_pairs_batches_and_files_without_preprocessing_can_be_tuned(
    raw: bool, toy_models: ModuleType, tmp_path: Path
) -> None:
    path = toy_models.verifier(tmp_path / "pairs.onnx", raw=raw)
    found = tuning.tune(path, scenario="offline", batch=4, samples=_samples(3, parts=2))
    assert found["batch"] == 4
    assert found["gain"]["low"] <= found["gain"]["ratio"] <= found["gain"]["high"]


@pytest.mark.parametrize("other", [{"machine": "another processor"}, {"cores": 4096}, {"device": "cuda"}])
def test_a_tuning_of_another_machine_is_not_used(
    other: dict[str, object], toy_models: ModuleType, tmp_path: Path
) -> None:
    from bench.environment import processor

    path = toy_models.classifier(tmp_path / "model.onnx")
    here = {**Options(intra_op_threads=1).as_tuning(), "machine": processor()[0], "device": "cpu"}
    tuning.write(path, here)
    assert open_session(path).threads == 1
    tuning.write(path, {**here, **other})
    assert open_session(path).threads is None


def test_io_binding_gives_the_same_answers(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3), dtype=np.uint8)
    plain = open_session(path, tuning=DEFAULT.as_tuning()).run(images)
    bound = open_session(path, tuning=replace(DEFAULT, io_binding=True).as_tuning()).run(images)
    assert all(np.array_equal(a, b) for a, b in zip(plain, bound, strict=True))


def test_writing_leaves_the_rest_of_the_card_alone(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "model.onnx")
    before = read_card(path)
    assert before is not None
    tuning.write(path, {"intra_op_threads": 1})
    assert read_card(path) == replace(before, tuning={"intra_op_threads": 1})


def test_a_foreign_file_keeps_no_tuning(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.foreign(tmp_path / "foreign.onnx")
    with pytest.raises(RecipeError, match="cannot be kept"):
        tuning.write(path, {})


def test_a_truncated_file_and_an_empty_library_are_refused(toy_models: ModuleType, tmp_path: Path) -> None:
    path = toy_models.classifier(tmp_path / "model.onnx")
    with pytest.raises(RecipeError, match="no samples"):
        tuning.tune(path, scenario="single", batch=1, samples=Samples((), "nothing"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BenchError, match=r"model\.onnx"):
        tuning.tune(path, scenario="single", batch=1, samples=_samples(2))
