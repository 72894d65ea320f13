"""What the trials of one worker share: images, decoded and divided once, plans by architecture, the machine's facts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from bench import environment
from bench.errors import RecipeError
from bench.plan import Plan, Statistics, draft, require_files
from bench.progress import Progress
from bench.run import surroundings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from optuna import Study

    from bench.recipe import Recipe
    from bench.record import Run
    from bench.stages.data import Data
    from bench.stages.image_set import ImageSet

__all__ = ["Shared"]

#: Sets of images that stay open; a space that changes the images' size has several.
_DATASETS = 2

#: What a plan decides for a machine, and what costs are measured under before it is decided.
_PLAIN = {"precision": "fp32", "memory_format": "contiguous", "threads": 1}


class Watching(Protocol):
    """A mirror of runs, such as `bench.search.mirroring.MirrorProcess`."""

    def watch(self, run: Run) -> None:
        """Mirror a run as it is now; returns at once."""


@dataclass(slots=True)
class Shared:
    """Made once for a worker's process. `threads` and `device` are dealt to it and override the recipe's.

    `should_stop` is the worker's own wish to stop; without it a trial listens to signals while it trains. Raises
    RecipeError where the recipe holds no validation images out, or where its pruner has nothing to go by.
    """

    recipe: Recipe
    progress: Progress = field(kw_only=True, default_factory=Progress)
    mirror: Watching | None = field(kw_only=True, default=None)
    threads: int | None = field(kw_only=True, default=None)
    device: str | None = field(kw_only=True, default=None)
    should_stop: Callable[[], bool] | None = field(kw_only=True, default=None)
    machine: environment.Machine = field(init=False, default_factory=environment.detect)
    surroundings: Mapping[str, Any] = field(init=False)
    _data: dict[str, Data] = field(init=False, default_factory=dict)
    _outlines: dict[str, Plan] = field(init=False, default_factory=dict)
    _plans: dict[str, Plan] = field(init=False, default_factory=dict)
    _choices: dict[str, dict[str, tuple[Any, str]]] = field(init=False, default_factory=dict)
    _statistics: tuple[ImageSet, Statistics] | None = field(init=False, default=None)
    _study: tuple[Study, Mapping[str, Any]] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.surroundings = surroundings(self.recipe, self.machine)
        folds = self.data(self.recipe).num_folds or 1
        if self.recipe.search.pruner == "wilcoxon" and folds * len(self.recipe.seeds) == 1:
            raise RecipeError(
                f'{self.recipe.path}: search.pruner = "wilcoxon" compares trials over seeds or folds; there is one of each',
                hint='seeds = [0, 1, 2, 3, 4] at the top of the recipe, or search.pruner = "median"',
            )

    def data(self, recipe: Recipe) -> Data:
        """The recipe's images without a test split, so that no trial can read it.

        It is decoded with the others, since a dataset's fingerprint covers it, and then dropped.
        """
        key = _key(recipe.dataset, recipe.root, recipe.data)
        if key not in self._data:
            while len(self._data) >= _DATASETS:
                self._data.pop(next(iter(self._data)))
            self._data[key] = self._load(recipe)
        return self._data[key]

    def outline(self, recipe: Recipe, data: Data) -> Plan:
        """The plan with everything but what a calibration decides: enough to measure what a model costs."""
        key = _architecture(recipe)
        if key not in self._outlines:
            self._outlines[key] = self._settled(recipe, data, {name: (value, "") for name, value in _PLAIN.items()})
        return _of(self._outlines[key], recipe)

    def plan(self, recipe: Recipe, data: Data, *, fold: int | None = None) -> Plan:
        """The settled plan. One architecture is calibrated once for a batch size, whatever it is trained with."""
        key = f"{fold} {_architecture(recipe)}"
        if key not in self._plans:
            near = _architecture(recipe, roughly=True)
            plan = self._plans[key] = self._settled(recipe, data, self._choices.get(near, {}))
            self._choices[near] = {name: (getattr(plan, name), plan.reasons.get(name, "")) for name in _PLAIN}
        return _of(self._plans[key], recipe)

    def study_facts(self, study: Study) -> Mapping[str, Any]:
        """The study's user attributes, read once; what is of use here never changes."""
        if self._study is None or self._study[0] is not study:
            self._study = study, study.user_attrs
        return self._study[1]

    def draft(self, recipe: Recipe) -> Plan:
        """The plan as far as recipe and machine decide it, with what was dealt to this worker."""
        plan = draft(recipe, self.machine)
        if self.device is not None and self.device != plan.device:
            computing = recipe.compute.model_copy(update={"device": self.device})
            plan = draft(replace(recipe, compute=computing), self.machine).decided(device=(self.device, "dealt out"))
        if self.threads is not None:
            plan = plan.decided(threads=(self.threads, "the cores, divided among the workers"))
        require_files(plan)
        return plan

    def _settled(self, recipe: Recipe, data: Data, choices: Mapping[str, tuple[Any, str]]) -> Plan:
        from bench.stages.setup import settle

        plan = self.draft(recipe)
        is_open = {"precision": plan.precision == "auto", "memory_format": plan.memory_format == "auto"}
        is_open["threads"] = plan.threads is None
        plan = plan.decided(**{name: choice for name, choice in choices.items() if is_open[name]})
        return settle(recipe, plan, data, _Quiet(self.progress), statistics=lambda: self._statistics_of(data))

    def _statistics_of(self, data: Data) -> Statistics:
        from bench.stages.image_set import channel_statistics

        train = data.splits["train"]
        if self._statistics is None or self._statistics[0] is not train:
            self._statistics = train, channel_statistics(train)
        return self._statistics[1]

    def _load(self, recipe: Recipe) -> Data:
        from bench.stages.setup import load_data

        mapped = replace(recipe, data=recipe.data.model_copy(update={"memory_gb": 0.0}))
        data = load_data(mapped, self.draft(recipe), _Quiet(self.progress))
        self.progress.note(data.describe())
        if "validation" not in data.splits:
            raise RecipeError(
                f"{recipe.path}: no validation images are held out, and a search has nothing else to choose by",
                hint="--set data.validation=0.1",
            )
        return _without_test(data, recipe.data.memory_gb)


class _Quiet(Progress):
    """Passes on what takes long and what is wrong, not what is decided: there are many trials."""

    def __init__(self, progress: Progress) -> None:
        self.warn, self.advance = progress.warn, progress.advance  # type: ignore[method-assign]


def _without_test(data: Data, budget_gb: float | str) -> Data:
    """The data without its test split. Images are mapped from their file, so that workers share the memory."""
    import numpy as np
    import psutil

    known: dict[int, NDArray[np.uint8]] = {}
    arrays = {id(images.images): images.images for images in data.splits.values()}
    needed = sum(array.nbytes for array in arrays.values())
    resident = needed <= (psutil.virtual_memory().available / 2 if isinstance(budget_gb, str) else budget_gb * 1e9)

    def mapped(images: ImageSet) -> ImageSet:
        array = images.images
        if isinstance(array, np.memmap) and id(array) not in known:
            # Torch wants to be able to write; a page that is written would be copied, and none is.
            known[id(array)] = np.memmap(str(array.filename), np.uint8, "c", array.offset, array.shape)
        return replace(images, images=known.get(id(array), array))

    def kept(splits: Mapping[str, ImageSet]) -> dict[str, ImageSet]:
        left = {name: images for name, images in splits.items() if name != "test"}
        return {name: mapped(images) for name, images in left.items()} if resident else left

    divided = data.divided
    of_fold = None if divided is None else lambda fold: kept(divided(fold))
    return replace(data, splits=kept(data.splits), resident=resident, divided=of_fold)


def _key(*parts: Any) -> str:
    return json.dumps(
        [
            part if isinstance(part, str) else asdict(part) if hasattr(part, "options") else part.model_dump()
            for part in parts
        ],
        default=str,
    )


def _architecture(recipe: Recipe, *, roughly: bool = False) -> str:
    """What a plan depends on. Roughly, numbers such as a dropout rate are left out: they do not change what is fast."""
    model = dict(recipe.model.options)
    if roughly:
        model = {name: value for name, value in model.items() if not isinstance(value, float)}
    train = recipe.train.model_dump(include={"batch_size", "loss", "cache_features", "views", "class_weights"})
    tables = {name: getattr(recipe, name).model_dump() for name in ("data", "compute", "init")}
    of_data = [recipe.dataset.name, dict(recipe.dataset.options), recipe.root]
    of_model = [recipe.model.name, model, recipe.weights, recipe.freeze, bool(recipe.augment), recipe.train.epochs > 0]
    return json.dumps([of_data, of_model, train, tables], default=str, sort_keys=True)


def _of(plan: Plan, recipe: Recipe) -> Plan:
    """A plan of the same architecture for another number of epochs."""
    if plan.epochs == recipe.train.epochs:
        return plan
    steps = plan.steps_per_epoch or 0
    reason = f"training samples / batch size; {steps * recipe.train.epochs:,} in all"
    return plan.decided(epochs=(recipe.train.epochs, "given by the recipe"), steps_per_epoch=(steps, reason))
