"""Collects everything that is wrong with a dataset's files, to say it in one error."""

from collections.abc import Mapping
from pathlib import Path

from bench.errors import DataError

__all__ = ["Problems"]

_SHOWN = 20


class Problems:
    """Faults by their kind, each counted and the first ones listed.

    A kind is a phrase in the plural ("images that do not exist"); `remedies` holds what to do about each.
    """

    def __init__(self, remedies: Mapping[str, str]) -> None:
        self.remedies = remedies
        self.found: dict[str, list[str]] = {}

    def add(self, kind: str, fault: str) -> None:
        """Note one fault."""
        assert kind in self.remedies  # noqa: S101 -- an invariant: every fault comes with a remedy
        self.found.setdefault(kind, []).append(fault)

    def check(self, root: Path) -> None:
        """Raise DataError with every fault that was noted."""
        if not self.found:
            return
        parts = [f"\n  {kind}: {len(faults):,}{_shorten(faults)}" for kind, faults in self.found.items()]
        hint = "; ".join(dict.fromkeys(self.remedies[kind] for kind in self.found))
        raise DataError(f"{root} cannot be used as it is:{''.join(parts)}", hint=hint)


def _shorten(faults: list[str]) -> str:
    """The first faults, one a line, and how many more there are."""
    more = [f"and {len(faults) - _SHOWN:,} more"] if len(faults) > _SHOWN else []
    return "".join(f"\n    {line}" for line in [*faults[:_SHOWN], *more])
