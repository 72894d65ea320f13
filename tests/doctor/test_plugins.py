"""Plugins that break, crash or hang on import, and names that two distributions claim."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.doctor import plugins
from bench.doctor.finding import Finding
from bench.registry import GROUPS, Plugin, installed

Plant = Callable[..., Path]


@pytest.fixture(autouse=True)
def _planted_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first-party plugins import torch, which takes seconds; here only the planted ones are looked at."""
    full = plugins.installed

    def reduced(kind: str) -> dict[str, tuple[Plugin, ...]]:
        found = full(kind)
        return {name: claims for name, claims in found.items() if any(c.distribution != "visionbench" for c in claims)}

    monkeypatch.setattr(plugins, "installed", reduced)


def _found(*, timeout_s: float = 60) -> dict[str, Finding]:
    return {one.name: one for one in plugins.check_plugins(timeout_s=timeout_s)}


def test_a_plugin_that_imports(plant: Plant) -> None:
    plant("good", "1.0", entry_points="[bench.models]\ngood = good_one:good\n", good_one="def good(spec): ...\n")
    assert _found()["plugins"].text == "1 of 1 distribution import"


def test_broken_plugins_do_not_hide_each_other(plant: Plant) -> None:
    entries = "[bench.models]\nbroken = broken_one:x\nmissing = good_one:absent\n[bench.datasets]\ncrashing = crashing_one:x\nlast = last_one:x\n"
    modules = {
        "broken_one": "1 / 0\n",
        "good_one": "",
        "crashing_one": "import os\nos.abort()\n",
        "last_one": "x = 3\n",
    }
    plant("bad", "1.0", entry_points=entries, **modules)
    found = _found()
    assert set(found) == {"models/broken", "models/missing", "datasets/crashing", "datasets/last"}
    assert "ZeroDivisionError" in found["models/broken"].text
    assert "SIGABRT" in found["datasets/crashing"].text
    assert "not callable" in found["datasets/last"].text
    assert {one.state for one in found.values()} == {"problem"}
    assert found["models/broken"].remedy == "repair or uninstall it: pip uninstall bad"


def test_a_plugin_whose_import_ends_python(plant: Plant) -> None:
    plant("bad", "1.0", entry_points="[bench.models]\nleaving = leaving:x\n", leaving="import os\nos._exit(0)\n")
    assert "does not come to an end" in _found()["models/leaving"].text


def test_a_plugin_that_hangs(plant: Plant) -> None:
    plant("bad", "1.0", entry_points="[bench.models]\nslow = slow_one:x\n", slow_one="import time\ntime.sleep(600)\n")
    assert "no end within 5 s" in _found(timeout_s=5)["models/slow"].text


def test_two_distributions_with_one_name(plant: Plant) -> None:
    for name in ("one", "two"):
        plant(name, "1.0", entry_points=f"[bench.models]\nshared = {name}_m:x\n", **{f"{name}_m": "def x(spec): ...\n"})
    found = _found()["models/shared"]
    assert found.text in {"is claimed by one 1.0 and two 1.0", "is claimed by two 1.0 and one 1.0"}
    assert found.remedy.startswith("uninstall one of them")


def test_the_mix_of_torch_and_torchvision_has_its_remedy(plant: Plant) -> None:
    text = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    plant("bad", "1.0", entry_points="[bench.models]\nmixed = mixed:x\n", mixed=text)
    assert _found()["models/mixed"].remedy.endswith("pip install --force-reinstall torch torchvision")


def test_every_kind_is_looked_at() -> None:
    assert all(installed(kind) for kind in GROUPS)
