"""The registry, on a real MLflow store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bench import record, tracking
from bench.errors import BenchError
from bench.record import Run
from bench_export.card import Card, read_card
from bench_export.choice import Objective
from bench_export.registry import Registration, register

RECIPE = '[dataset]\nname = "digits"\n[model]\nname = "linear"\n'


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BENCH_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return tmp_path


@pytest.fixture
def accept(place: Path, toy_models: ModuleType) -> Callable[..., tuple[Run, Path, Card, Registration | None]]:
    def accept(
        experiment: str, value: float, *, fingerprint: str = "f" * 64, metric: str = "val_accuracy"
    ) -> tuple[Run, Path, Card, Registration | None]:
        run = record.create(experiment, group=record.new_group(), seed=0, recipe_text=RECIPE, plan={"classes": ["a"]})
        run.finish("failed")  # so that the mirror looks for no weights
        path = toy_models.classifier(
            place / f"{run.name}.onnx", experiment=experiment, run=run.name, dataset={"fingerprint": fingerprint}
        )
        card = read_card(path)
        assert card is not None
        return run, path, card, register(run, path, card, Objective(metric, value))

    return accept


def test_the_first_is_the_champion_a_better_one_replaces_it_and_a_tie_does_not(
    accept: Callable[..., tuple[Run, Path, Card, Registration | None]], store: str
) -> None:
    registrations = [accept("pets", value)[3] for value in (0.8, 0.9, 0.9, 0.7)]
    assert [one and one.alias for one in registrations] == ["champion", "champion", "challenger", "challenger"]
    reasons = [one.reason for one in registrations if one]
    assert reasons[0] == "there was no champion yet"
    assert "0.9000 against 0.8000" in reasons[1]
    assert "a tie leaves it" in reasons[2]
    assert "0.7000 against 0.9000" in reasons[3]
    client = tracking.connect(store)
    assert int(client.get_model_version_by_alias("pets", "champion").version) == 2
    assert int(client.get_model_version_by_alias("pets", "challenger").version) == 4
    assert client.get_model_version("pets", "4").tags["visionbench.reason"] == reasons[3]


def test_what_was_judged_on_other_images_or_otherwise_is_no_champion(
    accept: Callable[..., tuple[Run, Path, Card, Registration | None]],
) -> None:
    accept("other", 0.8)
    other_images = accept("other", 0.9, fingerprint="e" * 64)[3]
    other_metric = accept("other", 0.9, metric="val_auroc")[3]
    assert other_images is not None
    assert other_metric is not None
    assert (other_images.alias, other_metric.alias) == ("challenger", "challenger")
    assert "judged on other images" in other_images.reason
    assert "judged by val_accuracy, this one by val_auroc" in other_metric.reason


def test_the_same_file_is_registered_once(
    accept: Callable[..., tuple[Run, Path, Card, Registration | None]], store: str
) -> None:
    run, path, card, first = accept("twice", 0.8)
    again = register(run, path, card, Objective("val_accuracy", 0.8))
    assert first is not None
    assert again is not None
    assert (again.version, again.alias) == (first.version, "champion")
    assert len(tracking.connect(store).search_model_versions("name = 'twice'")) == 1


def test_the_registered_model_has_a_signature_and_an_example_and_answers_through_mlflow(
    accept: Callable[..., tuple[Run, Path, Card, Registration | None]], store: str
) -> None:
    import mlflow

    accept("loads", 0.8)
    mlflow.set_tracking_uri(store)
    loaded = mlflow.pyfunc.load_model("models:/loads@champion")
    assert [one.name for one in loaded.metadata.signature.inputs.inputs] == ["images"]
    assert loaded.metadata.saved_input_example_info is not None
    images = np.zeros((2, 12, 10, 3), np.uint8)
    assert loaded.predict({"images": images})["probabilities"].shape == (2, 3)


def test_tracking_that_is_off_registers_nothing(
    accept: Callable[..., tuple[Run, Path, Card, Registration | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_TRACKING", "off")
    assert accept("off", 0.8)[3] is None


def test_a_server_that_is_down_is_one_clear_error(
    accept: Callable[..., tuple[Run, Path, Card, Registration | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(BenchError, match=r"127\.0\.0\.1:9"):
        accept("down", 0.8)
