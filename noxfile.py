"""What is checked, and how: nox -l. Dependencies are read from pyproject.toml, never repeated here."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["tests"]
nox.options.reuse_venv = "yes"  # each holds 7 GB

PROJECT = nox.project.load_toml("pyproject.toml")


@nox.session
def tests(session: nox.Session) -> None:
    """The default tests; further arguments go to pytest: nox -s tests -- -m slow."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """The style of code, tests and this file."""
    install(session, "lint", project=False)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types in all three packages."""
    install(session, "types")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The tables of recipes/README.md, keys and leaderboard, written anew; fails where that changed them."""
    install(session)
    page = Path("recipes/README.md")
    before = page.read_text(encoding="utf-8")
    session.run("python", "-m", "bench.recipe_docs")
    session.run("python", "-m", "bench.leaderboard.keeping")
    if page.read_text(encoding="utf-8") != before:
        session.error(f"{page} was stale and has been rewritten: look at it and commit it")


@nox.session(reuse_venv=False, venv_backend="venv")
def wheel(session: nox.Session) -> None:
    """A wheel in a clean environment: its plugins keep their promises, and the quickstart runs to its end."""
    folder = Path(session.create_tmp())
    shutil.rmtree(folder / "wheels", ignore_errors=True)
    session.run("python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder / "wheels"), ".")
    [built] = (folder / "wheels").glob("*.whl")
    session.install(str(built))
    recipe = Path("recipes/quickstart.toml").resolve()
    session.chdir(folder)  # away from the checkout, whose packages would be found first
    for kind in ("models", "datasets", "augmentations"):
        for plugin in PROJECT["project"]["entry-points"][f"bench.{kind}"]:
            session.run("bench", "plugins", f"{kind}/{plugin}", "--check")
    session.run("bench", "run", str(recipe))


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Speed, side by side; the tables are printed."""
    install(session, "test")
    session.run("pytest", "-m", "benchmark", "-s", "tests/benchmarks", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Kills at random moments, for as long as it takes to trust what survives them."""
    install(session, "test")
    session.run("pytest", "-m", "soak", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """The tests that need a CUDA device."""
    install(session, "test")
    session.run("pytest", "-m", "gpu", *session.posargs)


def install(session: nox.Session, *groups: str, project: bool = True) -> None:
    """The project as a developer has it, and dependency groups of pyproject.toml; nothing with --no-venv."""
    if session.virtualenv.venv_backend == "none":
        return
    if project:
        session.install("-e", ".")
    requirements = [line for group in groups for line in nox.project.dependency_groups(PROJECT, group)]
    if requirements:
        session.install(*requirements)
