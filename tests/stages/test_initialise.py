"""Named distributions, and the layers that they fill."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bench.distributions import Distribution, parse_distribution
from bench.errors import RecipeError
from bench.stages.initialise import initialise
from bench.tables import Init


def net() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 5), nn.BatchNorm2d(64), nn.Conv2d(64, 32, 5, bias=False), nn.Flatten(), nn.Linear(512, 256)
    )


# Parsing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("normal(0, 0.01)", ("normal", (0.0, 0.01))),
        (" uniform( -0.1 ,1e-1 ) ", ("uniform", (-0.1, 0.1))),
        ("constant(0.5)", ("constant", (0.5,))),
        ("zeros", ("zeros", ())),
        ("ones()", ("ones", ())),
        ("xavier_uniform", ("xavier_uniform", ())),
        ("orthogonal", ("orthogonal", ())),
    ],
)
def test_a_distribution_is_a_name_with_numbers(text: str, expected: tuple[str, tuple[float, ...]]) -> None:
    assert parse_distribution(text) == Distribution(*expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("normel(0, 1)", r"there is no distribution 'normel\(0, 1\)'; did you mean \"normal\"\?"),
        (
            "xyz",
            r"no distribution 'xyz'; allowed: normal\(mean, std\), uniform\(low, high\), constant\(value\), zeros, ",
        ),
        ("", "there is no distribution ''"),
        ("normal", r"must be normal\(mean, std\) with finite numbers, but 'normal' was given"),
        ("normal(0)", r"must be normal\(mean, std\)"),
        ("normal(0, 1, 2)", r"must be normal\(mean, std\)"),
        ("normal(a, b)", r"must be normal\(mean, std\)"),
        ("normal(0, inf)", "finite"),
        ("constant(nan)", "finite"),
        ("zeros(1)", r"must be zeros with finite numbers, but 'zeros\(1\)'"),
        ("normal(0, -1)", "std of a normal distribution is at least 0"),
        ("uniform(1, 0)", "low must not be above high"),
        ("normal(0, 1", "there is no distribution"),
    ],
)
def test_what_is_no_distribution_is_told_with_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_distribution(text)


@pytest.mark.parametrize("name", ["xavier_normal", "kaiming_uniform", "orthogonal"])
def test_a_bias_takes_no_distribution_of_weights(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is for weights only; a bias takes normal"):
        parse_distribution(name, weights=False)
    assert parse_distribution("normal(0, 1)", weights=False).name == "normal"


# Filling


def test_every_named_part_is_drawn_from_its_distribution() -> None:
    model = net()
    initialise(
        model,
        Init(
            conv_weight="normal(0, 0.01)",
            conv_bias="normal(0.5, 0.01)",
            linear_weight="normal(0, 0.2)",
            linear_bias="constant(0.25)",
        ),
    )
    for layer, mean, std in ((model[0].weight, 0, 0.01), (model[2].weight, 0, 0.01), (model[4].weight, 0, 0.2)):
        # The mean of n draws lies within 5 standard errors of its own.
        assert layer.mean().item() == pytest.approx(mean, abs=5 * std / layer.numel() ** 0.5)
        assert layer.std().item() == pytest.approx(std, rel=0.05)
    assert model[0].bias.mean().item() == pytest.approx(0.5, abs=0.01)
    assert model[0].bias.std().item() == pytest.approx(0.01, rel=0.5)
    assert model[4].bias.eq(0.25).all()
    assert model[1].weight.eq(1).all()  # a BatchNorm is neither
    assert all(parameter.requires_grad and parameter.grad_fn is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("text", "largest"),
    [
        ("uniform(-0.1, 0.1)", 0.1),
        ("zeros", 0),
        ("ones", 1),
        ("xavier_uniform", (6 / (512 + 256)) ** 0.5),
        ("kaiming_uniform", (6 / 512) ** 0.5),
    ],
)
def test_bounded_distributions_keep_their_bounds(text: str, largest: float) -> None:
    model = net()
    initialise(model, Init(linear_weight=text))
    assert model[4].weight.abs().max().item() == pytest.approx(largest, rel=0.01)


@pytest.mark.parametrize(("text", "variance"), [("xavier_normal", 2 / (512 + 256)), ("kaiming_normal", 2 / 512)])
def test_normal_distributions_have_the_variance_of_their_papers(text: str, variance: float) -> None:
    model = net()
    initialise(model, Init(linear_weight=text))
    assert model[4].weight.var().item() == pytest.approx(variance, rel=0.05)


def test_orthogonal_rows_are_orthonormal() -> None:
    model = net()
    initialise(model, Init(linear_weight="orthogonal", conv_weight="orthogonal"))
    torch.testing.assert_close(model[4].weight @ model[4].weight.T, torch.eye(256), rtol=0, atol=1e-5)
    rows = model[2].weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(32), rtol=0, atol=1e-5)


def test_without_keys_every_layer_keeps_its_own_start() -> None:
    model, state = net(), torch.get_rng_state()
    initialise(model, Init())
    assert state.equal(torch.get_rng_state())
    assert all(tensor.equal(net().state_dict()[name]) for name, tensor in model.state_dict().items())


def test_the_same_seed_draws_the_same() -> None:
    drawn = []
    for seed in (1, 1, 2):
        model = net()
        torch.manual_seed(seed)
        initialise(model, Init(conv_weight="normal(0, 1)"))
        drawn.append(model[0].weight)
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])


@pytest.mark.parametrize(
    ("model", "key", "message"),
    [
        (nn.Linear(2, 2), "conv_weight", "init.conv_weight: the model has no convolution"),
        (nn.Conv2d(1, 1, 1, bias=False), "conv_bias", "init.conv_bias: the model has no convolution with a bias"),
        (nn.Conv2d(1, 1, 1), "linear_bias", "init.linear_bias: the model has no fully connected layer with a bias"),
    ],
)
def test_a_key_that_no_layer_answers_to_is_an_error(model: nn.Module, key: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        initialise(model, Init(**{key: "zeros"}))
    assert error.value.hint == f"remove {key} from [init]"
