"""Plugins are listed without being imported, and a broken one hurts only whoever names it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import registry
from bench.errors import PluginError
from bench.registry import GROUPS, find, installed, near_miss

Install = Callable[..., None]

SOUND = '''
def thing(spec):
    """The first line.

    And more.
    """
    return "built"
'''


@pytest.fixture(autouse=True)
def _fresh_listing() -> Iterator[None]:
    installed.cache_clear()
    yield
    installed.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution: files, and entry points by kind."""

    def make(distribution: str, files: Mapping[str, str], *, version: str = "1.0", **kinds: Mapping[str, str]) -> None:
        site = tmp_path / distribution
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = [
            line
            for kind, points in kinds.items()
            for line in (f"[{GROUPS[kind]}]", *(f"{name} = {target}" for name, target in points.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for name, text in files.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text)
        monkeypatch.syspath_prepend(site)

    yield make
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


def point(target: str, *, name: str = "thing", distribution: str = "toys", version: str = "1.0") -> EntryPoint:
    unowned: Any = EntryPoint(name, target, "bench.models")
    owner: Any = SimpleNamespace(name=distribution, version=version)
    return unowned._for(owner)  # type: ignore[no-any-return]  # an entry point that knows its distribution


def test_an_unknown_name_brings_the_near_miss_and_what_is_installed(install: Install) -> None:
    install("toys", {"toys_a.py": SOUND}, models={"toy_net": "toys_a:thing"})
    with pytest.raises(PluginError, match=r'no plugin .toy_nets. among the models; did you mean "toy_net"\?') as error:
        find("models", "toy_nets")
    assert "Installed: cnn, face_descriptor, lenet, linear, " in str(error.value)
    assert "toy_net" in str(error.value).partition("Installed: ")[2]
    assert error.value.hint == "bench plugins lists what is installed"
    with pytest.raises(PluginError, match="no plugin 'qqq' among the models; installed: "):
        find("models", "qqq")


def test_nothing_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda **_: [])
    with pytest.raises(PluginError, match="no plugin 'cnn' among the models; installed: none"):
        find("models", "cnn")


def test_a_plugin_is_found_with_where_it_comes_from(install: Install) -> None:
    install("toys", {"toys_b.py": SOUND}, version="2.5", datasets={"toy_set": "toys_b:thing"})
    plugin = find("datasets", "toy_set")
    assert (plugin.kind, plugin.name, plugin.target) == ("datasets", "toy_set", "toys_b:thing")
    assert (plugin.distribution, plugin.version) == ("toys", "2.5")
    assert plugin.load()(None) == "built"


def test_two_distributions_with_one_name_are_an_error_once_it_is_used(install: Install) -> None:
    install("toys-one", {"toys_one.py": SOUND}, models={"thing": "toys_one:thing", "alone": "toys_one:thing"})
    install("toys-two", {"toys_two.py": SOUND}, models={"thing": "toys_two:thing"})
    assert len(installed("models")["thing"]) == 2
    assert find("models", "alone").load()(None) == "built"
    with pytest.raises(PluginError, match="models plugin 'thing' is claimed by") as error:
        find("models", "thing")
    for claim in ("toys-one 1.0 (toys_one:thing)", "toys-two 1.0 (toys_two:thing)"):
        assert claim in str(error.value)
    assert "pip uninstall toys-" in str(error.value.hint)


def test_names_are_claimed_within_a_kind_only(install: Install) -> None:
    install("toys-one", {"toys_c.py": SOUND}, models={"thing": "toys_c:thing"})
    install("toys-two", {"toys_d.py": SOUND}, datasets={"thing": "toys_d:thing"})
    assert find("models", "thing").distribution == "toys-one"
    assert find("datasets", "thing").distribution == "toys-two"


def test_one_distribution_that_is_seen_twice_is_no_conflict() -> None:
    listed = registry._by_name("models", [point("toys:thing"), point("toys:thing", version="1.1")])
    assert [plugin.distribution for plugin in listed["thing"]] == ["toys"]


def test_names_are_sorted_whatever_the_order_of_installation() -> None:
    listed = registry._by_name("models", [point("toys:b", name="b"), point("toys:a", name="a")])
    assert list(listed) == ["a", "b"]


def test_a_plugin_that_raises_at_import_hurts_nobody_else(install: Install) -> None:
    files = {"toys_bad.py": "raise RuntimeError('no licence')", "toys_good.py": SOUND}
    install("toys", files, models={"bad": "toys_bad:thing", "good": "toys_good:thing"})
    assert find("models", "good").load()(None) == "built"
    with pytest.raises(PluginError) as error:
        find("models", "bad").load()
    expected = "models plugin 'bad' of toys 1.0 cannot be imported from toys_bad:thing: RuntimeError: no licence"
    assert str(error.value) == expected
    assert error.value.hint == "repair or uninstall it: pip uninstall toys"
    assert isinstance(error.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("toys_not_there:thing", "ModuleNotFoundError: No module named 'toys_not_there'"),
        ("toys_e:thinc", "AttributeError: module 'toys_e' has no attribute 'thinc'"),
        ("toys_broken:thing", "SyntaxError"),
    ],
)
def test_a_target_that_is_not_there_is_named(target: str, cause: str, install: Install) -> None:
    install("toys", {"toys_e.py": SOUND, "toys_broken.py": "def"}, models={"thing": target})
    with pytest.raises(PluginError, match=f"from {target}: {cause}"):
        find("models", "thing").load()


def test_a_target_that_is_not_callable_is_refused(install: Install) -> None:
    install("toys", {"toys_f.py": "thing = 3"}, models={"thing": "toys_f:thing", "module": "toys_f"})
    with pytest.raises(PluginError, match="models plugin 'thing' of toys: toys_f:thing is not callable") as error:
        find("models", "thing").load()
    assert error.value.hint == "an entry point must name a function"
    with pytest.raises(PluginError, match="toys_f is not callable"):
        find("models", "module").load()


def test_torch_and_torchvision_that_do_not_fit_are_explained(install: Install) -> None:
    text = "raise RuntimeError('operator torchvision::nms does not exist')"
    install("toys", {"toys_g.py": text}, models={"thing": "toys_g:thing"})
    with pytest.raises(PluginError, match="torchvision::nms") as error:
        find("models", "thing").load()
    assert error.value.hint == (
        "torch and torchvision do not fit each other: pip install --force-reinstall torch torchvision"
    )


# Summaries


SUMMARIES = {
    "toys_h:thing": "The first line.",
    "toys_h:absent": "",
    "toys_h": "",
    "toys_h:Maker": "A class.",
    "toys_raises:thing": "The first line.",
    "toys_package:thing": "From a package.",
    "toys_package.deep.inner:thing": "The first line.",
    "toys_not_there:thing": "",
    "toys_broken:thing": "",
    "toys_bytes:thing": "",
    "sys:exit": "",
    "toys_namespace.deep.inner:thing": "The first line.",
    "not a target": "",
}


@pytest.mark.parametrize("target", SUMMARIES)
def test_a_summary_is_read_without_importing(target: str, install: Install, tmp_path: Path) -> None:
    files = {
        "toys_h.py": SOUND + 'class Maker:\n    """A class."""\ndef bare(spec): ...\n',
        "toys_raises.py": "import torch_that_is_not_there\nraise RuntimeError\n" + SOUND,
        "toys_package/__init__.py": 'raise RuntimeError\ndef thing(spec):\n    """From a package."""\n',
        "toys_package/deep/__init__.py": "raise RuntimeError\n",
        "toys_package/deep/inner.py": SOUND,
        "toys_namespace/deep/inner.py": SOUND,
        "toys_broken.py": "def",
    }
    install("toys", files)
    (tmp_path / "toys" / "toys_bytes.py").write_bytes(b'def thing():\n    """\xff"""\n')
    before = set(sys.modules)
    assert registry._by_name("models", [point(target)])["thing"][0].summary() == SUMMARIES[target]
    assert set(sys.modules) == before


def test_every_plugin_of_ours_has_a_summary() -> None:
    known = [plugin for kind in GROUPS for claims in installed(kind).values() for plugin in claims]
    ours = [plugin for plugin in known if plugin.distribution == "visionbench"]
    assert len(ours) > 20
    assert [plugin.name for plugin in ours if not plugin.summary()] == []


def test_listing_imports_neither_torch_nor_any_plugin() -> None:
    program = (
        "import sys, bench.registry as r;"
        "[p.summary() for kind in r.GROUPS for claims in r.installed(kind).values() for p in claims];"
        "loaded = {'torch', 'torchvision', 'timm', 'sklearn', 'numpy', 'bench_plugins', 'bench_export'} & {*sys.modules};"
        "sys.exit(', '.join(loaded) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("given", "expected"),
    [("adamm", '; did you mean "adam"?'), ("adam", '; did you mean "adam"?'), ("qqq", ""), ("", "")],
)
def test_near_miss(given: str, expected: str) -> None:
    assert near_miss(given, ["sgd", "adam", "adamw"]) == expected
