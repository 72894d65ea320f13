"""Folders: can runs be written, is there room, where are the data."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.doctor.finding import Finding, ok, problem, warning
from bench.record import Run, list_runs, runs_folder
from bench.run_info import left_out, readable

__all__ = ["cache_folder", "check_data", "check_disk", "check_runs"]

_GIB = 2**30


def check_runs() -> list[Finding]:
    """The folder of the runs: there or possible, and writable."""
    folder = runs_folder().absolute()
    name, remedy = "runs", "name another folder with BENCH_RUNS, or change its permissions"
    if folder.exists() and not folder.is_dir():
        return [problem(name, f"{folder} is a file", remedy)]
    place = _existing(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-"):
            pass
    except OSError as cause:
        return [problem(name, f"{place} cannot be written: {cause.strerror}", remedy)]
    if not folder.is_dir():
        return [ok(name, f"{folder} is made by the first run")]
    damaged: list[Run] = []
    count = sum(1 for _ in readable(list_runs(), damaged))
    found = [ok(name, f"{count:,} run{'' if count == 1 else 's'} in {folder}")]
    if damaged:
        found.append(warning(name, left_out(damaged), "restore run.json from a copy, or remove the run's folder"))
    return found


def check_disk(*, warn_gb: float = 5.0, least_gb: float = 0.5) -> list[Finding]:
    """Free space where runs, decoded images and temporary files go; one line a disk."""
    places = {"runs": runs_folder().absolute(), "cache": cache_folder(), "temporary files": Path(tempfile.gettempdir())}
    disks: dict[int, list[str]] = {}
    folders: dict[int, Path] = {}
    for name, folder in places.items():
        place = _existing(folder)
        disk = place.stat().st_dev
        disks.setdefault(disk, []).append(name)
        folders.setdefault(disk, place)
    return [_room(", ".join(names), folders[disk], warn_gb, least_gb) for disk, names in disks.items()]


def _room(names: str, place: Path, warn_gb: float, least_gb: float) -> Finding:
    usage = shutil.disk_usage(place)
    free = usage.free / _GIB
    text = f"{free:,.1f} of {usage.total / _GIB:,.0f} GiB free for {names} (the disk of {place})"
    remedy = "make room, or move them: BENCH_RUNS, BENCH_CACHE, TMPDIR"
    if free < least_gb:
        return problem("disk", text, remedy)
    return warning("disk", text, remedy) if free < warn_gb else ok("disk", text)


def check_data() -> list[Finding]:
    """BENCH_DATA, and which installed datasets' folders are found."""
    home = os.environ.get("BENCH_DATA")
    if home and not Path(home).is_dir():
        return [problem("data", f"BENCH_DATA names {home}, which is no folder", "correct or unset BENCH_DATA")]
    found = sorted(_found())
    listed = ", ".join(found) if found else "no dataset's folder"
    if home:
        others = sum(1 for entry in Path(home).iterdir() if entry.is_dir() and entry.name not in found)
        more = f" and {others} other folder{'' if others == 1 else 's'}" if others else ""
        return [ok("data", f"{listed}{more} found; BENCH_DATA is {home}")]
    text = f"BENCH_DATA is not set; {listed} found in the current folder and {cache_folder() / 'data'}"
    return [ok("data", text)]


def _found() -> Iterator[str]:
    from bench.places import find_root
    from bench.registry import installed

    for name in installed("datasets"):
        if Path(find_root(name)[0]).is_dir():
            yield name


def cache_folder() -> Path:
    """Where decoded images and features are kept."""
    if given := os.environ.get("BENCH_CACHE"):
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("visionbench"))


def _existing(folder: Path) -> Path:
    """The folder itself, or what is there of the way to it."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())
