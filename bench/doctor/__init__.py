"""What is wrong with an installation, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from bench.doctor.accelerators import check_accelerators
from bench.doctor.finding import Finding, problem
from bench.doctor.machine import check_clock, check_machine
from bench.doctor.places import check_data, check_disk, check_runs
from bench.doctor.plugins import check_plugins
from bench.doctor.stores import check_search, check_tracking
from bench.doctor.versions import check_versions
from bench.record import runs_folder

__all__ = ["AREAS", "Finding", "examine"]


def _clock() -> list[Finding]:
    return check_clock(runs_folder(), least=_latest_run())


#: Heading -> its checks, in the order in which they are shown.
AREAS: Mapping[str, tuple[Callable[[], list[Finding]], ...]] = {
    "versions": (check_versions,),
    "hardware": (check_accelerators, check_machine),
    "places": (check_runs, check_disk, check_data, _clock),
    "stores": (check_tracking, check_search),
    "plugins": (check_plugins,),
}


def examine(areas: Mapping[str, tuple[Callable[[], list[Finding]], ...]] = AREAS) -> dict[str, list[Finding]]:
    """Run all checks at once, as they mostly wait for processes and servers; each of them ends by itself.

    A check that fails itself is a problem among the others.
    """
    with ThreadPoolExecutor() as pool:
        begun = {area: [pool.submit(_guarded, check) for check in checks] for area, checks in areas.items()}
        return {area: [found for one in futures for found in one.result()] for area, futures in begun.items()}


def _guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:  # noqa: BLE001  # a doctor must survive its patient
        name = check.__name__.removeprefix("check_").strip("_")
        text = f"could not be examined: {type(error).__name__}: {error}"
        return [problem(name, text, "pip install --force-reinstall visionbench, if the cause is not plain")]


def _latest_run() -> datetime | None:
    """When the latest run was begun, by its name; names begin with the time."""
    names = [folder.name[:15] for folder in runs_folder().glob("*/[0-9]*-*")]
    try:
        return datetime.strptime(max(names), "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:  # none, or a folder of another name
        return None
