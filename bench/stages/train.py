"""The training loop: epochs, checkpoints, early stopping; can be stopped and resumed at any epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from bench.errors import BenchError, Interrupted
from bench.stages.calibrate import MEMORY_FORMATS, autocast
from bench.stages.ema import Average
from bench.stages.evaluate import Predictions, predict, score, tracked
from bench.stages.keeping import Keeper
from bench.stages.model import forward_of, train_mode
from bench.stages.optim import Loss, Schedule, guesses, make_optimizer
from bench.stages.state import Counters, Outcome, Parts, capture, restore
from bench.stages.step import Step, Tally
from bench.stages.verification import cross_fitted, score_pairs
from bench.tables import larger_is_better

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.progress import Progress
    from bench.recipe import Recipe
    from bench.stages.batches import Source
    from bench.stages.distributed import Team
    from bench.stages.seeding import Generators

__all__ = ["Trainer"]

T = TypeVar("T")

#: Steps between two looks at the loss on a GPU or with a team; each look waits for the device, or for the others.
_LOOK_EVERY = 20


@dataclass(slots=True)
class Trainer:
    """One training run. `fit` runs it; everything that changes on the way is in its checkpoint.

    `fit_seconds` is what the model took to compute its features' parameters beforehand; `validated` holds the result's
    predictions of the validation split where this process has made them; `keeper` writes the checkpoints. With a
    `team`, other processes train the same run; the first one decides, and writes.
    """

    model: torch.nn.Module
    recipe: Recipe
    plan: Plan
    loss: Loss
    generators: Generators
    source: Source
    validation: Source | None
    folder: Path
    progress: Progress
    on_epoch: Callable[[int, dict[str, float]], None]
    should_stop: Callable[[], bool] = lambda: False
    fit_seconds: float = 0.0
    team: Team | None = None
    keeper: Keeper = field(init=False)
    validated: Predictions | None = field(init=False, default=None)
    _so_far: Counters = field(init=False, default_factory=Counters)
    _optimizer: torch.optim.Optimizer = field(init=False)
    _schedule: Schedule = field(init=False)
    _scaler: torch.amp.GradScaler = field(init=False)
    _average: Average | None = field(init=False, default=None)
    _steps: Step = field(init=False)

    def __post_init__(self) -> None:
        train, self.keeper = self.recipe.train, Keeper(self.folder)
        self.model.to(torch.device(self.plan.device)).to(memory_format=MEMORY_FORMATS[self.plan.memory_format])
        self._optimizer = make_optimizer(self.recipe.optimizer, self.model)
        updates = math.ceil(len(self.source) / train.accumulate)
        self._schedule = Schedule(self.recipe.scheduler, self._optimizer, epochs=train.epochs, steps_per_epoch=updates)
        self._scaler = torch.amp.GradScaler(self.plan.device, enabled=self.plan.precision == "fp16")
        if train.ema:
            self._average = Average(self.model, train.ema)
        shared = None
        forward: Callable[[torch.Tensor], torch.Tensor] = self._forward_of(self.model)
        if self.team is not None:
            from bench.stages.gradients import share

            forward = shared = share(self.team, self.model, self.source, self._forward_of, self.autocast)
        if self.recipe.compute.compile:
            forward = torch.compile(forward)
        self._steps = Step(
            model=self.model,
            forward=forward,
            recipe=self.recipe,
            loss=self.loss,
            steps=len(self.source),
            optimizer=self._optimizer,
            schedule=self._schedule,
            scaler=self._scaler,
            average=self._average,
            autocast=self.autocast,
            shared=shared,
        )

    def fit(self, *, resume: bool = False) -> Outcome:
        """Train to the end, or until stopped; leaves the result's weights in the model.

        Raises Interrupted where `should_stop` said so, BenchError where the loss is no number any more.
        """
        if resume:
            self._load()
        train = self.recipe.train
        self.progress.start_training(
            epochs=train.epochs, steps=len(self.source), done=self._so_far.epoch, title=self.recipe.experiment
        )
        stopped_early = self._exhausted()
        while self._so_far.epoch < train.epochs and not stopped_early:
            values = self._train_epoch()
            predictions = self.predict(self.validation) if self.validation is not None else None
            values |= tracked("val", self._score(predictions)) if predictions else {}
            if self.team is not None:  # what is decided on them must be the same everywhere
                values = self.team.broadcast(values)
            best = self._judge(values)
            if best or not self._keeps_best():
                self.validated = predictions
            self.on_epoch(self._so_far.epoch, values)  # before the checkpoint: a kill between the two repeats the epoch
            self._save(best=best)
            self.progress.epoch(self._so_far.epoch, values, best=best)
            stopped_early = self._exhausted()
        self._take_result()
        rate = self._so_far.images / self._so_far.seconds if self._so_far.seconds else 0.0
        return Outcome(self._so_far.epoch, self._so_far.best_epoch, stopped_early, self._so_far.seconds, rate)

    def predict(self, source: Source) -> Predictions:
        """Predictions of the averaged weights where there are such, otherwise of the model's; pairs are judged."""
        module = (self._average.module if self._average else self.model).eval()
        if self.team is not None:
            self.team.share_buffers(module)
        predictions = predict(
            self._forward_of(module),
            source,
            loss=self.loss,
            loss_name=self.recipe.train.loss,
            autocast=self.autocast(),
            team=self.team,
        )
        return cross_fitted(predictions) if self.plan.task == "verification" else predictions

    def autocast(self) -> torch.autocast:
        """The plan's precision as a context."""
        return autocast(torch.device(self.plan.device), self.plan.precision)

    def _forward_of(self, module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        return forward_of(module, task=self.plan.task, features=bool(self.plan.cache_features))

    def _score(self, predictions: Predictions) -> dict[str, float]:
        return score_pairs(predictions) if self.plan.task == "verification" else score(predictions)

    def _train_epoch(self) -> dict[str, float]:
        """All steps of one epoch; returns its metrics."""
        train_mode(self.model)
        device, epoch = torch.device(self.plan.device), self._so_far.epoch + 1
        look_every = 1 if device.type == "cpu" and self.team is None else _LOOK_EVERY
        tally = Tally(epoch, device, self.team)
        if self.team is None:
            batches = self.source.shuffled(self.generators)
        else:
            self.generators.own(process=self.team.launch.rank, epoch=epoch)
            batches = self.source.shuffled(self.generators, shard=self.team.shard)
        lr, start = self._schedule.lr, time.perf_counter()
        try:
            for step, (inputs, targets) in enumerate(batches, start=1):
                if self.team.any(self.should_stop()) if self.team is not None else self.should_stop():
                    raise Interrupted(f"stopped in epoch {epoch}", hint="go on with: bench run --resume")
                outputs, loss = self._step(step, inputs, targets)
                tally.add(loss, guesses(outputs, self.recipe.train), targets)
                look = step % look_every == 0
                self.progress.step(loss=tally.check(step - look_every) if look else None)
            values = tally.values()
        except BenchError:
            self.progress.end_training()
            raise
        seconds = time.perf_counter() - start
        self._so_far.epoch = epoch
        self._so_far.seconds += seconds
        self._so_far.images += tally.images
        return {**values, "lr": lr, "seconds": seconds, "images_per_second": tally.images / seconds}

    def _step(self, step: int, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._steps.take(step, inputs, targets)

    def _judge(self, values: dict[str, float]) -> bool:
        """Whether this epoch is the best so far by the monitor; also moves a plateau schedule."""
        monitor = self.recipe.train.monitor
        if self.validation is None and monitor.startswith("val_"):
            monitor = "train_loss"
        value, upwards = values[monitor], larger_is_better(monitor)
        self._schedule.epoch(value, larger_is_better=upwards)
        # On a small validation split many epochs share one accuracy; the lower loss then decides.
        rank = (-math.inf if math.isnan(value) else value if upwards else -value, -values.get("val_loss", 0.0))
        if self._so_far.best_epoch and rank <= self._so_far.best:
            return False
        self._so_far.best, self._so_far.best_epoch = rank, self._so_far.epoch
        return True

    def _exhausted(self) -> bool:
        patience = self.recipe.train.patience
        return bool(patience) and self._so_far.epoch - self._so_far.best_epoch >= patience

    def _keeps_best(self) -> bool:
        train = self.recipe.train
        return train.keep == "best" and self.validation is not None and train.epochs > 0

    def _result(self) -> dict[str, torch.Tensor]:
        return (self._average.module if self._average else self.model).state_dict()

    def _save(self, *, best: bool) -> None:
        if self.team is not None and not self.team.leads:
            return
        weights = self._result() if best and self._keeps_best() else None
        self.keeper.save(self._so_far.epoch, best=weights, last=self._state)

    def _state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors, state = capture(self._parts())
        return tensors, {**state, **asdict(self._so_far)}

    def _load(self) -> None:
        """Take everything up where the last checkpoint left it; nothing to do where there is none yet."""
        if (found := self._of_first(self.keeper.last)) is not None:
            restore(self._parts(), *found)
            self._so_far = Counters.of(found[1])

    def _parts(self) -> Parts:
        return Parts(self.model, self._optimizer, self._schedule, self._scaler, self.generators, self._average)

    def _take_result(self) -> None:
        """Put the best or the averaged weights into the model."""
        self.progress.end_training()
        weights = self._of_first(self.keeper.best if self._keeps_best() else self._result)
        self.model.load_state_dict(weights)
        self._average = None

    def _of_first(self, made: Callable[[], T]) -> T:
        """What the process that writes the checkpoints makes of them."""
        if self.team is None:
            return made()
        sent: T = self.team.broadcast(made() if self.team.leads else None)
        return sent
