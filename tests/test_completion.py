"""TAB, in the shells that are installed."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bench import completion, registry
from bench.cli import cli

_PROGRAM = Path(sys.executable).with_name("bench")


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two experiments of three runs, and a folder with recipes."""
    for name in ("pets/20261101-120000-ab12-s0", "pets/20261102-120000-cd34-s0", "signs/20261103-120000-ef56-s0"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / ".study-x.lock").touch()
    (tmp_path / "recipes").mkdir()
    for name in ("recipes/a.toml", "recipes/b.toml", "recipes/notes.txt", "pyproject.toml", "own.toml"):
        (tmp_path / name).touch()
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _completed(kind: completion.Names, incomplete: str) -> list[str]:
    context = click.Context(cli)
    return [item.value for item in kind.shell_complete(context, click.Argument(["name"]), incomplete)]


def test_runs_complete_by_name_latest_first_then_experiments(recorded: Path) -> None:
    assert recorded.is_dir()
    assert _completed(completion.RUN, "2026") == [
        "20261103-120000-ef56-s0",
        "20261102-120000-cd34-s0",
        "20261101-120000-ab12-s0",
    ]
    assert _completed(completion.RUN, "")[-2:] == ["pets", "signs"]
    assert _completed(completion.RUN, "pets/") == ["pets/20261102-120000-cd34-s0", "pets/20261101-120000-ab12-s0"]


def test_what_is_no_run_completes_as_a_path(recorded: Path) -> None:
    (item,) = completion.RUN.shell_complete(click.Context(cli), click.Argument(["name"]), "model.o")
    assert (item.type, item.value) == ("file", "model.o")
    shutil.rmtree(recorded / "runs")
    (item,) = completion.RUN.shell_complete(click.Context(cli), click.Argument(["name"]), "2026")
    assert item.type == "file"


def test_recipes_complete_from_their_folder(recorded: Path) -> None:
    assert recorded.is_dir()
    assert _completed(completion.RECIPE, "") == ["recipes/a.toml", "recipes/b.toml", "own.toml"]
    assert _completed(completion.RECIPE, "recipes/") == ["recipes/a.toml", "recipes/b.toml"]
    assert _completed(completion.RECIPE, "recipes/b") == ["recipes/b.toml"]


def test_plugins_complete_by_kind_and_name() -> None:
    assert "models/cnn" in _completed(completion.PLUGIN, "models/c")
    assert _completed(completion.PLUGIN, "models/xyz") == []


def test_a_name_is_handed_on_as_it_is() -> None:
    assert completion.RUN.convert("20261101", None, None) == "20261101"


def test_many_runs_complete_at_once(recorded: Path) -> None:
    for number in range(1000):
        (recorded / "runs" / "pets" / f"20261001-{number:06}-ab12-s0").mkdir()
    start = time.perf_counter()
    assert len(_completed(completion.RUN, "2026")) == 200
    assert time.perf_counter() - start < 0.5


def test_commands_of_entry_points_complete_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(registry.Plugin, "load", lambda plugin: loaded.append(plugin.name))
    items = {item.value: item.help for item in cli.shell_complete(click.Context(cli), "")}
    assert {"run", "ui", "export", "doctor", "completion"} <= set(items)
    assert items["doctor"] == registry.find("commands", "doctor").summary()
    assert loaded == []
    assert [item.value for item in cli.shell_complete(click.Context(cli), "expo")] == ["export"]
    assert "--version" in [item.value for item in cli.shell_complete(click.Context(cli), "--")]


def test_the_help_says_how_to_install_it_for_each_shell() -> None:
    text = CliRunner().invoke(completion.completion, ["--help"]).output
    for words in ("bash-completion/completions/bench", ".zfunc/_bench", "fish/completions/bench.fish", "eval"):
        assert words in text


@pytest.mark.parametrize(
    ("shell", "words"), [("zsh", "#compdef bench"), ("fish", "complete --no-files --command bench")]
)
def test_a_script_for_each_shell(shell: str, words: str) -> None:
    result = CliRunner().invoke(completion.completion, [shell])
    assert result.exit_code == 0
    assert words in result.output
    assert "_BENCH_COMPLETE" in result.output


def test_an_unknown_shell_is_refused() -> None:
    result = CliRunner().invoke(completion.completion, ["tcsh"])
    assert result.exit_code == 2
    assert "bash" in result.output


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_values(recorded: Path) -> None:
    script = CliRunner().invoke(completion.completion, ["bash"]).output
    asked = [["bench", "expo"], ["bench", "doctor", "--j"], ["bench", "completion", "z"]]
    body = "\n".join(
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; COMPREPLY=(); _bench_completion {_PROGRAM}; echo ${{COMPREPLY[@]}}"
        for words in asked
    )
    done = subprocess.run(
        ["bash", "--norc"], check=True, input=script + body, capture_output=True, text=True, cwd=recorded
    )
    assert done.stdout.split() == ["export", "--json", "zsh"]
    assert done.stderr == ""


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[Callable[[str, str], str]]:
    """An interactive bash on a terminal: type something, and read until it shows something."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover
        os.environ["PATH"] = f"{_PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
        os.environ["PS1"] = "ready> "
        os.chdir(tmp_path)
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])  # noqa: S606

    def type_in(text: str, awaited: str) -> str:
        os.write(terminal, text.encode())
        seen, end = "", time.monotonic() + 60
        while awaited not in seen:
            assert time.monotonic() < end, f"{awaited!r} is not in {seen!r}"
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 4096).decode(errors="replace")
        return seen

    yield type_in
    os.write(terminal, b"\x03\nexit\n")
    os.waitpid(pid, 0)
    os.close(terminal)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*use of forkpty:DeprecationWarning")
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_tab_in_a_real_bash(bash: Callable[[str, str], str]) -> None:
    bash('eval "$(bench completion bash)"; echo lo""aded\n', "loaded")
    assert "bench export " in bash("bench expo\t", "export ")
