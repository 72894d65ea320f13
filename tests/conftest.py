"""What every test gets: folders of its own, no tracking, and a fresh look at the installed plugins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import registry

#: These name stores of their own.
_WITH_TRACKING = {"test_tracking.py", "test_ui.py"}


@pytest.fixture(autouse=True)
def _own_environment(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "bench-cache"))
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path / "bench-runs"))
    if request.path.name in _WITH_TRACKING:
        monkeypatch.delenv("BENCH_TRACKING", raising=False)
    else:
        monkeypatch.setenv("BENCH_TRACKING", "off")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if request.node.get_closest_marker("real_data") is None:
        monkeypatch.delenv("BENCH_DATA", raising=False)
    registry.installed.cache_clear()
    yield
    registry.installed.cache_clear()
