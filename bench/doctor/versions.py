"""Versions that matter, and those that do not fit each other; read from metadata, so that nothing is imported."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from bench.doctor.finding import Finding, ok, problem, warning

__all__ = ["built_for", "check_versions"]

_OURS = "visionbench"

#: Named in the listing, fit or not.
_SHOWN = ("torch", "torchvision", "timm", "numpy", "onnx", "onnxruntime-gpu", "onnxruntime", "mlflow", "optuna")

_PAIR = "pip install --force-reinstall torch torchvision"


def check_versions() -> list[Finding]:
    """Python, our own lower bounds, the pairs that break each other."""
    known = {name: found for name in _SHOWN if (found := _version(name))}
    shown = ", ".join(f"{name} {found}" for name, found in known.items())
    findings = [_python(), ok("versions", f"{_OURS} {_version(_OURS) or 'not installed'}; {shown or 'nothing else'}")]
    findings += [*_bounds(), *_torch_pair(), *_runtimes(), *_needs("torchvision", "torch"), *_needs("timm", "torch")]
    return findings


def _python() -> Finding:
    here, needed = platform.python_version(), _metadata_python()
    text = f"{here} in {sys.prefix}"
    if needed and not _fits(here, needed):
        return problem("python", f"{text}; {needed} is needed", "make the environment anew with a newer Python")
    return ok("python", text)


def _metadata_python() -> str:
    from importlib.metadata import metadata

    try:
        return str(metadata(_OURS)["Requires-Python"] or "")
    except (PackageNotFoundError, KeyError):  # KeyError: importlib_metadata, which replaces the standard one
        return ""


def _bounds() -> Iterator[Finding]:
    """What pyproject asks for and is missing, too old or too new. Without its libraries it still predicts."""
    from packaging.requirements import Requirement

    asked = [Requirement(text) for text in _requires(_OURS)]
    for one in asked:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        found = _version(one.name)
        if found is None:
            yield from _missing(one.name)
        elif not one.specifier.contains(found.partition("+")[0], prereleases=True):
            fix = f"pip install '{one.name}{one.specifier}'"
            yield problem(one.name, f"{found} is installed, {one.specifier} is needed", fix)


def _missing(name: str) -> Iterator[Finding]:
    other = {"onnxruntime-gpu": "onnxruntime", "onnxruntime": "onnxruntime-gpu"}.get(name)
    if other and _version(other):
        return
    yield problem(name, "is not installed", f"pip install {name}")


def _torch_pair() -> Iterator[Finding]:
    """A torch for the CPU beside a torchvision for CUDA, or the other way round, fails on import."""
    torch, vision = _version("torch"), _version("torchvision")
    if torch and vision and not _fit(built_for(torch), built_for(vision)):
        both = f"torch {torch} ({built_for(torch)}) beside torchvision {vision} ({built_for(vision)})"
        yield problem("torch/torchvision", f"{both} fails on import", _PAIR)


def built_for(found: str) -> str:
    """What a wheel of PyTorch was built for: cpu, cu130, rocm7.0; "cuda" or "cpu" for the index's ordinary one."""
    if tag := found.partition("+")[2].partition(".git")[0]:
        return tag
    return "cuda" if (sys.platform, platform.machine()) == ("linux", "x86_64") else "cpu"


def _fit(one: str, other: str) -> bool:
    """An ordinary wheel's CUDA is not told by its version; then importing both shows it."""
    either = {one, other}
    return len(either) == 1 or ("cuda" in either and all(tag.startswith("cu") for tag in either))


def _runtimes() -> Iterator[Finding]:
    """Two distributions that write the same files: the later one wins, in part."""
    if _version("onnxruntime") and _version("onnxruntime-gpu"):
        fix = "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu"
        yield problem("onnxruntime", "onnxruntime and onnxruntime-gpu are both installed, in the same folder", fix)


def _needs(name: str, other: str) -> Iterator[Finding]:
    """What a library's own metadata ask of another."""
    from packaging.requirements import Requirement

    found, theirs = _version(other), _version(name)
    for text in _requires(name) if found and theirs else ():
        one = Requirement(text)
        if one.name == other and found and not one.specifier.contains(found.partition("+")[0], prereleases=True):
            what = f"{name} {theirs} needs {other} {one.specifier}, but {found} is installed"
            yield problem(f"{other}/{name}", what, _PAIR if name == "torchvision" else f"pip install --upgrade {name}")
    if name == "torchvision" and theirs and not found:
        yield warning(name, f"{theirs} is installed without {other}", _PAIR)


def _fits(found: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(found, prereleases=True)


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def _version(name: str) -> str | None:
    """None where it is not installed, or its metadata lack a version."""
    try:
        return version(name)
    except (PackageNotFoundError, KeyError):
        return None
