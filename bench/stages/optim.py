"""Losses, optimizers and learning-rate schedules, from a recipe's tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from bench.errors import PluginError, RecipeError

if TYPE_CHECKING:
    from bench.recipe import Chosen
    from bench.tables import Train

__all__ = ["Loss", "Schedule", "guesses", "make_loss", "make_optimizer", "probabilities"]

#: Losses of models with one output for two classes.
_SINGLE_OUTPUT = ("bce", "contrastive")

#: Outputs N,K (or N,1) and targets N,num_classes -> the loss of each image, N.
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def make_loss(table: Train, class_counts: Sequence[int], device: torch.device) -> Loss:
    """The recipe's loss on soft targets; class weights multiply each class's share and average 1 over the set.

    contrastive: the square of a same pair's distance, and of what a different pair lacks to the margin (Hadsell, Chopra
    and LeCun, CVPR 2006).
    """
    weights = _class_weights(table, class_counts, device)

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        outputs = outputs.float()
        single = table.loss in _SINGLE_OUTPUT and targets.shape[1] == 2 and outputs.shape[1] == 1  # noqa: PLR2004
        fits = single or (outputs.shape == targets.shape and table.loss != "contrastive")
        if not fits:  # broadcasting would hide it
            raise PluginError(f"the model gives {tuple(outputs.shape)} outputs for targets {tuple(targets.shape)}")
        if table.label_smoothing:
            targets = targets * (1 - table.label_smoothing) + table.label_smoothing / targets.shape[1]
        if table.loss == "bce":
            if outputs.shape[1] == 1:
                each = functional.binary_cross_entropy_with_logits(outputs, targets[:, 1:], reduction="none")
                return (each * (targets * weights).sum(1, keepdim=True)).squeeze(1)
            each = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
            return (each * weights).sum(1)
        if table.loss == "contrastive":
            apart = (table.margin - outputs).clamp_min(0)
            return (targets * weights * torch.cat([apart, outputs], 1).square()).sum(1)
        # log_softmax leaves log-probabilities as they are, so "nll" takes models with and without a last softmax.
        return -(targets * weights * functional.log_softmax(outputs, 1)).sum(1)

    return loss


def probabilities(outputs: torch.Tensor, loss: str) -> torch.Tensor:
    """Outputs N,K -> class probabilities N,num_classes (float32) that go with the loss.

    Of a distance it is exp(-distance) for "same": no probability, but a score in 0..1 with the distances' order.
    """
    outputs = outputs.float()
    if loss == "contrastive":
        same = outputs.neg().exp()
        return torch.cat([1 - same, same], 1)
    if loss == "bce":
        chances = outputs.sigmoid()
        if outputs.shape[1] == 1:
            return torch.cat([1 - chances, chances], 1)
        return chances / chances.sum(1, keepdim=True).clamp_min(1e-12)
    return outputs.softmax(1)


def guesses(outputs: torch.Tensor, table: Train) -> torch.Tensor:
    """Outputs N,K -> the class of each, N; a single output is a logit of class 1, or a distance."""
    if table.loss == "contrastive":
        return (outputs[:, 0] < table.margin / 2).long()
    return outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).long()


def make_optimizer(chosen: Chosen, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer over everything that is trained."""
    options = dict(chosen.options)
    decay, decay_all = options.pop("weight_decay"), options.pop("decay_norm_and_bias")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:  # train.epochs = 0: torch wants one nevertheless
        trained = [torch.nn.Parameter(torch.zeros(1))]
    # Biases and the scales of normalisation layers are the parameters of one dimension.
    plain = [parameter for parameter in trained if parameter.ndim <= 1 and not decay_all]
    exempt = {id(parameter) for parameter in plain}
    decayed = [parameter for parameter in trained if id(parameter) not in exempt]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    if chosen.name != "rmsprop":
        options["fused"] = True  # one kernel instead of a loop over the tensors, also on the CPU
    kinds: dict[str, Any] = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
    }
    if options.get("nesterov") and not options.get("momentum"):
        raise RecipeError("optimizer.nesterov: needs a momentum above 0")
    optimizer: torch.optim.Optimizer = kinds[chosen.name]([group for group in groups if group["params"]], **options)
    return optimizer


class Schedule:
    """The learning rate of each step. `step` after every optimizer step, `epoch` after every epoch."""

    def __init__(self, chosen: Chosen, optimizer: torch.optim.Optimizer, *, epochs: int, steps_per_epoch: int) -> None:
        options = chosen.options
        self.optimizer = optimizer
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self.by_step: torch.optim.lr_scheduler.LRScheduler | None = None
        self.warmup = float(options.get("warmup_epochs", 0)) * steps_per_epoch
        if chosen.name == "one_cycle":
            total = max(epochs, 1) * steps_per_epoch + 1  # one more: the step after the last is taken too
            self.by_step = torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=[group["lr"] for group in optimizer.param_groups],
                total_steps=total,
                pct_start=max(options["warmup"], 1.5 / total),  # torch divides by zero where the rise has one step
                # An optimizer without momentum stays without.
                cycle_momentum=all(group.get("momentum", 1) > 0 for group in optimizer.param_groups),
                div_factor=options["start_factor"],
                final_div_factor=options["end_factor"],
            )
        elif chosen.name == "plateau":
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer,
                factor=options["factor"],
                patience=options["wait"],
                threshold_mode="abs",  # the relative one takes an unchanged negative value for an improvement
                min_lr=options["min_lr"],
            )
            self.decay, self.least = options["decay"], options["min_lr"]
            self.full = [group["lr"] for group in optimizer.param_groups]
            self.steps = 0
            self._warm_up()
        else:
            factor = _factor(chosen, self.warmup, epochs, steps_per_epoch, optimizer.param_groups[0]["lr"])
            self.by_step = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self) -> None:
        """One optimizer step was taken."""
        if self.by_step is not None:
            self.by_step.step()
        else:
            self.steps += 1
            self._warm_up()

    def epoch(self, monitored: float, *, larger_is_better: bool) -> None:
        """One epoch is over; `monitored` is the recipe's monitor."""
        if self.plateau is not None and self.steps >= self.warmup:
            self.plateau.step(-monitored if larger_is_better else monitored)
            for group in self.optimizer.param_groups:
                group["lr"] = max(group["lr"] * self.decay, min(self.least, group["lr"]))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        if self.by_step is not None:
            state = self.by_step.state_dict()
            return {key: state[key] for key in ("last_epoch", "_step_count") if key in state}
        assert self.plateau is not None  # noqa: S101  # one of the two always is
        keys = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
        return {"steps": self.steps, **{key: getattr(self.plateau, key) for key in keys}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the optimizer's own state holds the learning rate."""
        if self.by_step is not None:
            self.by_step.__dict__.update(state)
            return
        self.steps = state["steps"]
        self.plateau.__dict__.update({key: value for key, value in state.items() if key != "steps"})

    def _warm_up(self) -> None:
        """With "plateau" the rate is the optimizer's own, so the rise is written into it."""
        if self.steps < self.warmup:
            for group, full in zip(self.optimizer.param_groups, self.full, strict=True):
                group["lr"] = full * min(1.0, (self.steps + 1) / self.warmup)
        elif self.warmup and self.steps == math.ceil(self.warmup):
            for group, full in zip(self.optimizer.param_groups, self.full, strict=True):
                group["lr"] = full


def _factor(chosen: Chosen, warmup: float, epochs: int, steps_per_epoch: int, lr: float) -> Callable[[int], float]:
    """Step -> the factor on the learning rate, for the schedules that are a function of time."""
    options, total = chosen.options, epochs * steps_per_epoch

    def factor(step: int) -> float:
        if step < warmup:
            return min(1.0, (step + 1) / warmup)  # the rise may end within a step
        if chosen.name == "step":
            return float(options["gamma"] ** (step // steps_per_epoch // options["step_size"]))
        if chosen.name == "cosine":
            done = min(1.0, (step - warmup) / max(1.0, total - warmup))
            least = options["min_lr"] / lr
            return float(least + (1 - least) * (1 + math.cos(math.pi * done)) / 2)
        return 1.0

    return factor


def _class_weights(table: Train, counts: Sequence[int], device: torch.device) -> torch.Tensor:
    number = torch.tensor(counts, dtype=torch.float32, device=device)
    if table.class_weights == "none":
        return torch.ones_like(number)
    if table.class_weights == "balanced":
        weights = 1 / number.clamp_min(1)
    else:
        if len(table.class_weights) != len(counts):
            raise RecipeError(f"train.class_weights: {len(table.class_weights)} values for {len(counts)} classes")
        weights = torch.tensor(table.class_weights, device=device)
    return weights * number.sum() / (weights * number).sum()
