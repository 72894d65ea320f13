"""Planted faults: distributions that are only metadata, with a module or two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import registry

Plant = Callable[..., Path]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    """Put a distribution in front of those that are installed: its metadata, entry points and modules."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def planted(
        name: str,
        version: str,
        *,
        requires: tuple[str, ...] = (),
        python: str = "",
        entry_points: str = "",
        **modules: str,
    ) -> Path:
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {text}" for text in requires] + ([f"Requires-Python: {python}"] if python else [])
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        (folder / "entry_points.txt").write_text(entry_points)
        for module, text in modules.items():
            (site / f"{module}.py").write_text(text)
        registry.installed.cache_clear()
        return site

    yield planted
    registry.installed.cache_clear()
