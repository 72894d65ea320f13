"""What a plugin promises, as small named checks. One generator with three faces.

- `bench plugins --check` runs them on what is installed;
- plugin authors put two lines into a test file: `from bench.testing import conformance_test`, then
  `test_conformance = conformance_test("name-of-your-distribution")`;
- visionbench's own tests run the same on its own plugins.

The checks run with the default options. Where an option has no default, or a dataset needs files, the plugin may carry
an attribute `example`: a function `(folder: Path) -> dict` that may write into the folder and returns options. A check
that cannot be made, or that the plugin declines with Unsupported, counts as skipped, with the reason.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.errors import PluginError, Unsupported
from bench.registry import GROUPS, Plugin, installed
from bench.testing._common import COMMAND_CHECKS, COMMON_CHECKS, OPTION_CHECKS
from bench.testing._subject import CheckFailed, Subject

__all__ = ["Check", "CheckFailed", "Result", "checks", "conformance_test", "run_checks"]

#: Where one of these fails, the checks behind it could only repeat it.
_FOUNDATIONS = ("imports", "signature_is_schema")


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of one plugin. `run` returns where it is kept, raises Unsupported where the plugin declines."""

    name: str
    promise: str
    run: Callable[[], None] = field(repr=False, compare=False)


class _Outcome(NamedTuple):
    status: Literal["passed", "failed", "skipped"]
    detail: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a check. `plugin` is written "models/cnn"; `detail` says why it failed or was skipped."""

    plugin: str
    check: str
    status: Literal["passed", "failed", "skipped"]
    detail: str = ""


def checks(plugin: Plugin, *, options: Mapping[str, Any] | None = None, root: Path | None = None) -> Iterator[Check]:
    """The checks for a plugin of its kind; making them imports nothing.

    `options` stand in for the defaults (and for those of `example`), `root` is a dataset's own folder.
    """
    subject = Subject(plugin, dict(options or {}), root if plugin.kind == "datasets" else None)
    for check in _functions(plugin.kind):
        promise = (check.__doc__ or "").partition("\n")[0]
        yield Check(check.__name__, promise, _bound(check, subject))


def run_checks(plugin: Plugin, *, options: Mapping[str, Any] | None = None, root: Path | None = None) -> list[Result]:
    """Run every check of a plugin. What the plugin raises ends up in a result, never here."""
    results: list[Result] = []
    broken: str | None = None
    for check in checks(plugin, options=options, root=root):
        outcome = _outcome(check) if broken is None else _Outcome("skipped", f"not run, because {broken} failed")
        if outcome.status == "failed" and check.name in _FOUNDATIONS:
            broken = check.name
        results.append(Result(f"{plugin.kind}/{plugin.name}", check.name, *outcome))
    return results


def conformance_test(
    distribution: str,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    roots: Mapping[str, Path] | None = None,
) -> Callable[[Check], None]:
    """A pytest test of every plugin of a distribution, one case a check.

    `options` and `roots` go by plugin: `{"models/mine": {"depth": 18}}`. Raises PluginError where the distribution
    has no plugins or a key names none of them.
    """
    import pytest

    chosen = {f"{plugin.kind}/{plugin.name}": plugin for plugin in _plugins_of(distribution)}
    options, roots = options or {}, roots or {}
    for key in {**options, **roots}:
        if key not in chosen:
            raise PluginError(f"{distribution} has no plugin {key!r}", hint=f"it has {', '.join(chosen)}")
    cases = [
        pytest.param(check, id=f"{key}-{check.name}")
        for key, plugin in chosen.items()
        for check in checks(plugin, options=options.get(key), root=roots.get(key))
    ]

    @pytest.mark.parametrize("check", cases)
    def test_conformance(check: Check) -> None:
        try:
            check.run()
        except Unsupported as reason:
            pytest.skip(str(reason))

    return test_conformance


def _plugins_of(distribution: str) -> list[Plugin]:
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    known = [plugin for kind in GROUPS for claims in installed(kind).values() for plugin in claims]
    found = [plugin for plugin in known if plain(plugin.distribution) == plain(distribution)]
    if not found:
        names = ", ".join(sorted({plugin.distribution for plugin in known}))
        message = f"no installed plugin belongs to a distribution {distribution!r}; there are plugins of: {names}"
        raise PluginError(message, hint="install it first: pip install -e .")
    return found


def _functions(kind: str) -> tuple[Callable[[Any], None], ...]:
    if kind == "commands":
        return (*COMMON_CHECKS, *COMMAND_CHECKS)
    if kind == "models":
        from bench.testing._models import CHECKS
    elif kind == "augmentations":
        from bench.testing._augmentations import CHECKS
    elif kind == "datasets":
        from bench.testing._datasets import CHECKS
    else:
        return COMMON_CHECKS
    return (*COMMON_CHECKS, *OPTION_CHECKS, *CHECKS)


def _bound(check: Callable[[Subject], None], subject: Subject) -> Callable[[], None]:
    return lambda: check(subject)


def _outcome(check: Check) -> _Outcome:
    try:
        check.run()
    except Unsupported as reason:
        return _Outcome("skipped", str(reason))
    except CheckFailed as failure:
        return _Outcome("failed", str(failure))
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is its failure, not ours
        return _Outcome("failed", _described(check, error))
    return _Outcome("passed", "")


def _described(check: Check, error: Exception) -> str:
    """What an author needs of an exception: the promise, the error, its hint, and the last line of code."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    hint = getattr(error, "hint", None)
    advice = f"; {hint}" if hint else ""
    return f"promised: {check.promise} It raised {type(error).__name__}: {error}{advice}{place}"
