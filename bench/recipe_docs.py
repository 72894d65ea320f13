"""The tables of keys in recipes/README.md, written from the models that check a recipe: python -m bench.recipe_docs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import tables
from bench.files import write_text
from bench.schema import Table, describe

__all__ = ["render", "rewrite"]

#: The lines between which the tables stand. What is outside of them is written by hand.
_BEGIN, _END = "<!-- keys: begin -->", "<!-- keys: end -->"


def render() -> str:
    """Every key of a recipe as Markdown, a table a section; optimizers and schedulers one a name."""
    return "\n\n".join(
        [
            _section("Top level", tables.Top),
            _plugin("[dataset]", tables.DatasetKeys, "datasets"),
            _section("[data]", tables.Data),
            _plugin("[model]", tables.ModelKeys, "models"),
            _plugin("[[augment]]", tables.AugmentKeys, "augmentations"),
            _section("[init]", tables.Init),
            _section("[train]", tables.Train),
            _by_name("[optimizer]", tables.OPTIMIZERS, default="adamw"),
            _by_name("[scheduler]", tables.SCHEDULERS, default="none"),
            _section("[compute]", tables.Compute),
            _section("[export]", tables.Export),
            _section("[search]", tables.SECTIONS["search"]),
        ]
    )


def rewrite(path: Path) -> bool:
    """Put the tables into a file, between its two marks. Returns whether that changed it."""
    old = path.read_text(encoding="utf-8")
    before, begin, rest = old.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{path}: the lines {_BEGIN} and {_END} are missing")
    new = f"{before}{_BEGIN}\n\n{render()}\n\n{_END}{after}"
    if new != old:
        write_text(path, new)
    return new != old


def _section(heading: str, model: type[Table]) -> str:
    return f"### {heading}\n\n{_about(model)}\n\n{_table(model)}"


def _plugin(heading: str, model: type[Table], kind: str) -> str:
    options = f"The plugin's own options stand in the same table: `bench plugins {kind}/NAME` lists them."
    return f"### {heading}\n\n{_table(model)}\n\n{options}"


def _by_name(heading: str, choices: Mapping[str, type[Table]], *, default: str) -> str:
    """A section with a table for each name; names that share their keys share their table."""
    shared: dict[type[Table], list[str]] = {}
    for name, model in choices.items():
        shared.setdefault(model, []).append(f'`name = "{name}"`')
    parts = [f"### {heading}\n\nOne of these; without a name it is `{default}`."]
    parts += [f"{' and '.join(names)}: {_about(model)}\n\n{_table(model)}" for model, names in shared.items()]
    return "\n\n".join(parts)


def _about(model: type[Table]) -> str:
    return " ".join((inspect.getdoc(model) or "").split())


def _table(model: type[Table]) -> str:
    return "\n".join(_rows(model))


def _rows(model: type[Table]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for option in describe(model):
        default = option.default if option.default in {"", "required"} else f"`{option.default}`"
        cells = (f"`{option.name}`", option.type, default, option.description)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "recipes/README.md")
    changed = rewrite(file)
    sys.stdout.write(f"{file}: {'rewritten' if changed else 'up to date'}\n")
