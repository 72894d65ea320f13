"""The command: readable at 80 columns, JSON, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest
from click.testing import CliRunner, Result

from bench import doctor
from bench.doctor.command import doctor as command
from bench.doctor.finding import Finding, ok, problem, warning

_EXAMINE = doctor.examine
_LONG = "a sentence that goes on and on, far beyond the eighty columns of a terminal, " * 2


def _run(monkeypatch: pytest.MonkeyPatch, *findings: Finding, arguments: tuple[str, ...] = ()) -> Result:
    areas: Mapping[str, tuple[Callable[[], list[Finding]], ...]] = {"things": (lambda: list(findings),), "none": ()}
    monkeypatch.setattr(doctor, "examine", lambda: _EXAMINE(areas))
    return CliRunner().invoke(command, arguments, env={"COLUMNS": "80"})


def _console() -> object:
    from rich.console import Console

    return Console(highlight=False, width=80)


def test_the_exit_code_is_1_only_for_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    good, odd = ok("a", "fine"), warning("b", "odd", "do this")
    assert _run(monkeypatch, good, odd).exit_code == 0
    result = _run(monkeypatch, good, odd, problem("c", "broken", "do that"))
    assert result.exit_code == 1
    assert "1 problem, 1 warning" in result.stdout


def test_findings_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    result = _run(monkeypatch, ok("a", "fine"), problem("c", "broken", "do that"), arguments=("--json",))
    values = json.loads(result.stdout)
    assert (values["schema"], values["problems"], values["warnings"]) == (1, 1, 0)
    assert values["findings"][1] == {
        "area": "things",
        "name": "c",
        "state": "problem",
        "text": "broken",
        "remedy": "do that",
    }


def test_long_texts_are_wrapped_beside_their_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.console.stdout", _console)
    found = (warning("models/a_name_that_is_long", _LONG, _LONG), ok("short", _LONG))
    lines = _run(monkeypatch, *found).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line != line.rstrip()]
    assert "warning  models/a_name_that_is_long" in lines
    assert [line for line in lines if line.strip().startswith("-> a sentence")]


def test_a_check_that_fails_itself_is_a_problem_among_the_others() -> None:
    def check_stars() -> list[Finding]:
        raise ValueError("no telescope")

    found = doctor.examine({"sky": (check_stars, lambda: [ok("moon", "full")])})
    assert [(one.name, one.state) for one in found["sky"]] == [("stars", "problem"), ("moon", "ok")]
    assert "no telescope" in found["sky"][0].text


def test_the_areas_cover_everything() -> None:
    names = [check.__name__ for checks in doctor.AREAS.values() for check in checks]
    assert len(names) == len(set(names)) == 10
