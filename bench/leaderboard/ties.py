"""Whether an entry can be told from the leader of its dataset: by the tests of bench.comparison."""

from __future__ import annotations

from collections.abc import Sequence

from bench.leaderboard.facts import Entry, Standing
from bench.statistics import holm

__all__ = ["ranked"]


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """The entries of one test set by accuracy, each with its standing.

    The leader is the most accurate one whose predictions are known; the p-values of all others against it are adjusted
    together by Holm's method.
    """
    ordered = sorted(entries, key=lambda entry: (-entry.accuracy, entry.recipe, entry.changes))
    leader = next((entry for entry in ordered if entry.answered), ordered[0])
    others = [entry for entry in ordered if entry is not leader and entry.answered and leader.answered]
    tests = [_test(leader, entry) for entry in others]
    adjusted = holm([p for p, _ in tests])
    found = {id(leader): Standing("leader")}
    for entry, p, (_, test) in zip(others, adjusted, tests, strict=True):
        found[id(entry)] = _standing(p, test)
    return [entry.stands(found.get(id(entry), Standing("not tested"))) for entry in ordered]


def _standing(p: float, test: str) -> Standing:
    from bench.comparison.model import LEVEL

    return Standing("behind" if p < LEVEL else "tied", float(f"{p:.4g}"), test)


def _test(leader: Entry, entry: Entry) -> tuple[float, str]:
    """(p-value of this pair alone, the test)."""
    from bench.comparison.pairs import judge

    pair = enumerate(one.answered.evidence(one.kind) for one in (leader, entry) if one.answered)
    [verdict] = judge([dict(pair)]).verdicts()
    return verdict.p, verdict.test
