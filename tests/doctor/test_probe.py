"""A process that crashes, hangs or does not start is a finding."""

from __future__ import annotations

import time

import pytest

from bench.doctor.probe import probe


def test_lines_of_json_among_other_lines() -> None:
    seen = probe("print('hello'); print('{\"a\": 1}'); print('[2]'); print('{\"b\": 2}')")
    assert (seen.values, seen.failure) == ({"a": 1, "b": 2}, "")


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("import os; os.abort()", "the process crashed (SIGABRT)"),
        ("import os; os._exit(3)", "exit code 3"),
        ("import a_module_that_nobody_has", "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
    ],
)
def test_how_it_ended(code: str, failure: str) -> None:
    seen = probe("print('{\"begun\": 1}', flush=True); " + code)
    assert (seen.failure, seen.values) == (failure, {"begun": 1})


def test_what_hangs_is_ended_and_its_lines_are_kept() -> None:
    start = time.perf_counter()
    seen = probe("import time; print('{\"begun\": 1}', flush=True); time.sleep(60)", timeout_s=2)
    assert time.perf_counter() - start < 20
    assert (seen.failure, seen.values) == ("no end within 2 s", {"begun": 1})


def test_an_interpreter_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert probe("pass").failure.startswith("cannot be started")
