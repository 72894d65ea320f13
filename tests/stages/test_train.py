"""The loop: it learns, keeps the right weights, stops where it should, and goes on as if it had never stopped."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.errors import BenchError, Interrupted, RecipeError
from bench.kinds import Augmentation
from bench.plan import Plan
from bench.progress import Progress
from bench.recipe import parse
from bench.stages import checkpoint
from bench.stages.batches import Batches, Preprocessing
from bench.stages.features import cache_features
from bench.stages.image_set import ImageSet
from bench.stages.model import freeze
from bench.stages.optim import make_loss
from bench.stages.seeding import Generators
from bench.stages.train import Trainer
from bench.tables import larger_is_better

_CPU = torch.device("cpu")
_RECIPE = '[dataset]\nname = "digits"\n\n[model]\nname = "linear"\n'
_EPOCHS = 4
_PLAN = Plan(
    experiment="toy",
    seeds=(0,),
    dataset_root="",
    weights="",
    image_size=(4, 4),
    device="cpu",
    precision="fp32",
    memory_format="contiguous",
    threads=1,
    epochs=_EPOCHS,
    batch_size=10,
    normalize="data",
    cache_features=False,
)

#: Everything at once that has a state of its own.
_FULL = ("optimizer.name=sgd", "optimizer.lr=0.05", "scheduler.name=one_cycle", "train.ema=0.9", "train.accumulate=2")
_SCENARIOS = {
    "one_cycle": _FULL,
    "plateau": (
        "optimizer.name=adamw",
        "optimizer.lr=0.01",
        "scheduler.name=plateau",
        "scheduler.wait=0",
        "scheduler.warmup_epochs=1.3",
        "train.monitor=train_accuracy",
    ),
    "cosine": ("optimizer.name=rmsprop", "optimizer.lr=0.01", "scheduler.name=cosine", "train.clip_norm=0.5"),
}


def noise(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return images + 0.2 * torch.rand(len(images), 1, 1, 1, generator=generator), targets


def batches(count: int = 42, *, size: int = 10, augment: Sequence[Augmentation] = (), seed: int = 0) -> Batches:
    """Dark and bright images, with noise."""
    labels = np.arange(count) % 2
    values = np.random.default_rng(seed).integers(0, 160, (count, 4, 4, 1)) + labels[:, None, None, None] * 60
    images = ImageSet(values.astype(np.uint8), np.arange(count), labels, tuple(map(str, range(count))))
    preprocessing = Preprocessing((0.4,), (0.2,), torch.contiguous_format)
    return Batches(images, preprocessing, 2, size, _CPU, held=torch.from_numpy(images.images), augment=augment)


def network(*, outputs: int = 2, fancy: bool = False) -> nn.Module:
    extra = [nn.BatchNorm1d(8), nn.Dropout(0.3)] if fancy else []
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), *extra, nn.ReLU(), nn.Linear(8, outputs))


class Frozen(nn.Module):
    """A backbone whose features can be cached, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.features(images)  # type: ignore[no-any-return]

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features)  # type: ignore[no-any-return]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


def make(folder: Path, *changes: str, source: Batches | None = None, **options: Any) -> Trainer:
    """A trainer as `make_trainer` puts one together, for a tiny network; `options` replace its parts."""
    recipe = parse(_RECIPE, path=Path("toy.toml"), changes=[f"train.epochs={_EPOCHS}", *changes])
    generators = Generators.start(0, _CPU)
    plan = replace(_PLAN, epochs=recipe.train.epochs, **options.pop("plan", {}))
    fancy = options.pop("fancy", False)
    parts: dict[str, Any] = {
        "model": network(fancy=fancy),
        "loss": make_loss(recipe.train, (21, 21), _CPU),
        "source": source or batches(augment=(noise,) if fancy else ()),
        "validation": batches(30, seed=1),
        "folder": folder,
        "progress": Progress(),
        "on_epoch": lambda _number, _values: None,
    }
    return Trainer(recipe=recipe, plan=plan, generators=generators, **{**parts, **options})


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def after(steps: int) -> Callable[[], bool]:
    """Says stop once some steps were taken."""
    count = itertools.count()
    return lambda: next(count) >= steps


# learning


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_loss_falls(tmp_path: Path, precision: str, layout: str) -> None:
    logged: dict[int, dict[str, float]] = {}
    plan = {"precision": precision, "memory_format": layout}
    trainer = make(tmp_path, "train.epochs=12", "optimizer.lr=0.01", on_epoch=logged.__setitem__, plan=plan)
    outcome = trainer.fit()
    assert list(logged) == list(range(1, 13))
    assert logged[12]["train_loss"] < 0.7 * logged[1]["train_loss"]
    assert logged[12]["val_accuracy"] > 0.75
    assert set(logged[1]) >= {"train_accuracy", "lr", "seconds", "images_per_second", "val_loss", "val_ece"}
    assert (outcome.epochs, outcome.stopped_early) == (12, False)
    assert outcome.seconds > 0
    assert outcome.images_per_second == pytest.approx(12 * 42 / outcome.seconds)


def test_a_single_output_learns_with_bce(tmp_path: Path) -> None:
    torch.manual_seed(0)
    logged: dict[int, dict[str, float]] = {}
    options: dict[str, Any] = {"model": network(outputs=1), "on_epoch": logged.__setitem__}
    make(tmp_path, "train.epochs=12", "train.loss=bce", "optimizer.lr=0.01", **options).fit()
    assert min(logged[12]["train_accuracy"], logged[12]["val_accuracy"], logged[12]["val_auroc"]) > 0.75


def test_accumulation_is_a_larger_batch(tmp_path: Path) -> None:
    found = []
    for size, accumulate in ((20, 1), (10, 2), (5, 4)):
        source = batches(40, size=size)
        changes = (f"train.accumulate={accumulate}", "optimizer.name=sgd", "scheduler.name=one_cycle")
        trainer = make(tmp_path / str(size), *changes, source=source)
        trainer.fit()
        found.append(weights_of(trainer))
    for other in found[1:]:
        for name, tensor in found[0].items():
            assert torch.allclose(tensor, other[name], atol=1e-6)


def test_cached_features_train_the_head_as_the_images_do(tmp_path: Path) -> None:
    found = []
    for cached in (False, True):
        torch.manual_seed(0)
        model, source = Frozen(), batches()
        freeze(model, ["features"])
        given: Any = source
        if cached:
            given = cache_features(model, source, views=1, seed=0, key={}, precision="fp32")
        options = {"plan": {"cache_features": cached}, "validation": None, "model": model}
        trainer = make(tmp_path / str(cached), "train.epochs=1", "scheduler.name=none", source=given, **options)
        trainer.fit()
        found.append(weights_of(trainer))
    assert torch.equal(found[0]["features.1.weight"], found[1]["features.1.weight"])
    assert torch.allclose(found[0]["head.weight"], found[1]["head.weight"], atol=1e-6)


@pytest.mark.parametrize("most", [0.01, 1000.0])
def test_the_gradient_is_clipped(tmp_path: Path, most: float) -> None:
    changes = ("train.epochs=1", f"train.clip_norm={most}", "optimizer.name=sgd", "optimizer.lr=1.0")
    trainer = make(tmp_path, *changes, "optimizer.momentum=0.0", "scheduler.name=none", source=batches(size=42))
    before = weights_of(trainer)
    trainer.fit()
    moved = torch.cat([(tensor - before[name]).flatten() for name, tensor in weights_of(trainer).items()]).norm().item()
    if most < 1:
        assert moved == pytest.approx(most, rel=1e-3)
    else:
        assert 0.01 < moved < most


# what is kept


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_best_or_the_last_weights_are_the_result(tmp_path: Path, keep: str, ema: float) -> None:
    seen: list[tuple[dict[str, torch.Tensor], tuple[float, float]]] = []

    def look(_: int, values: dict[str, float]) -> None:
        module = trainer._average.module if trainer._average else trainer.model
        weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        seen.append((weights, (values["val_accuracy"], -values["val_loss"])))

    changes = (f"train.keep={keep}", f"train.ema={ema}", "train.epochs=8", "optimizer.lr=0.3", "scheduler.name=none")
    trainer = make(tmp_path, *changes, on_epoch=look)
    outcome = trainer.fit()
    ranks = [rank for _, rank in seen]
    assert outcome.best_epoch == ranks.index(max(ranks)) + 1
    expected = seen[outcome.best_epoch - 1 if keep == "best" else -1][0]
    assert same(weights_of(trainer), expected)
    tensors, state = checkpoint.load(tmp_path / "last.safetensors")
    assert state["epoch"] == 8
    assert same(checkpoint.unflatten("average" if ema else "model", tensors), seen[-1][0])
    assert (tmp_path / "best.safetensors").exists() == (keep == "best")


def test_without_validation_the_last_weights_are_kept(tmp_path: Path) -> None:
    trainer = make(tmp_path, validation=None)
    trainer.fit()
    tensors, _ = checkpoint.load(tmp_path / "last.safetensors")
    assert same(weights_of(trainer), checkpoint.unflatten("model", tensors))
    assert not (tmp_path / "best.safetensors").exists()


# stopping


@pytest.mark.parametrize(("patience", "epochs"), [(0, _EPOCHS), (1, 2), (2, 3), (9, _EPOCHS)])
def test_it_stops_early_where_nothing_improves(tmp_path: Path, patience: int, epochs: int) -> None:
    changes = (f"train.patience={patience}", "optimizer.name=sgd", "optimizer.lr=1e-12", "scheduler.name=none")
    trainer = make(tmp_path, *changes)
    outcome = trainer.fit()
    assert (outcome.epochs, outcome.best_epoch, outcome.stopped_early) == (epochs, 1, epochs < _EPOCHS)
    again = make(tmp_path, *changes).fit(resume=True)  # nothing is left to do
    assert (again.epochs, again.stopped_early) == (epochs, epochs < _EPOCHS)


def test_a_monitor_that_is_not_tracked(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'val_acuracy' is not tracked; did you mean \"val_accuracy\"\?"):
        make(tmp_path, "train.monitor=val_acuracy").fit()


@pytest.mark.parametrize(("call", "where", "kept"), [(3, "step 3 of epoch 1", 0), (7, "step 2 of epoch 2", 1)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(
    tmp_path: Path, call: int, where: str, kept: int, value: float
) -> None:
    calls = itertools.count(1)
    right = make_loss(parse(_RECIPE, path=Path("toy.toml")).train, (21, 21), _CPU)

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return right(outputs, targets) * (value if next(calls) == call else 1.0)

    trainer = make(tmp_path, loss=loss, validation=None)
    with pytest.raises(BenchError, match=rf"the loss is {value} at {where}; .*checkpoint") as error:
        trainer.fit()
    assert "lower optimizer.lr" in (error.value.hint or "")
    assert (tmp_path / "last.safetensors").exists() == bool(kept)
    if kept:
        tensors, state = checkpoint.load(tmp_path / "last.safetensors")
        assert state["epoch"] == kept
        assert all(torch.isfinite(tensor.float()).all() for tensor in tensors.values())


@pytest.mark.parametrize("steps", [0, 2, 5, 14])
def test_a_wish_to_stop_interrupts_and_leaves_a_valid_checkpoint(tmp_path: Path, steps: int) -> None:
    with pytest.raises(Interrupted, match=f"stopped in epoch {steps // 5 + 1}") as error:
        make(tmp_path, should_stop=after(steps)).fit()
    assert error.value.exit_code == 130
    if steps < 5:
        assert list(tmp_path.iterdir()) == []
    else:
        assert checkpoint.load(tmp_path / "last.safetensors")[1]["epoch"] == steps // 5


# resuming


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """Scenario -> all tensors of the last checkpoint of a run that was never stopped."""
    found = {}
    for name, changes in _SCENARIOS.items():
        folder = tmp_path_factory.mktemp(name)
        trainer = make(folder, *changes, fancy=True)
        trainer.fit()
        found[name] = {**checkpoint.load(folder / "last.safetensors")[0], **weights_of(trainer)}
    return found


def stop_and_resume(
    folder: Path, changes: Sequence[str], *steps: int, between: Callable[[], None] = lambda: None
) -> dict[str, torch.Tensor]:
    for number in steps:
        with pytest.raises(Interrupted):
            make(folder, *changes, fancy=True, should_stop=after(number)).fit(resume=True)
    between()
    torch.manual_seed(12345)
    trainer = make(folder, *changes, fancy=True)
    trainer.fit(resume=True)
    return {**checkpoint.load(folder / "last.safetensors")[0], **weights_of(trainer)}


@pytest.mark.parametrize("scenario", _SCENARIOS)
@pytest.mark.parametrize("steps", [(3,), (5,), (12,), (15,), (19,), (7, 6, 2)])
def test_a_resumed_run_ends_bit_for_bit_like_one_that_never_stopped(
    tmp_path: Path, scenario: str, steps: tuple[int, ...], uninterrupted: dict[str, dict[str, torch.Tensor]]
) -> None:
    expected = uninterrupted[scenario]
    found = stop_and_resume(tmp_path, _SCENARIOS[scenario], *steps)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("lost", ["shuffle", "augment", "torch"])
def test_without_any_one_of_the_generators_states_it_would_not(
    tmp_path: Path, lost: str, uninterrupted: dict[str, dict[str, torch.Tensor]]
) -> None:
    def forget() -> None:
        path = tmp_path / "last.safetensors"
        tensors, state = checkpoint.load(path)
        fresh = Generators.start(7, _CPU).state()[lost]
        checkpoint.save(path, {**tensors, f"rng/{lost}": fresh}, state)

    found = stop_and_resume(tmp_path, _FULL, 12, between=forget)
    weight = "model/1.weight"
    assert not torch.equal(found[weight], uninterrupted["one_cycle"][weight])


def test_a_finished_run_is_only_read_again(tmp_path: Path) -> None:
    first = make(tmp_path, *_FULL, fancy=True)
    outcome = first.fit()
    before = (tmp_path / "last.safetensors").read_bytes()
    again = make(tmp_path, *_FULL, fancy=True)
    assert again.fit(resume=True) == outcome
    assert same(weights_of(again), weights_of(first))
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_a_damaged_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    make(tmp_path).fit()
    path = tmp_path / "last.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(BenchError, match="damaged, its sha256"):
        make(tmp_path).fit(resume=True)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("val_accuracy", True), ("val_auroc", True), ("val_loss", False), ("val_log_loss", False), ("val_ece", False)],
)
def test_which_way_metrics_improve(metric: str, expected: bool) -> None:
    assert larger_is_better(metric) is expected
