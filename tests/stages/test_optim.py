"""Losses, optimizers and schedules against torch's own."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import lr_scheduler

from bench.errors import PluginError, RecipeError
from bench.recipe import Chosen
from bench.stages.optim import Loss, Schedule, guesses, make_loss, make_optimizer, probabilities
from bench.tables import OPTIMIZERS, SCHEDULERS, Train

_COUNTS = (50, 30, 20)
_EPOCHS, _STEPS = 6, 7


def loss_of(counts: Sequence[int] = _COUNTS, **options: Any) -> Loss:
    return make_loss(Train(**options), counts, torch.device("cpu"))


def chosen(kind: str, **options: Any) -> Chosen:
    table = {**OPTIMIZERS, **SCHEDULERS}[kind](**options)
    return Chosen(kind, table.model_dump())


def outputs_and_labels(classes: int = 3, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(count, classes, generator=generator) * 3
    return outputs, torch.randint(classes, (count,), generator=generator)


def one_hot(labels: torch.Tensor, classes: int = 3) -> torch.Tensor:
    return functional.one_hot(labels, classes).float()


# losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 4.0)])
def test_cross_entropy_is_torchs(smoothing: float, weights: tuple[float, ...] | None) -> None:
    outputs, labels = outputs_and_labels()
    # Ours are scaled to average 1 over the training set, so that they do not change the step's size.
    scale = sum(_COUNTS) / sum(w * n for w, n in zip(weights, _COUNTS, strict=True)) if weights else 1.0
    given = torch.tensor(weights) * scale if weights else None
    expected = functional.cross_entropy(outputs, labels, given, reduction="none", label_smoothing=smoothing)
    loss = loss_of(label_smoothing=smoothing, class_weights=weights or "none")
    assert torch.allclose(loss(outputs, one_hot(labels)), expected, atol=1e-5)


def test_soft_targets_are_mixtures() -> None:
    outputs, labels = outputs_and_labels()
    share = torch.rand(len(labels), 1)
    targets = share * one_hot(labels) + (1 - share) * one_hot(labels.roll(1))
    expected = functional.cross_entropy(outputs, targets, reduction="none")
    assert torch.allclose(loss_of()(outputs, targets), expected, atol=1e-5)
    smoothed = functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=0.2)
    assert torch.allclose(loss_of(label_smoothing=0.2)(outputs, targets), smoothed, atol=1e-5)


def test_nll_takes_models_with_and_without_a_last_softmax() -> None:
    outputs, labels = outputs_and_labels()
    expected = functional.nll_loss(outputs.log_softmax(1), labels, reduction="none")
    for given in (outputs, outputs.log_softmax(1)):
        assert torch.allclose(loss_of(loss="nll")(given, one_hot(labels)), expected, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", (1.0, 3.0)])
def test_bce_of_one_output_is_torchs(smoothing: float, weights: Any) -> None:
    outputs, labels = outputs_and_labels(1)
    labels = (torch.arange(len(labels)) % 3 == 0).long()
    truth = labels.float() * (1 - smoothing) + smoothing / 2
    expected = functional.binary_cross_entropy_with_logits(outputs[:, 0], truth, reduction="none")
    if weights != "none":  # 75 and 25 images: (75 + 3 * 25) / 100 = 1.5
        expected = expected * (1 + 2 * truth) / 1.5
    loss = loss_of((75, 25), loss="bce", label_smoothing=smoothing, class_weights=weights)
    assert torch.allclose(loss(outputs, one_hot(labels, 2)), expected, atol=1e-6)


def test_bce_of_an_output_a_class_sums_over_the_classes() -> None:
    outputs, labels = outputs_and_labels()
    targets = one_hot(labels)
    weights = torch.tensor([1.0, 2.0, 4.0]) * 100 / 190
    each = functional.binary_cross_entropy_with_logits(outputs, targets, weights, reduction="none")
    loss = loss_of(loss="bce", class_weights=(1.0, 2.0, 4.0))
    assert torch.allclose(loss(outputs, targets), each.sum(1), atol=1e-5)


def test_balanced_weights_give_each_class_the_same_share() -> None:
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(_COUNTS))
    each = loss_of(class_weights="balanced")(torch.zeros(100, 3), one_hot(labels))
    shares = [each[labels == label].sum().item() for label in range(3)]
    assert shares == pytest.approx([100 / 3 * math.log(3)] * 3, rel=1e-5)
    assert each.mean().item() == pytest.approx(math.log(3), rel=1e-5)


def test_losses_are_computed_in_float32() -> None:
    outputs, labels = outputs_and_labels()
    assert loss_of()(outputs.bfloat16(), one_hot(labels)).dtype is torch.float32


@pytest.mark.parametrize(("kind", "width"), [("cross_entropy", 1), ("cross_entropy", 4), ("nll", 2), ("bce", 1)])
def test_a_model_with_the_wrong_number_of_outputs(kind: str, width: int) -> None:
    with pytest.raises(PluginError, match=rf"the model gives \(8, {width}\) outputs for targets \(8, 3\)"):
        loss_of(loss=kind)(torch.zeros(8, width), torch.eye(3)[torch.zeros(8, dtype=torch.int64)])


def test_a_wrong_number_of_class_weights() -> None:
    with pytest.raises(RecipeError, match=r"train.class_weights: 2 values for 3 classes"):
        loss_of(class_weights=(1.0, 2.0))


def test_probabilities_go_with_the_loss() -> None:
    outputs, _ = outputs_and_labels()
    assert torch.allclose(probabilities(outputs, "cross_entropy"), outputs.softmax(1))
    assert torch.allclose(probabilities(outputs.log_softmax(1), "nll"), outputs.softmax(1), atol=1e-6)
    single = probabilities(outputs[:, :1], "bce")
    assert torch.allclose(single[:, 1], outputs[:, 0].sigmoid())
    for given in (single, probabilities(outputs, "bce"), probabilities(torch.full((2, 3), -200.0), "cross_entropy")):
        assert torch.allclose(given.sum(1), torch.ones(len(given)))


# distances of pairs


def test_the_contrastive_loss_of_five_pairs_by_hand() -> None:
    distances = torch.tensor([[0.0], [0.5], [0.5], [1.5], [3.0]])
    targets = one_hot(torch.tensor([1, 1, 0, 0, 0]), 2)
    loss = loss_of((3, 2), loss="contrastive", margin=2.0)(distances, targets)
    # A same pair: d^2. A different one: (2 - d)^2 as long as it is nearer than the margin, then nothing.
    assert loss.tolist() == pytest.approx([0.0, 0.25, 2.25, 0.25, 0.0])


def test_the_contrastive_loss_pulls_same_pairs_and_pushes_different_ones_up_to_the_margin() -> None:
    distances = torch.tensor([[0.5], [0.5], [1.0], [1.25], [0.0]], requires_grad=True)
    targets = one_hot(torch.tensor([1, 0, 0, 0, 0]), 2)
    torch.autograd.backward(loss_of((4, 1), loss="contrastive", margin=1.0)(distances, targets).sum())
    assert distances.grad is not None
    assert distances.grad[:, 0].tolist() == pytest.approx([1.0, -1.0, 0.0, 0.0, -2.0])  # 2 d and -2 (1 - d)


@pytest.mark.parametrize(("weights", "expected"), [("balanced", (2.0, 2 / 3)), ((1.0, 3.0), (4 / 6, 2.0))])
def test_class_weights_multiply_the_contrastive_loss(weights: Any, expected: tuple[float, float]) -> None:
    # One different pair and three same ones; balanced weights 1 and 1/3 are scaled by 4 / 2, those given by 4 / 10.
    expected = expected if weights == "balanced" else (0.4, 1.2)
    loss = loss_of((1, 3), loss="contrastive", margin=2.0, class_weights=weights)
    assert loss(torch.ones(2, 1), torch.eye(2)).tolist() == pytest.approx(expected)


def test_a_contrastive_loss_in_half_precision_is_computed_in_float32() -> None:
    loss = loss_of((1, 1), loss="contrastive")(torch.full((2, 1), 0.5).bfloat16(), torch.eye(2))
    assert (loss.dtype, loss.tolist()) == (torch.float32, pytest.approx([0.25, 0.25]))


@pytest.mark.parametrize("width", [2, 3])
def test_a_distance_is_a_single_output(width: int) -> None:
    with pytest.raises(PluginError, match=rf"the model gives \(8, {width}\) outputs for targets \(8, 2\)"):
        loss_of((1, 1), loss="contrastive")(torch.zeros(8, width), torch.zeros(8, 2))


def test_the_score_of_a_distance_falls_with_it() -> None:
    distances = torch.tensor([[0.0], [math.log(2)], [1.0], [5.0]])
    chances = probabilities(distances, "contrastive")
    assert chances[:, 1].tolist() == pytest.approx([1.0, 0.5, math.exp(-1), math.exp(-5)])
    assert torch.allclose(chances.sum(1), torch.ones(4))
    assert probabilities(distances.bfloat16(), "contrastive").dtype is torch.float32


def test_guesses_go_with_the_loss() -> None:
    single = torch.tensor([[-0.1], [0.0], [0.1], [1.1]])
    assert guesses(single, Train(loss="bce")).tolist() == [0, 0, 1, 1]
    assert guesses(single, Train(loss="contrastive", margin=2.0)).tolist() == [1, 1, 1, 0]  # nearer than half of it
    assert guesses(torch.tensor([[0.1, 0.3, 0.2], [1.0, 0.0, 0.0]]), Train()).tolist() == [1, 0]


# optimizers


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_model_with_nothing_to_train_has_an_optimizer_that_moves_nothing(kind: str) -> None:
    model = nn.Linear(2, 2).requires_grad_(requires_grad=False)
    optimizer = make_optimizer(chosen(kind, lr=0.5), model)
    assert not {id(p) for group in optimizer.param_groups for p in group["params"]} & {
        id(p) for p in model.parameters()
    }
    assert Schedule(chosen("cosine"), optimizer, epochs=0, steps_per_epoch=3).lr == 0.5


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 2))


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("everywhere", [True, False])
def test_decay_spares_norms_and_biases(kind: str, everywhere: bool) -> None:
    model = small_model()
    model[0].requires_grad_(requires_grad=False)
    optimizer = make_optimizer(chosen(kind, lr=0.5, weight_decay=0.25, decay_norm_and_bias=everywhere), model)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    expected = {
        id(parameter): 0.25 if everywhere or name.endswith("4.weight") else 0.0
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    assert decays == expected
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}


@pytest.mark.parametrize(
    ("kind", "options", "reference"),
    [
        ("sgd", {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}, torch.optim.SGD),
        ("sgd", {"lr": 0.1, "momentum": 0.0}, torch.optim.SGD),
        ("adam", {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1}, torch.optim.Adam),
        ("adamw", {"lr": 0.01, "weight_decay": 0.1}, torch.optim.AdamW),
        ("rmsprop", {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "eps": 1e-6}, torch.optim.RMSprop),
    ],
)
def test_optimizers_step_as_torchs(kind: str, options: dict[str, Any], reference: Any) -> None:
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    pairs = [(ours, make_optimizer(chosen(kind, **options), ours)), (theirs, reference(theirs.parameters(), **options))]
    inputs = torch.randn(8, 3)
    for model, optimizer in pairs:
        for _ in range(5):
            optimizer.zero_grad()
            torch.autograd.backward(model(inputs).square().mean())
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-7)
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-7)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(RecipeError, match=r"optimizer.nesterov: needs a momentum above 0"):
        make_optimizer(chosen("sgd", momentum=0.0, nesterov=True), small_model())


# schedules


def optimizer_of(kind: str = "sgd", **options: Any) -> torch.optim.Optimizer:
    parameter = nn.Linear(1, 1)
    optimizer = make_optimizer(chosen(kind, **{"lr": 0.4, **options}), parameter)
    for weight in parameter.parameters():
        weight.grad = torch.zeros_like(weight)
    return optimizer


def follow(
    schedule: Schedule, monitored: Sequence[float] = (), *, epochs: int = _EPOCHS, start: int = 0
) -> list[float]:
    """The learning rate of each step."""
    rates = []
    for epoch in range(start, epochs):
        for _ in range(_STEPS):
            rates.append(schedule.lr)
            schedule.optimizer.step()
            schedule.step()
        schedule.epoch(monitored[epoch] if monitored else 0.0, larger_is_better=True)
    return rates


def schedule_of(name: str, optimizer: torch.optim.Optimizer | None = None, **options: Any) -> Schedule:
    optimizer = optimizer or optimizer_of()
    return Schedule(chosen(name, **options), optimizer, epochs=_EPOCHS, steps_per_epoch=_STEPS)


def torchs(scheduler: Any, optimizer: torch.optim.Optimizer, *, by_step: bool) -> list[float]:
    rates = []
    for step in range(_EPOCHS * _STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if by_step or (step + 1) % _STEPS == 0:
            scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("none", {}, lambda o: lr_scheduler.ConstantLR(o, 1.0)),
        ("step", {"step_size": 2, "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, 2, 0.5)),
        ("cosine", {"min_lr": 0.01}, lambda o: lr_scheduler.CosineAnnealingLR(o, _EPOCHS * _STEPS, 0.01)),
        (
            "one_cycle",
            {"warmup": 0.25, "start_factor": 10.0, "end_factor": 100.0},
            lambda o: lr_scheduler.OneCycleLR(
                o, 0.4, _EPOCHS * _STEPS + 1, pct_start=0.25, div_factor=10.0, final_div_factor=100.0
            ),
        ),
    ],
)
def test_schedules_are_torchs(name: str, options: dict[str, Any], reference: Any) -> None:
    optimizer = optimizer_of()
    expected = torchs(reference(optimizer), optimizer, by_step=name in {"cosine", "one_cycle"})
    assert follow(schedule_of(name, **options)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["none", "step", "cosine", "plateau"])
@pytest.mark.parametrize("warmup_epochs", [0.05, 0.5, 1.0, 1.3, 2.0])
def test_warm_up_rises_to_the_full_rate_and_never_above(name: str, warmup_epochs: float) -> None:
    rates = follow(schedule_of(name, warmup_epochs=warmup_epochs), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    warm = warmup_epochs * _STEPS
    rise = [rate for step, rate in enumerate(rates) if step < warm]
    assert rise == pytest.approx([0.4 * min(1.0, (step + 1) / warm) for step in range(len(rise))])
    assert max(rates) == pytest.approx(0.4)
    if name == "none":
        assert rates[len(rise) :] == [0.4] * (len(rates) - len(rise))


def test_cosine_after_warm_up_ends_at_its_least() -> None:
    schedule = schedule_of("cosine", warmup_epochs=1.0, min_lr=0.04)
    rates = follow(schedule)
    shares = [step / ((_EPOCHS - 1) * _STEPS) for step in range((_EPOCHS - 1) * _STEPS)]
    assert rates[_STEPS:] == pytest.approx([0.04 + 0.36 * (1 + math.cos(math.pi * share)) / 2 for share in shares])
    assert schedule.lr == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("warmup", "epochs", "steps"), [(0.1, 1, 9), (0.5, 1, 1), (0.2, 2, 2), (0.3, 1, 1), (0.9, 1, 3)]
)
def test_one_cycle_of_a_few_steps(warmup: float, epochs: int, steps: int) -> None:
    schedule = Schedule(chosen("one_cycle", warmup=warmup), optimizer_of(), epochs=epochs, steps_per_epoch=steps)
    for _ in range(epochs * steps):
        assert 0 < schedule.lr <= 0.4
        schedule.optimizer.step()
        schedule.step()
    assert schedule.lr == pytest.approx(0.4 / 25 / 1e4)


@pytest.mark.parametrize(
    ("kind", "options", "key", "before", "during"),
    [
        ("sgd", {"momentum": 0.9}, "momentum", 0.95, 0.85),
        ("sgd", {"momentum": 0.0}, "momentum", 0.0, 0.0),
        ("rmsprop", {}, "momentum", 0.0, 0.0),
        ("adamw", {}, "betas", 0.95, 0.85),
    ],
)
def test_one_cycle_moves_a_momentum_that_is_there(
    kind: str, options: dict[str, Any], key: str, before: float, during: float
) -> None:
    schedule = schedule_of("one_cycle", optimizer_of(kind, **options))
    seen = []
    for _ in range(_EPOCHS * _STEPS):
        value = schedule.optimizer.param_groups[0][key]
        seen.append(value[0] if key == "betas" else value)
        schedule.optimizer.step()
        schedule.step()
    assert seen[0] == pytest.approx(before)
    assert min(seen) == pytest.approx(during, abs=0.005)


@pytest.mark.parametrize("larger", [True, False])
@pytest.mark.parametrize("level", [0.9, 0.5, 1.0])
def test_plateau_falls_where_the_monitor_stays(level: float, larger: bool) -> None:
    optimizer = optimizer_of()
    schedule = schedule_of("plateau", optimizer, factor=0.5, wait=2, min_lr=0.15)
    rates = []
    for _ in range(9):
        schedule.step()
        schedule.epoch(level, larger_is_better=larger)
        rates.append(schedule.lr)
    assert rates == pytest.approx([0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.15, 0.15, 0.15])


@pytest.mark.parametrize("larger", [True, False])
def test_plateau_stays_while_the_monitor_improves(larger: bool) -> None:
    schedule = schedule_of("plateau", factor=0.5, wait=0)
    for step in range(9):
        schedule.step()
        schedule.epoch(0.1 + (step if larger else 9 - step) / 10, larger_is_better=larger)
        assert schedule.lr == 0.4
    schedule.epoch(0.05 if larger else 2.0, larger_is_better=larger)
    assert schedule.lr == 0.2


def test_a_plateau_with_decay_falls_a_little_every_epoch_and_by_its_factor_besides() -> None:
    schedule = schedule_of("plateau", factor=0.5, wait=1, decay=0.9, min_lr=0.1)
    rates = []
    for value in (0.1, 0.2, 0.2, 0.2, 0.3, 0.4, 0.5):
        schedule.step()
        schedule.epoch(value, larger_is_better=True)
        rates.append(schedule.lr)
    # 0.4 * 0.9^n, and halved in the fourth epoch, the second without a better value; never below 0.1.
    assert rates == pytest.approx([0.36, 0.324, 0.2916, 0.2916 * 0.45, 0.118098, 0.1062882, 0.1])


def test_decay_waits_for_the_warm_up_and_does_not_raise_a_rate_below_the_least() -> None:
    schedule = schedule_of("plateau", warmup_epochs=2.0, decay=0.5, min_lr=0.1)
    rates = follow(schedule, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert rates[::_STEPS] == pytest.approx([0.4 / 14, 0.4 * 8 / 14, 0.2, 0.1, 0.1, 0.1])
    low = schedule_of("plateau", optimizer_of(lr=0.01), decay=0.5, min_lr=0.1)
    low.step()
    low.epoch(0.0, larger_is_better=True)
    assert low.lr == 0.01


def test_plateau_does_not_judge_while_warming_up() -> None:
    schedule = schedule_of("plateau", warmup_epochs=3.0, factor=0.5, wait=0)
    rates = follow(schedule, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert rates[: 3 * _STEPS] == pytest.approx([0.4 * (step + 1) / 21 for step in range(21)])
    assert rates[3 * _STEPS :: _STEPS] == pytest.approx([0.4, 0.2, 0.1])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("none", {"warmup_epochs": 2.5}),
        ("step", {"gamma": 0.5}),
        ("cosine", {"warmup_epochs": 1.5}),
        ("one_cycle", {}),
        ("plateau", {"wait": 0, "factor": 0.5, "warmup_epochs": 1.5}),
        ("plateau", {"wait": 1, "factor": 0.5}),
        ("plateau", {"wait": 1, "factor": 0.5, "decay": 0.9, "warmup_epochs": 1.0, "min_lr": 0.01}),
    ],
)
@pytest.mark.parametrize("stop", range(_EPOCHS))
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_schedule_goes_on_where_it_was_left(name: str, options: dict[str, Any], stop: int, kind: str) -> None:
    monitored = [0.5, 0.6, 0.6, 0.6, 0.7, 0.1]
    expected = follow(schedule_of(name, optimizer_of(kind), **options), monitored)
    first = schedule_of(name, optimizer_of(kind), **options)
    rates = follow(first, monitored, epochs=stop)
    kept = json.loads(json.dumps([first.state_dict(), first.optimizer.state_dict()["param_groups"]]))
    second = schedule_of(name, optimizer_of(kind), **options)
    second.optimizer.load_state_dict({"state": first.optimizer.state_dict()["state"], "param_groups": kept[1]})
    second.load_state_dict(kept[0])
    assert rates + follow(second, monitored, start=stop) == expected
