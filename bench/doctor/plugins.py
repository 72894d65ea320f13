"""Plugins: does each of them import, and does each name stand for one."""

from __future__ import annotations

from collections.abc import Iterator

from bench.doctor.finding import Finding, ok, problem
from bench.doctor.probe import probe
from bench.registry import GROUPS, Plugin, installed

__all__ = ["check_plugins"]

#: Says what it begins with before it does, so that a crash has a name.
_IMPORTS = """
import json, sys
from bench.registry import GROUPS, installed
wanted = set(sys.argv[1:])
for kind in GROUPS:
    for claims in installed(kind).values():
        for plugin in claims:
            key = f"{kind}/{plugin.name}={plugin.distribution}"
            if key not in wanted:
                continue
            print(json.dumps({"begun": key}), flush=True)
            try:
                plugin.load()
            except BaseException as error:
                hint = getattr(error, "hint", "") or ""
                print(json.dumps({"failed": key, "cause": str(error)[:400], "hint": hint}), flush=True)
            print(json.dumps({"ended": key}), flush=True)
"""


def check_plugins(*, timeout_s: float = 90.0) -> list[Finding]:
    """Every entry point of every kind, imported in a process of its own; and names that two distributions claim."""
    known = [plugin for kind in GROUPS for claims in installed(kind).values() for plugin in claims]
    failures = [*_conflicts(), *_broken([_key(plugin) for plugin in known], timeout_s)]
    if failures:
        return failures
    sources = {plugin.distribution for plugin in known}
    return [ok("plugins", f"{len(known)} of {len(sources)} distribution{'' if len(sources) == 1 else 's'} import")]


def _key(plugin: Plugin) -> str:
    return f"{plugin.kind}/{plugin.name}={plugin.distribution}"


def _conflicts() -> Iterator[Finding]:
    for kind in GROUPS:
        for name, claims in installed(kind).items():
            if len(claims) > 1:
                who = " and ".join(f"{claim.distribution} {claim.version}" for claim in claims)
                remedy = f"uninstall one of them: pip uninstall {claims[-1].distribution}"
                yield problem(f"{kind}/{name}", f"is claimed by {who}", remedy)


def _broken(keys: list[str], timeout_s: float) -> Iterator[Finding]:
    """After a crash the rest is imported by another process."""
    while keys:
        seen = probe(_IMPORTS, *keys, timeout_s=timeout_s)
        for line in seen.lines:
            if "failed" in line:
                yield _failed(line["failed"], line["cause"], line["hint"])
        begun = [line["begun"] for line in seen.lines if "begun" in line]
        ended = {line["ended"] for line in seen.lines if "ended" in line}
        if not begun:
            yield problem("plugins", f"cannot be imported: {seen.failure}", "pip install --force-reinstall visionbench")
            return
        if begun[-1] not in ended:
            how = seen.failure or "it ended the process"
            yield _failed(begun[-1], f"its import does not come to an end: {how}", "")
        keys = [key for key in keys if key not in begun]


def _failed(key: str, cause: str, hint: str) -> Finding:
    name, _, distribution = key.partition("=")
    return problem(name, cause, hint or f"repair or uninstall it: pip uninstall {distribution}")
