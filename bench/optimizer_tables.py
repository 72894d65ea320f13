"""The tables of a recipe that choose an optimizer and a learning-rate schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from bench.schema import Table

__all__ = ["OPTIMIZERS", "SCHEDULERS", "Count", "Fraction", "Positive"]

#: Types of many keys.
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class _Optimizer(Table):
    lr: Positive = Field(1e-3, description="learning rate (the largest one, with one_cycle)")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="L2 penalty; decoupled for adamw")
    decay_norm_and_bias: bool = Field(True, description="false: none on biases and normalisation layers")


class Sgd(_Optimizer):
    """Stochastic gradient descent."""

    lr: Positive = Field(0.1, description="learning rate (the largest one, with one_cycle)")
    momentum: Fraction = Field(0.9, description="momentum")
    nesterov: bool = Field(False, description="Nesterov's momentum")


class Adam(_Optimizer):
    """Adam; with adamw the weight decay is decoupled."""

    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="decay of the two moments")
    eps: Positive = Field(1e-8, description="added to the denominator")


class Rmsprop(_Optimizer):
    """RMSprop."""

    alpha: Fraction = Field(0.99, description="decay of the squared gradient")
    momentum: Fraction = Field(0.0, description="momentum")
    eps: Positive = Field(1e-8, description="added to the denominator")


class Constant(Table):
    """The learning rate stays."""

    warmup_epochs: Annotated[float, Field(ge=0)] = Field(0.0, description="linear rise from 0 at the start")


class Step(Constant):
    """Multiplied by gamma every step_size epochs."""

    step_size: Count = Field(1, description="epochs")
    gamma: Positive = Field(0.1, description="factor")


class Cosine(Constant):
    """Half a cosine down to min_lr."""

    min_lr: Annotated[float, Field(ge=0)] = Field(0.0, description="learning rate at the end")


class OneCycle(Table):
    """Up and down again, with the momentum in counterpoint (Smith, arXiv:1708.07120)."""

    warmup: Annotated[float, Field(gt=0, lt=1)] = Field(0.3, description="share of the steps that rise")
    start_factor: Annotated[float, Field(gt=1)] = Field(25.0, description="lr / learning rate at the start")
    end_factor: Annotated[float, Field(gt=1)] = Field(1e4, description="learning rate at the start / at the end")


class Plateau(Constant):
    """Multiplied by factor when the monitor has not improved."""

    factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="factor")
    wait: Annotated[int, Field(ge=0)] = Field(5, description="epochs without improvement before that")
    decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="factor after every epoch besides: 0.99 takes off 1 %"
    )
    min_lr: Annotated[float, Field(ge=0)] = Field(0.0, description="never below")


OPTIMIZERS: Mapping[str, type[Table]] = {"sgd": Sgd, "adam": Adam, "adamw": Adam, "rmsprop": Rmsprop}
SCHEDULERS: Mapping[str, type[Table]] = {
    "none": Constant,
    "step": Step,
    "cosine": Cosine,
    "one_cycle": OneCycle,
    "plateau": Plateau,
}
