"""What is not as it was when a run was recorded: versions, hardware, code, data."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import environment
from bench.errors import PluginError
from bench.files import sha256
from bench.registry import find, installed

if TYPE_CHECKING:
    from bench.environment import Machine
    from bench.plan import Plan
    from bench.record import Run

__all__ = ["Change", "changes", "require_plugins"]

#: Distributions whose versions can change the numbers of a training, the likeliest first; others are for later steps.
_NUMERIC = ("torch", "torchvision", "visionbench", "timm", "numpy", "pillow", "scikit-learn", "torchmetrics")

#: Files of a run's folder -> whether an edit changes what is trained.
_LEFT_BEHIND = {"recipe.toml": True, "plan.json": True, "metrics.jsonl": False, "model.safetensors": False}

_NONE = "none"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs between the record and now; `matters` where it can change the numbers."""

    name: str
    recorded: str
    now: str
    matters: bool


def changes(run: Run, plan: Plan, machine: Machine) -> tuple[Change, ...]:
    """Everything that has changed since a run was recorded, what matters first. `plan` is the one it is rerun with."""
    info = run.info()
    recorded: Mapping[str, Any] = info.get("environment") or {}
    found = [
        *_versions(recorded),
        *_plugins(info),
        *_git(info, Path(str(info.get("recipe", "")))),
        *_machine(recorded.get("machine") or {}, machine, plan),
        *_plan(run, plan),
        *_edited(run),
        _differing("platform", recorded.get("platform"), platform.platform(), matters=False),
        _differing("host", (info.get("process") or {}).get("host"), platform.node(), matters=False),
    ]
    return tuple(sorted((one for one in found if one is not None), key=lambda one: not one.matters))


def require_plugins(run: Run) -> None:
    """Raise PluginError where a plugin that the run was made with is not installed any more."""
    for plugin in run.info().get("plugins") or ():
        if plugin["name"] not in installed(plugin["kind"]):
            raise PluginError(
                f"run {run.name} was made with the {plugin['kind']} plugin {plugin['name']!r} of "
                f"{plugin['distribution']} {plugin['version']}, which is not installed",
                hint=f"pip install {plugin['distribution']}=={plugin['version']}",
            )


def _differing(name: str, recorded: Any, now: Any, *, matters: bool) -> Change | None:
    """None where both are the same, or where the record does not say."""
    if recorded is None or recorded == now:
        return None
    return Change(name, str(recorded) or _NONE, str(now) or _NONE, matters)


def _versions(recorded: Mapping[str, Any]) -> Iterator[Change | None]:
    then, now = recorded.get("versions") or {}, environment.versions()
    names = [*_NUMERIC, *(name for name in {**then, **now} if name not in _NUMERIC)]
    for name in names if then else ():
        if name in then or name in now:
            yield _differing(name, then.get(name, _NONE), now.get(name, _NONE), matters=name in _NUMERIC)
    yield _differing("python", recorded.get("python"), platform.python_version(), matters=True)


def _plugins(info: Mapping[str, Any]) -> Iterator[Change | None]:
    """Plugins whose distribution, version or function is another one; our own share the project's version."""
    for plugin in info.get("plugins") or ():
        now = find(plugin["kind"], plugin["name"])
        name = f"{plugin['kind']}/{plugin['name']}"
        yield _differing(f"{name} from", plugin["target"], now.target, matters=True)
        if (
            "visionbench" not in {plugin["distribution"], now.distribution}
            or plugin["distribution"] != now.distribution
        ):
            then = f"{plugin['distribution']} {plugin['version']}"
            yield _differing(name, then, f"{now.distribution} {now.version}", matters=True)


def _git(info: Mapping[str, Any], recipe: Path) -> Iterator[Change | None]:
    then, now = info.get("git") or {}, environment.git_state(recipe.parent)
    if not then and not now:
        return
    unknown = "not known"
    yield _differing("git commit", then.get("commit", unknown)[:12], now.get("commit", unknown)[:12], matters=True)
    words = {True: "some", False: _NONE, None: unknown}
    before, after = words[then.get("dirty")], words[now.get("dirty")]
    if before == after == "some":
        yield Change("uncommitted changes", "some", "some, maybe others", matters=False)
    elif then and now:
        yield _differing("uncommitted changes", before, after, matters=True)


def _machine(then: Mapping[str, Any], now: Machine, plan: Plan) -> Iterator[Change | None]:
    on_cpu = plan.device == "cpu"
    yield _differing("CPU", then.get("cpu"), now.cpu, matters=on_cpu)
    flags = " ".join(then["cpu_flags"]) if "cpu_flags" in then else None
    yield _differing("CPU instructions", flags, " ".join(now.cpu_flags), matters=on_cpu)
    yield _differing("GPU", then.get("gpu"), now.gpu, matters=not on_cpu)
    yield _differing("cores", then.get("cores"), now.cores, matters=False)


def _plan(run: Run, plan: Plan) -> Iterator[Change | None]:
    """What of the recorded plan cannot hold here, or was not to."""
    from bench.run import recorded_plan

    recorded = recorded_plan(run)
    for name in ("device", "precision"):
        yield _differing(name, getattr(recorded, name), getattr(plan, name), matters=True)
    for name in ("dataset_root", "weights"):
        yield _differing(name.replace("_", " "), getattr(recorded, name), getattr(plan, name), matters=False)


def _edited(run: Run) -> Iterator[Change | None]:
    """Files that are not as the run left them; what says how to train matters, what came of it is compared anyway."""
    try:
        manifest = json.loads((run.folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    for name, matters in _LEFT_BEHIND.items():
        path = run.folder / name
        if name in manifest and path.is_file() and (now := sha256(path)) != manifest[name]:
            yield Change(f"the record's {name}", manifest[name][:12], f"edited: {now[:12]}", matters)
