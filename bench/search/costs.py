"""What a trial's model costs: parameters and MACs, size and latency of its exported file. Known before it is trained.

Each is measured once for an architecture and kept below BENCH_CACHE: learning rates change none of it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import environment
from bench.errors import BenchError, PluginError
from bench.registry import find
from bench.search.objectives import COSTS
from bench.search.structure import structure

if TYPE_CHECKING:
    import torch

    from bench.kinds import DataSpec
    from bench.plan import Plan
    from bench.recipe import Recipe

__all__ = ["costs", "examined"]

#: Raise it when what is measured changes, so that no stale figure is used.
_VERSION = 2

#: The exporter that weighs and times a model.
_EXPORTER = "onnx_costs"

#: What the file, or its speed, depends on beside the model.
_VERSIONS = ("visionbench", "torch", "onnx", "onnxruntime", "onnxruntime-gpu")

_COUNTS = ("parameters", "macs")

#: Models that this process has built before: to build a large one takes a second.
_shapes: dict[str, Any] = {}


def costs(recipe: Recipe, plan: Plan, spec: DataSpec, *, wanted: Collection[str]) -> dict[str, float]:
    """The costs in `wanted` (COSTS of bench.search.objectives) of the recipe's model, untrained.

    latency_ms and size_mb (10^6 bytes) are those of the exported file under the recipe's search.latency; see `examined`.
    """
    found = examined(recipe, plan, spec, wanted=wanted)
    return {name: float(found[name]) for name in COSTS if name in wanted}


def examined(recipe: Recipe, plan: Plan, spec: DataSpec, *, wanted: Collection[str]) -> dict[str, Any]:
    """The same with `timing` beside latency_ms: the blocks, their spread, and whether they agree.

    A measurement waits until no other worker of this machine measures. Raises PluginError where the model cannot be
    built for such images, and BenchError where it cannot be exported.
    """
    found: dict[str, Any] = {}
    architecture = _architecture(recipe, spec) if wanted else {}
    if any(name in wanted for name in _COUNTS):
        found |= _kept({"what": "counts", **architecture}, lambda: _counts(recipe, spec))
    if "latency_ms" in wanted:
        settings = recipe.search.latency.model_dump()
        key = {"what": "latency", **architecture, **_file(recipe), **settings, "cpu": environment.processor()[0]}
        found |= _kept(key, lambda: _exported(recipe, plan, spec, settings))
    elif "size_mb" in wanted:
        settings = {"precision": recipe.search.latency.precision}
        key = {"what": "size", **architecture, **_file(recipe), **settings}
        found |= _kept(key, lambda: _exported(recipe, plan, spec, {**settings, "timed": False}))
    return found


def _counts(recipe: Recipe, spec: DataSpec) -> dict[str, Any]:
    from bench.describe import model_table

    with _own_randomness():
        totals = model_table(recipe, spec).totals()
    return {name: totals[name] for name in _COUNTS}


def _exported(recipe: Recipe, plan: Plan, spec: DataSpec, settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        exporter = find("exporters", _EXPORTER)
    except PluginError as cause:
        raise PluginError(
            f"latency_ms and size_mb need the exporter {_EXPORTER!r}: {cause}", hint=cause.hint
        ) from cause
    how: dict[str, Any] = {"resize": recipe.data.resize, "filter": recipe.data.filter}
    if plan.mean and plan.std:
        how |= {"mean": plan.mean, "std": plan.std}
    with _own_randomness():
        model = _untrained(recipe, spec)
        result: dict[str, Any] = exporter.load()(
            model,
            spec,
            loss=recipe.train.loss,
            preprocessing=how,
            alone=_alone("measuring", platform.node()),
            **settings,
        )
    return result


def _untrained(recipe: Recipe, spec: DataSpec) -> torch.nn.Module:
    from bench.stages.model import build

    chosen = recipe.model
    if "pretrained" in chosen.options:  # the weights change no cost, and fetching them may need the network
        chosen = replace(chosen, options={**chosen.options, "pretrained": False})
    return build(chosen, spec)


@contextmanager
def _own_randomness() -> Iterator[None]:
    """The same random weights for every measurement, and the trial's own random numbers as they were."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def _architecture(recipe: Recipe, spec: DataSpec) -> dict[str, Any]:
    """What a model's shape depends on."""
    plugin = find("models", recipe.model.name)
    return {
        "schema": _VERSION,
        "model": recipe.model.name,
        "options": _shape(recipe, spec),
        "plugin": [plugin.target, plugin.distribution, plugin.version, _source(recipe.model.name, plugin.target)],
        "freeze": recipe.freeze,
        "task": spec.task,
        "classes": spec.classes,
        "channels": spec.channels,
        "image_size": spec.image_size,
    }


def _shape(recipe: Recipe, spec: DataSpec) -> Any:
    """The structure of the built model; its options where that cannot be told."""
    options = {name: value for name, value in recipe.model.options.items() if name != "pretrained"}
    key = json.dumps([recipe.model.name, options, asdict(spec)], sort_keys=True, default=str)
    if key not in _shapes:
        with _own_randomness():
            built = structure(_untrained(recipe, spec))
        _shapes[key] = options if built is None else built
    return _shapes[key]


def _file(recipe: Recipe) -> dict[str, Any]:
    """What an exported file depends on beside the architecture."""
    known = _versions()
    return {
        "loss": recipe.train.loss,
        "resize": recipe.data.resize,
        "filter": recipe.data.filter,
        "versions": {name: known[name] for name in _VERSIONS if name in known},
    }


@cache
def _versions() -> dict[str, str]:
    return environment.versions()


@cache
def _source(name: str, target: str) -> str:
    """The sha256 of a model plugin's source and of what stands beside it in its package; its version says too little."""
    del target  # what `name` stands for, in the cache
    try:
        path = Path(inspect.getsourcefile(inspect.unwrap(find("models", name).load())) or "")
    except TypeError:  # not written in Python
        return ""
    in_package = (path.parent / "__init__.py").is_file()
    files = sorted(path.parent.glob("*.py")) if in_package else [path]
    content = hashlib.sha256()
    for file in files:
        if file.is_file():
            content.update(file.read_bytes())
    return content.hexdigest()


def _kept(key: Mapping[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured under this key before, or now: workers that want the same wait for the first of them."""
    from bench.files import write_json

    name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:32]
    path = _folder() / f"{name}.json"
    if (known := _read(path)) is not None:
        return known
    with _alone(name):
        if (known := _read(path)) is not None:
            return known
        found = measure()
        try:
            write_json(path, {"key": json.loads(json.dumps(key, default=str)), "costs": found})
        except OSError as cause:
            raise _unwritable(cause) from cause
        return found


def _read(path: Path) -> dict[str, Any] | None:
    """None where there is nothing, or nothing whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["costs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None


@contextmanager
def _alone(*names: str) -> Iterator[None]:
    """While no other process holds these names; the system lets go of them where a process dies."""
    from filelock import FileLock

    lock = FileLock(_folder() / f"{'-'.join(names)}.lock")
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as cause:
        raise _unwritable(cause) from cause
    try:
        yield
    finally:
        lock.release()


def _folder() -> Path:
    from bench.stages.cache import cache_folder

    return cache_folder() / "costs"


def _unwritable(cause: OSError) -> BenchError:
    return BenchError(
        f"{_folder()}: measured costs cannot be kept there: {cause.strerror}", hint="BENCH_CACHE=another/folder"
    )
