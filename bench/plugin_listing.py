"""`bench plugins`: what is installed, the options of one plugin, and the conformance checks."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from bench.errors import PluginError, RecipeError
from bench.registry import GROUPS, Plugin, find, installed, near_miss

__all__ = ["check", "list_all", "show"]


def list_all(*, as_json: bool) -> None:
    """Every plugin by kind, with distribution, version and first docstring line. Imports none of them."""
    known = [plugin for kind in GROUPS for claims in installed(kind).values() for plugin in claims]
    if as_json:
        _print_json({"plugins": [_as_json(plugin) for plugin in known]})
        return
    # Written by hand rather than with rich: this listing starts in a fifth of a second.
    width = max((len(plugin.name) for plugin in known), default=0)
    room = max(20, shutil.get_terminal_size().columns - width - 4)
    for kind in GROUPS:
        of_kind = [plugin for plugin in known if plugin.kind == kind]
        sources = sorted({f"{plugin.distribution} {plugin.version}" for plugin in of_kind})
        if not of_kind:
            continue
        click.echo(click.style(kind, bold=True) + (f"  ({sources[0]})" if len(sources) == 1 else ""))
        for plugin in of_kind:
            origin = "" if len(sources) == 1 else f" ({plugin.distribution} {plugin.version})"
            text, left = plugin.summary(), max(10, room - len(origin))  # where it comes from is never cut
            shown = (text if len(text) <= left else f"{text[: left - 1]}…") + origin
            conflict = click.style(" conflict", fg="red") if len(installed(kind)[plugin.name]) > 1 else ""
            click.echo(f"  {plugin.name:{width}}  {shown}{conflict}")


def show(name: str, *, as_json: bool) -> None:
    """The options of one plugin, with types and defaults."""
    from bench import schema

    plugin = _named(name)
    loaded = plugin.load()
    options = schema.describe(schema.options_model(plugin.kind, loaded)) if plugin.kind in schema.RESERVED else ()
    document = inspect.getdoc(loaded) or ""
    if as_json:
        fields = ("name", "type", "default", "description")
        listed = [{field: getattr(option, field) for field in fields} for option in options]
        _print_json({**_as_json(plugin), "documentation": document, "options": listed})
        return
    from bench.console import print_table

    click.echo(f"{plugin.kind}/{plugin.name}  ({plugin.distribution} {plugin.version}, {plugin.target})\n")
    click.echo(document + "\n")
    if options:
        rows = [(option.name, option.type, option.default, option.description) for option in options]
        heads = ("option", "type", "default", "")
        print_table(
            heads if any(row[3] for row in rows) else heads[:3], [r if any(x[3] for x in rows) else r[:3] for r in rows]
        )
    else:
        click.echo("no options")


def check(name: str | None, *, root: Path | None, as_json: bool) -> None:
    """Run the conformance checks on one plugin or all; exit code 3 where one fails."""
    from bench.testing import run_checks

    chosen: Iterable[Plugin] = (
        [_named(name)] if name else [p for kind in GROUPS for claims in installed(kind).values() for p in claims]
    )
    failures, listed = 0, []
    for plugin in chosen:
        results = run_checks(plugin, root=root)
        failed = [result for result in results if result.status == "failed"]
        skipped = [result for result in results if result.status == "skipped"]
        failures += bool(failed)
        listed += [{"plugin": f"{plugin.kind}/{plugin.name}", **_result(result)} for result in results]
        if as_json:
            continue
        mark = click.style("failed", fg="red") if failed else click.style("passed", fg="green")
        extra = f", {len(skipped)} skipped" if skipped else ""
        click.echo(f"{mark}  {plugin.kind}/{plugin.name}  {len(results) - len(failed) - len(skipped)} checks{extra}")
        for result in failed + skipped:
            click.echo(f"        {result.check}: {result.detail}")
    if as_json:
        _print_json({"results": listed, "failed": failures})
    if failures:
        raise PluginError(
            f"{failures} plugin{'s' if failures > 1 else ''} failed", hint="bench/kinds.py states the contract"
        )


def _named(name: str) -> Plugin:
    kind, slash, short = name.partition("/")
    if kind not in GROUPS and f"{kind}s" in GROUPS:
        kind += "s"
    if not slash or kind not in GROUPS:
        kinds = ", ".join(GROUPS)
        raise RecipeError(
            f"{name!r} is not of the form KIND/NAME{near_miss(kind, GROUPS)}; kinds: {kinds}",
            hint="bench plugins models/cnn",
        )
    return find(kind, short)


def _as_json(plugin: Plugin) -> dict[str, Any]:
    fields = ("kind", "name", "target", "distribution", "version")
    return {**{field: getattr(plugin, field) for field in fields}, "summary": plugin.summary()}


def _result(result: Any) -> dict[str, str]:
    return {"check": result.check, "status": result.status, "detail": result.detail}


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"schema": 1, **value}, indent=2, ensure_ascii=False) + "\n")
