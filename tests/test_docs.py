"""The documents say what the program does: commands, options, tables, the tree of files, links."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import bench
from bench import errors, recipe_docs, record, registry
from bench.cli import cli
from bench.recipe import load, parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "recipes/README.md")]
README = PAGES[0].read_text(encoding="utf-8")
CONTRIBUTING = PAGES[1].read_text(encoding="utf-8")
TOY = ROOT / "tests" / "packages" / "toy_plugin"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of one language ('' where none is named)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for named, block in found if named == language]


def rows(text: str, heading: str) -> Iterator[list[str]]:
    """The cells of the first table behind a heading, without its own first two lines."""
    part = text.partition(f"{heading}\n")[2]
    assert part, heading
    lines = [line for line in part.partition("\n## ")[0].splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def code(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def commands() -> list[tuple[str, ...]]:
    """Every command line of bench in the documents, without the program's name."""
    lines = (
        line for page in PAGES for block in blocks(page.read_text(encoding="utf-8"), "") for line in block.splitlines()
    )
    parts = (part.strip() for line in lines for part in line.split("&&"))
    found = [shlex.split(part, comments=True) for part in parts if re.match(r"(\.venv/bin/)?bench ", part)]
    return list(dict.fromkeys(tuple(words[1:]) for words in found))


# Commands


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_of_the_documents_exists(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    name, command, rest = cli.resolve_command(click.Context(cli), list(words))
    assert command is not None
    parameters = command.make_context(name, rest).params
    if parameters.get("recipe") and "model.name=toy" not in parameters["changes"]:
        assert load(parameters["recipe"], parameters["changes"])


@pytest.mark.parametrize("words", [words for words in commands() if words[0] in {"plan", "plugins"}], ids=" ".join)
def test_the_cheap_ones_run(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "models/toy" in words:
        words = tuple(word.replace("/toy", "/linear") for word in words)
    monkeypatch.chdir(ROOT)
    cli.main(list(words), standalone_mode=False)
    assert capsys.readouterr().out


def test_commands_were_found() -> None:
    assert {("plugins",), ("run", "recipes/quickstart.toml"), ("run", "recipes/quickstart.toml", "--resume")} <= {
        *commands()
    }


def test_the_table_of_commands_is_their_help() -> None:
    listed = {code(command)[0].removeprefix("bench "): text for command, text in rows(README, "## Commands")}
    own = {name: command.get_short_help_str(200) for name, command in cli.commands.items()}
    assert listed == own | {name: registry.find("commands", name).summary() for name in registry.installed("commands")}


def test_the_examples_of_the_help_keep_their_lines() -> None:
    for command in (cli, *cli.commands.values()):
        text = command.get_help(click.Context(command))
        assert "\\b" not in text
        examples = re.findall(r"^\s*bench .*", (command.help or "").replace("\\b", ""), flags=re.MULTILINE)
        assert all(re.search(rf"^ +{re.escape(line.strip())}$", text, flags=re.MULTILINE) for line in examples)


def test_the_dependency_groups_of_the_documents_exist() -> None:
    texts = [README, CONTRIBUTING, (ROOT / ".ci" / "run").read_text(encoding="utf-8")]
    named = set(re.findall(r"--group (\w+)", " ".join(texts)))
    assert "test" in named
    assert named <= set(PYPROJECT["dependency-groups"])


def test_the_sessions_of_nox_are_those_of_the_table() -> None:
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    sessions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    named = [word for session, _ in rows(CONTRIBUTING, "## Set-up") for word in code(session)]
    assert {name.removeprefix("nox -s ") for name in named if name != "nox"} == sessions


# Tables


def test_exit_codes_are_those_of_the_errors() -> None:
    table = {int(number): set(code(names)) for number, _, names in rows(README, "## Exit codes")}
    expected: dict[int, set[str]] = {0: set()}
    for name in errors.__all__:
        expected.setdefault(getattr(errors, name).exit_code, set()).add(name)
    assert table == expected


def test_environment_variables_are_those_of_the_code() -> None:
    named = {code(variable)[0] for variable, *_ in rows(README, "## Environment variables")}
    text = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "bench").rglob("*.py"))
    assert {name for name in named if name.startswith("BENCH_")} == set(re.findall(r'"(BENCH_[A-Z]+)"', text))
    assert {name for name in named if f'"{name}"' not in text} == set()


def test_the_files_of_a_run_are_those_of_its_layout() -> None:
    named = {code(file)[0] for file, _ in rows(README, "## What a run leaves behind")}
    assert named == set(re.findall(r"^    (\S+)  ", record.__doc__ or "", flags=re.MULTILINE))


def test_the_keys_of_recipes_are_up_to_date(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_bytes(PAGES[3].read_bytes())
    assert not recipe_docs.rewrite(page), "python -m bench.recipe_docs writes them anew"


def test_tables_of_keys_are_written_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- keys: begin -->\nout of date\n<!-- keys: end -->\nafter\n", encoding="utf-8")
    assert recipe_docs.rewrite(page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "out of date" not in text
    assert "| `epochs` | int >= 0 | `10` |" in text
    assert not recipe_docs.rewrite(page)
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="missing"):
        recipe_docs.rewrite(page)


def test_what_is_left_out_has_the_default_of_the_tables() -> None:
    recipe = parse('[dataset]\nname = "digits"\n[model]\nname = "linear"\n', path=Path("any.toml"))
    text = recipe_docs.render()
    for section, name in (("optimizer", recipe.optimizer.name), ("scheduler", recipe.scheduler.name)):
        assert f"### [{section}]\n\nOne of these; without a name it is `{name}`." in text


# Examples


def test_the_recipe_of_the_readme_is_one() -> None:
    [text] = [block for block in blocks(README, "toml") if "[dataset]" in block]
    assert parse(text, path=Path("any.toml")).seeds == (0, 1, 2)


def test_the_plugin_of_the_readme_is_the_one_that_is_tested() -> None:
    module, _ = blocks(README, "python")
    [project] = [block for block in blocks(README, "toml") if "[project]" in block]
    assert module == (TOY / "toy_plugin.py").read_text(encoding="utf-8")
    assert project == (TOY / "pyproject.toml").read_text(encoding="utf-8")


def test_the_conformance_test_of_the_readme_makes_cases() -> None:
    _, text = blocks(README, "python")
    scope: dict[str, object] = {}
    exec(text.replace("toy-plugin", "visionbench"), scope)  # noqa: S102  # the block as it stands, on a plugin that is installed
    assert callable(scope["test_conformance"])


def test_the_changelog_counts_the_plugins_of_this_version() -> None:
    text = PAGES[2].read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", text, flags=re.MULTILINE)[0] == bench.__version__
    counts = {
        kind: len(PYPROJECT["project"]["entry-points"][group]) for kind, group in list(registry.GROUPS.items())[:3]
    }
    assert f"{counts['models']} models, {counts['datasets']} datasets, {counts['augmentations']} augmentations" in text


# Files and links


def tree() -> set[str]:
    """The paths of the README's tree; indentation says what is in what."""
    found, above = set(), [(-1, "")]
    [text] = [block for block in blocks(README, "text") if block.startswith("bench/")]
    for line in text.splitlines():
        name, depth = line.split()[0], len(line) - len(line.lstrip())
        while above[-1][0] >= depth:
            above.pop()
        path = above[-1][1] + name
        found.add(path)
        if name.endswith("/"):
            above.append((depth, path))
    return found


def test_every_module_and_package_stands_in_the_tree() -> None:
    """Those at the top; what a package holds, its modules' own first lines say."""
    for top in (ROOT / "bench", ROOT / "export" / "bench_export"):
        found = {file.relative_to(ROOT).as_posix() for file in top.glob("*.py") if file.name != "__init__.py"}
        found |= {f"{file.parent.relative_to(ROOT).as_posix()}/" for file in top.glob("*/__init__.py")}
        assert found - tree() == set()


def test_what_stands_in_the_tree_exists() -> None:
    assert {path for path in tree() if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in targets if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_named_in_a_page_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:bench|plugins|tests|export|recipes)/[\w/.]+\.(?:py|toml|md))`", page.read_text(encoding="utf-8")
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


#: A home folder, the folder of one machine, the host of a package registry.
PRIVATE = re.compile(
    r"(?<![\w.:/])/(?:root|home|work|opt|srv|Users)/\w+|\b(?:files\.pythonhosted|(?:test\.)?pypi)\.org"
)


def test_no_file_names_a_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [name for name in listed.stdout.split("\0") if name]
    if not names:
        pytest.skip("not a git checkout")
    found = []
    for name in names:
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        found += [f"{name}: {match[0]}" for match in PRIVATE.finditer(text)]
    assert found == []
