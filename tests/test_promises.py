"""What the project promises of itself: a quick start, sound recipes, directions of import, shapes of code, exit codes."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import bench
from bench.cli import cli
from bench.registry import installed

ROOT = Path(__file__).parents[1]
PACKAGES = {"bench": ROOT / "bench", "bench_plugins": ROOT / "plugins", "bench_export": ROOT / "export"}
MODULES = sorted(file for folder in PACKAGES.values() for file in folder.rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))

#: What takes longer to import than a person should wait for a list.
HEAVY = {
    "torch", "torchvision", "timm", "mlflow", "optuna", "onnx", "onnxruntime", "matplotlib", "sklearn", "scipy", "numpy",
    "torchmetrics", "pydantic", "PIL", "rich",
}  # fmt: skip

LONGEST_MODULE, LONGEST_FUNCTION = 250, 60


def run_bench(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program as a person runs it, with none of the caller's settings of bench."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BENCH_", "MLFLOW_"))}
    command = [sys.executable, "-m", "bench", *arguments]
    environment = inherited | {"BENCH_TRACKING": "off"} | environment
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# The start


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("plugins",), ("run", "--help")], ids=" ".join)
def test_nothing_heavy_is_imported_for_a_list(arguments: tuple[str, ...]) -> None:
    program = f"""
import sys
sys.argv = ["bench", *{arguments!r}]
from bench.cli import main
try:
    main()
finally:
    print(*(name for name in sys.modules if "." not in name), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "click" in loaded
    assert not loaded & HEAVY
    assert not loaded & {"bench_plugins", "bench_export"}


def test_the_version_is_the_same_everywhere(tmp_path: Path) -> None:
    done = run_bench("--version", folder=tmp_path)
    assert done.stdout.split()[-1] == bench.__version__ == importlib.metadata.version("visionbench")


# Recipes and entry points


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_every_recipe_plans_without_its_data(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_DATA", raising=False)
    cli.main(["plan", str(recipe)], standalone_mode=False)
    assert "steps_per_epoch" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_recipes_were_found() -> None:
    assert "recipes/quickstart.toml" in map(name_of, RECIPES)


def test_what_is_installed_is_what_pyproject_declares() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = importlib.metadata.distribution("visionbench").entry_points
    expected = {
        (group, name, target) for group, names in declared["entry-points"].items() for name, target in names.items()
    }
    expected |= {("console_scripts", name, target) for name, target in declared["scripts"].items()}
    assert {(point.group, point.name, point.value) for point in points} == expected, "pip install -e . once more"


@pytest.mark.parametrize("kind", ["models", "datasets", "augmentations"])
def test_every_public_module_of_plugins_is_declared(kind: str) -> None:
    files = {file.stem for file in (PACKAGES["bench_plugins"] / "bench_plugins" / kind).glob("[!_]*.py")}
    targets = [claim.target for claims in installed(kind).values() for claim in claims]
    modules = {target.partition(":")[0] for target in targets}
    assert {module.rpartition(".")[2] for module in modules if module.startswith("bench_plugins.")} == files


# Directions of import


def imports(tree: ast.AST, *, when_loaded: bool = False) -> Iterator[str]:
    """The modules that a tree imports, in full; with `when_loaded` only those that loading it imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif not (when_loaded and runs_later(node)):
            yield from imports(node, when_loaded=when_loaded)


def runs_later(node: ast.AST) -> bool:
    """Whether loading a module passes this part over."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def packages(modules: Iterable[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    banned = {"bench_plugins", "bench_export"} - {package}
    found = {
        name_of(file): packages(imports(ast.parse(file.read_text(encoding="utf-8")))) & banned
        for file in PACKAGES[package].rglob("*.py")
    }
    assert {file: names for file, names in found.items() if names} == {}


def test_only_the_stages_import_torch_when_they_are_loaded() -> None:
    free = {ROOT / "bench" / "stages", ROOT / "bench" / "testing"}
    slow = HEAVY - {"numpy", "pydantic", "PIL", "rich"}
    found = {
        name_of(file): packages(imports(ast.parse(file.read_text(encoding="utf-8")), when_loaded=True)) & slow
        for file in PACKAGES["bench"].rglob("*.py")
        if not free & set(file.parents)
    }
    assert {file: names for file, names in found.items() if names} == {}


# Shapes of code


def test_functions_are_short() -> None:
    found = {
        f"{name_of(file)}: {node.name}": node.end_lineno - node.lineno + 1
        for file in MODULES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in found.items() if lines > LONGEST_FUNCTION} == {}


def test_modules_are_short() -> None:
    found = {name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in MODULES}
    assert {name for name, lines in found.items() if lines > LONGEST_MODULE} == set()


def test_a_module_says_what_it_is() -> None:
    assert [
        name_of(file) for file in MODULES if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ] == []


def test_a_public_module_says_what_is_public() -> None:
    silent = []
    for file in MODULES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets}
        empty = all(isinstance(node, ast.Expr | ast.Import | ast.ImportFrom) for node in tree.body)
        private = file.name.startswith("_") and not file.name.startswith("__")
        if "__all__" not in names and not private and not empty and file.name != "__main__.py":
            silent.append(name_of(file))
    assert silent == []


# Exit codes

COMMANDS = '''
from __future__ import annotations

import click

from bench.errors import GateError


@click.command()
def gate():
    """Misses a gate."""
    raise GateError("too slow", hint="a smaller model")


@click.command()
def bug():
    """Has a bug."""
    return 1 / 0
'''

BROKEN = {
    "commands_under_test.py": COMMANDS,
    "broken_model.py": "raise OSError('disk on fire')\n",
    "stopped_model.py": "raise KeyboardInterrupt\n",
    "broken_things-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: broken-things\nVersion: 1.0\n",
    "broken_things-1.0.dist-info/entry_points.txt": """
[bench.models]
broken = broken_model:model
stopped = stopped_model:model

[bench.commands]
gate = commands_under_test:gate
bug = commands_under_test:bug
""",
}

NAMES_BROKEN = '[dataset]\nname = "digits"\n[model]\nname = "broken"\n'
MISSPELT = '[dataset]\nname = "digits"\n[model]\nname = "cnn"\n[train]\nepoch = 3\n'


@pytest.fixture(scope="module")
def broken_things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipes, and a distribution whose plugins fail in all ways."""
    folder = tmp_path_factory.mktemp("broken")
    for name, text in {**BROKEN, "broken.toml": NAMES_BROKEN, "misspelt.toml": MISSPELT}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["plugins"], 0, ""),
        (["ui", "--no-browser"], 1, "switched off"),
        (["rnu"], 2, 'did you mean "run"'),
        (["plan"], 2, "RECIPE"),
        (["plan", "misspelt.toml", "--nonsense"], 2, "--nonsense"),
        (["plan", "absent.toml"], 2, "absent.toml"),
        (["plan", "misspelt.toml"], 2, 'train.epoch: unknown key; did you mean "epochs"'),
        (["plan", "broken.toml"], 3, "disk on fire"),
        (["plugins", "models/broken", "--check"], 3, "1 plugin failed"),
        (["plugins", "models/cmn"], 3, 'did you mean "cnn"'),
        (["gate"], 4, "too slow"),
        (["plugins", "models/stopped"], 130, "interrupted"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_exit_codes(broken_things: Path, arguments: list[str], code: int, message: str) -> None:
    done = run_bench(*arguments, folder=broken_things, PYTHONPATH=str(broken_things))
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_shows_its_traceback(broken_things: Path) -> None:
    done = run_bench("bug", folder=broken_things, PYTHONPATH=str(broken_things))
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_broken_plugin_hurts_only_the_recipe_that_names_it(broken_things: Path) -> None:
    done = run_bench("plugins", "models/linear", folder=broken_things, PYTHONPATH=str(broken_things))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
