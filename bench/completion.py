"""`bench completion`: the shell's TAB key knows commands, options, recipes and runs.

`RUN`, `RECIPE` and `PLUGIN` are click parameter types for other commands' arguments: they take any text, and complete
it. Completion runs at every press of TAB, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    _Type = click.ParamType[str]
else:
    _Type = click.ParamType  # older versions of click have no brackets for it

__all__ = ["PLUGIN", "RECIPE", "RUN", "Names", "completion"]

#: Where the program's own variable is: click makes its name from the program's.
_VARIABLE = "_BENCH_COMPLETE"

#: More than these are no help on a screen.
_MOST = 200


class Names(_Type):
    """Any text; TAB completes it to one of the names of a kind: run, recipe or plugin."""

    def __init__(self, kind: str) -> None:
        self.name = kind

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """The text as it is; the command checks it and says what is wrong."""
        return value

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002  # click hands them over
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """What the text may become; for recipes and runs also a path."""
        try:
            found = [CompletionItem(name, help=text) for name, text in _LISTS[self.name](incomplete)][:_MOST]
        except OSError:
            found = []
        return found or ([] if self.name == "plugin" else [CompletionItem(incomplete, type="file")])


def _runs(incomplete: str) -> Iterator[tuple[str, str]]:
    """Runs, latest first, then experiments; only the names of folders are read."""
    from bench.record import runs_folder

    root = runs_folder()
    experiments = sorted(folder.name for folder in root.iterdir() if folder.is_dir() and folder.name[0] != ".")
    if "/" in incomplete:
        runs = [(f"{name}/{run}", "") for name in experiments for run in _folders(root / name)]
    else:
        runs = [(run, name) for name in experiments for run in _folders(root / name)]
    runs.sort(key=lambda item: item[0].rpartition("/")[2], reverse=True)
    for name, experiment in [*runs, *((name, "experiment") for name in experiments)]:
        if name.startswith(incomplete):
            yield name, experiment


def _folders(place: Path) -> list[str]:
    return [folder.name for folder in place.iterdir() if not folder.name.startswith(".") and folder.is_dir()]


def _recipes(incomplete: str) -> Iterator[tuple[str, str]]:
    """TOML files below the folder that is being typed, and those of recipes/."""
    typed = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    places = [typed] if incomplete else [Path("recipes"), Path()]
    for place in places:
        for file in sorted(place.glob("*.toml")) if place.is_dir() else ():
            path = file.as_posix()
            if path.startswith(incomplete) and file.name != "pyproject.toml":
                yield path, ""


def _plugins(incomplete: str) -> Iterator[tuple[str, str]]:
    from bench.registry import GROUPS, installed

    for kind in GROUPS:
        for name in installed(kind):
            if (full := f"{kind}/{name}").startswith(incomplete):
                yield full, ""


_LISTS = {"run": _runs, "recipe": _recipes, "plugin": _plugins}

#: The type of an argument that names a run: a folder, a name, or the start of one.
RUN = Names("run")

#: The type of an argument that names a recipe's file.
RECIPE = Names("recipe")

#: The type of an argument that names a plugin: models/cnn.
PLUGIN = Names("plugin")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets TAB complete commands, options, recipes and runs.

    \b
    bash, for good:
      bench completion bash > ~/.local/share/bash-completion/completions/bench
    zsh, for good (with fpath+=~/.zfunc before compinit in ~/.zshrc):
      bench completion zsh > ~/.zfunc/_bench
    fish, for good:
      bench completion fish > ~/.config/fish/completions/bench.fish
    in this shell only (bash, zsh):
      eval "$(bench completion bash)"

    The folders must exist (mkdir -p), and a new shell reads them.
    """
    from click.shell_completion import get_completion_class

    chosen = get_completion_class(shell)
    assert chosen is not None  # noqa: S101  # click knows all three
    click.echo(_source(chosen(click.get_current_context().find_root().command, {}, "bench", _VARIABLE)))


def _source(made: click.shell_completion.ShellComplete) -> str:
    """The script, without the look for bash's version, which is the one that will read it."""
    return made.source_template % made.source_vars()
