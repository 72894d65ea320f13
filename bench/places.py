"""Where the files and folders lie that a recipe names, each with the reason."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["find_root", "find_weights"]


def find_root(path: str) -> tuple[str, str]:
    """A dataset's folder: as given if absolute, else here, else below BENCH_DATA, else in the data folder."""
    path = str(Path(path).expanduser())
    if found := _given(path):
        return found
    home = os.environ.get("BENCH_DATA")
    if home:
        return str(Path(home).resolve() / path), "below the folder that BENCH_DATA names"
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("visionbench")) / "data" / path
    return str(folder), "not in the current folder and BENCH_DATA is not set"


def find_weights(path: str) -> tuple[str, str]:
    """A weights file: as given if absolute, else here, else below BENCH_DATA.

    Or those of a recorded run, by its name or its id in MLflow: runs:/RUN or runs:/RUN/model.
    """
    if not path:
        return "", "none given"
    if path.startswith("runs:/"):
        return _of_run(path.removeprefix("runs:/").strip("/").removesuffix("/model"))
    path = str(Path(path).expanduser())
    if found := _given(path):
        return found
    home = os.environ.get("BENCH_DATA")
    if home and (Path(home) / path).exists():
        return str(Path(home).resolve() / path), "below the folder that BENCH_DATA names"
    return path, "missing: neither in the current folder nor " + (f"in {home}" if home else "below BENCH_DATA, not set")


def _given(path: str) -> tuple[str, str] | None:
    if Path(path).is_absolute():
        return path, "given as an absolute path"
    if Path(path).exists():
        return str(Path(path).resolve()), "found below the current folder"
    return None


def _of_run(name: str) -> tuple[str, str]:
    from bench.record import find_mirrored
    from bench.run_names import find

    run = find_mirrored(name) or find(name)
    return str(run.folder / "model.safetensors"), f"of the {run.status()} run {run.name}"
