"""Which plugins are installed: entry points, listed without importing any of them.

Only the plugin that a recipe names is imported, so a broken one hurts nobody else.
"""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from bench.errors import PluginError

__all__ = ["GROUPS", "Plugin", "find", "installed", "near_miss"]

#: Kind of plugin -> entry-point group.
GROUPS: Mapping[str, str] = {
    "models": "bench.models",
    "datasets": "bench.datasets",
    "augmentations": "bench.augmentations",
    "exporters": "bench.exporters",
    "commands": "bench.commands",
}


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point of one distribution. Nothing is imported until `load`."""

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    entry_point: EntryPoint = field(repr=False, compare=False)

    def load(self) -> Callable[..., Any]:
        """Import the plugin. Raises PluginError with plugin, distribution, target and cause."""
        try:
            loaded = self.entry_point.load()
        except Exception as cause:
            message = (
                f"{self.kind} plugin {self.name!r} of {self.distribution} {self.version} cannot be imported "
                f"from {self.target}: {type(cause).__name__}: {cause}"
            )
            hint = _version_mix_hint(cause) or (f"repair or uninstall it: pip uninstall {self.distribution}")
            raise PluginError(message, hint=hint) from cause
        if not callable(loaded):
            message = f"{self.kind} plugin {self.name!r} of {self.distribution}: {self.target} is not callable"
            raise PluginError(message, hint="an entry point must name a function")
        return loaded  # type: ignore[no-any-return]  # an entry point can hold anything; its signature is checked later

    def summary(self) -> str:
        """The first line of the plugin's docstring, read from its source without running it; '' where there is none."""
        try:
            source = _source_of(self.entry_point.module)
            tree = ast.parse(source.read_text(encoding="utf-8") if source else "")
        except (AttributeError, OSError, SyntaxError, ValueError):  # AttributeError: the target is not module:name
            return ""
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == self.entry_point.attr:
                return (ast.get_docstring(node) or "").partition("\n")[0]
        return ""


@cache
def installed(kind: str) -> Mapping[str, tuple[Plugin, ...]]:
    """Name -> the plugins that claim it, sorted by name. More than one is a conflict, and an error once it is used."""
    return _by_name(kind, entry_points(group=GROUPS[kind]))


def find(kind: str, name: str) -> Plugin:
    """The one plugin of that name. Raises PluginError for an unknown name (with the near miss) or a shared one."""
    known = installed(kind)
    claims = known.get(name, ())
    if len(claims) == 1:
        return claims[0]
    if not claims:
        names = ", ".join(known) or "none"
        miss = near_miss(name, known)
        message = f"no plugin {name!r} among the {kind}{miss}{' Installed' if miss else '; installed'}: {names}"
        raise PluginError(message, hint="bench plugins lists what is installed")
    claimants = " and ".join(f"{claim.distribution} {claim.version} ({claim.target})" for claim in claims)
    message = f"{kind} plugin {name!r} is claimed by {claimants}"
    raise PluginError(message, hint=f"uninstall one of them: pip uninstall {claims[-1].distribution}")


def near_miss(given: str, allowed: Iterable[str]) -> str:
    """', did you mean "..."?' or '' where nothing is near."""
    near = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def _by_name(kind: str, points: Iterable[EntryPoint]) -> dict[str, tuple[Plugin, ...]]:
    found: dict[str, dict[tuple[str, str], Plugin]] = {}
    for point in points:
        distribution = point.dist.name if point.dist else "unknown"
        version = point.dist.version if point.dist else "?"
        plugin = Plugin(kind, point.name, point.value, distribution, version, point)
        # An editable install beside its wheel shows one plugin twice; that is no conflict.
        found.setdefault(point.name, {})[(distribution, point.value)] = plugin
    return {name: tuple(claims.values()) for name, claims in sorted(found.items())}


def _source_of(module: str) -> Path | None:
    """Where a module's source lies. Looks for the file, so that no package's __init__ is executed."""
    parts = module.split(".")
    for folder in sys.path:
        place = Path(folder, *parts)
        for file in (place / "__init__.py", place.with_name(f"{parts[-1]}.py")):
            if file.is_file():
                return file
    return None


def _version_mix_hint(cause: BaseException) -> str | None:
    """The remedy for a torch and a torchvision built for different versions of each other."""
    if "operator torchvision::nms does not exist" not in str(cause):
        return None
    return "torch and torchvision do not fit each other: pip install --force-reinstall torch torchvision"
